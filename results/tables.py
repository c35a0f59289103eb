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


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def editing(protocol: str, prefix: str, *, edits: int) -> str:
    """Methods x losses of all kept runs whose folder begins with ``prefix``, with OVERTONE's difference to cross-entropy."""
    names = sorted(path.name for path in HERE.glob(f"{prefix}*"))
    kept = [load(name) for name in names]
    roles = ("reliability", "generality", "portability", "locality", "mean")
    lines = ["| method | loss | Rel. | Gen. | Por. | Loc. | mean | Por. − CE | Loc. − CE | s/edit |", "|---" * 10 + "|"]
    differences = {
        (d["method"], d["loss"], d["role"]): d
        for summary, _ in kept
        for d in summary["differences"]
        if d["protocol"] == protocol and d["edits"] == edits
    }

    def gain(row: dict[str, Any], role: str) -> str:
        found = differences.get((row["method"], row["loss"], role))
        if found is None:
            return ""
        low, high = 100 * found["low"], 100 * found["high"]
        return f"{100 * found['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"

    rows = [r for summary, _ in kept for r in summary["rows"] if r["protocol"] == protocol and r["edits"] == edits]
    order = ("ft-l", "ft-m", "lora", "melo", "wise", "grace", "rome", "memit", "alphaedit", "ike")
    for row in sorted(rows, key=lambda r: order.index(r["method"])):
        shares = " | ".join(percent(row[role]) for role in roles)
        gains = " | ".join(gain(row, role) for role in ("portability", "locality"))
        lines.append(f"| {row['method']} | {row['loss']} | {shares} | {gains} | {row['seconds_per_edit']:.2f} |")
    cases = sorted({r["cases"] for r in rows})
    commands = "; ".join(f"`{config['command']}`" for _, config in kept)
    commits = ", ".join(sorted({config["commit"] for _, config in kept}))
    lines += [
        "",
        f"Per cent, {protocol}; {' or '.join(map(str, cases))} cases; intervals are 95 % bootstrap over cases. Two CPU cores, "
        f"beside other work. {commands}; engramlab {commits}.",
    ]
    return "\n".join(lines)


TABLES = {
    "editing single teacher-forced": lambda: editing("teacher-forced", "editing-single-", edits=1),
    "editing single generated": lambda: editing("generated", "editing-single-", edits=1),
    "editing continual teacher-forced": lambda: editing("teacher-forced", "editing-continual-", edits=100),
    "editing continual generated": lambda: editing("generated", "editing-continual-", edits=100),
    "editing sweep": lambda: editing("teacher-forced", "editing-sweep-", edits=1),
    "demo": lambda: extraction("demo", "demo-1"),
    "countries": lambda: extraction("countries"),
}


def main() -> None:
    text = README.read_text()
    for name, build in TABLES.items():
        if f"<!-- {name} table -->" not in text:
            continue
        table = f"<!-- {name} table -->\n{build()}\n<!-- end -->"
        print(table + "\n")
        text = re.sub(rf"<!-- {name} table -->(.*?<!-- end -->)?", lambda _, t=table: t, text, count=1, flags=re.DOTALL)
    if "--write" in sys.argv:
        README.write_text(text)


if __name__ == "__main__":
    main()
