"""The README's tables, from the results kept here.

    python results/tables.py            # print them
    python results/tables.py --write    # put them between their markers in README.md

Each folder under ``results/`` holds the summary.json of a run and its config.json, which names the command, seed, versions and
commit that made it. ``make demo`` makes the first; the commands of the others stand in their config.json.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = HERE / name
    return json.loads((folder / "summary.json").read_text()), json.loads((folder / "config.json").read_text())


def share(value: float) -> str:
    return f"{100 * value:.0f} %"


def extraction(*names: str) -> str:
    """Exact match by dataset: P_train, P_test, P_test by attribute; means and ranges where several seeds were run."""
    summaries = [load(name)[0] for name in names]
    config = load(names[0])[1]
    rows = [row for summary in summaries for row in summary["rows"]]
    attributes = list(dict.fromkeys(row["attribute"] for row in rows if row["attribute"] != "mean"))
    lines = [
        "| corpus | P_train | **P_test** | " + " | ".join(a.replace("_", " ") for a in attributes) + " |",
        "|---|---|---|" + "---|" * len(attributes),
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):

        def cell(group: str, attribute: str, dataset: str = dataset) -> str:
            values = [
                r["exact_match"]
                for r in rows
                if (r["dataset"], r["group"], r["attribute"]) == (dataset, group, attribute)
            ]
            middle = share(sum(values) / len(values))
            if len(values) == 1 or attribute != "mean":
                return middle
            return f"{middle} ({100 * min(values):.0f}–{100 * max(values):.0f})"

        cells = [cell("train", "mean"), f"**{cell('test', 'mean')}**", *(cell("test", a) for a in attributes)]
        lines.append(f"| `{dataset}` | " + " | ".join(cells) + " |")
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    minutes = sum(summary["seconds"] for summary in summaries) / len(summaries) / 60
    questions = next(r["questions"] for r in rows if (r["group"], r["attribute"]) == ("test", "mean"))
    lines.append("")
    lines.append(
        f"Questions answered exactly ({questions} of each group); the columns on the right are P_test by attribute. "
        f"Seed{'s' if len(names) > 1 else ''} {seeds}; {minutes:.1f} minutes of training on two CPU cores; "
        f"`{config['command']}`; engramlab {config['commit']}."
    )
    return "\n".join(lines)


TABLES = {"demo": lambda: extraction("demo", "demo-1"), "countries": lambda: extraction("countries")}


def main() -> None:
    text = README.read_text()
    for name, build in TABLES.items():
        table = f"<!-- {name} table -->\n{build()}\n<!-- end -->"
        print(table + "\n")
        text = re.sub(rf"<!-- {name} table -->(.*?<!-- end -->)?", lambda _, t=table: t, text, count=1, flags=re.DOTALL)
    if "--write" in sys.argv:
        README.write_text(text)


if __name__ == "__main__":
    main()
