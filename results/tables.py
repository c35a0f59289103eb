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


METHODS = ("ft-l", "ft-m", "lora", "melo", "wise", "grace", "rome", "memit", "alphaedit", "ike")
ROLES = ("reliability", "generality", "portability", "locality")
SHORT = {"reliability": "Rel.", "generality": "Gen.", "portability": "Por.", "locality": "Loc.", "mean": "mean"}


def kept(prefix: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [load(path.name) for path in sorted(HERE.glob(f"{prefix}*"))]


def made_by(found: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """The commands and commits of some runs, folded: in a README nobody scrolls past ten commands to the next line."""
    commands = "<br>".join(f"<code>{config['command']}</code>" for _, config in found)
    commits = ", ".join(sorted({config["commit"] for _, config in found}))
    return f"<details><summary>Commands; engramlab {commits}</summary>{commands}</details>"


def gain(found: list[tuple[dict[str, Any], dict[str, Any]]], row: dict[str, Any], role: str) -> str:
    """A row's difference to cross-entropy in percentage points, with its interval; nothing for cross-entropy itself."""
    for summary, _ in found:
        for d in summary["differences"]:
            if all(d[key] == row[key] for key in ("method", "loss", "edits", "protocol")) and d["role"] == role:
                low, high = 100 * d["low"], 100 * d["high"]
                return f"{100 * d['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return ""


def table(heads: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *("| " + " | ".join(r) + " |" for r in lines)]


def editing(protocol: str, prefix: str) -> str:
    """Methods x losses of all kept single-edit runs, with each loss's difference to cross-entropy."""
    found = kept(prefix)
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == protocol and r["edits"] == 1]
    rows.sort(key=lambda r: METHODS.index(r["method"]))
    lines = [
        [row["method"], row["loss"], str(row["cases"])]
        + [percent(row[role]) for role in (*ROLES, "mean")]
        + [gain(found, row, role) for role in ("portability", "locality")]
        for row in rows
    ]
    heads = ["method", "loss", "cases", *(SHORT[role] for role in (*ROLES, "mean")), "Por. − CE", "Loc. − CE"]
    note = f"Per cent, {protocol}; intervals are 95 % bootstrap over cases."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def continual(protocol: str, counts: tuple[int, ...] = (1, 10, 100)) -> str:
    """Methods x losses of all kept continual runs, judged again after so many edits."""
    found = kept("editing-continual-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == protocol]
    units = dict.fromkeys((r["method"], r["loss"]) for r in sorted(rows, key=lambda r: METHODS.index(r["method"])))
    lines = []
    for method, loss in units:
        at = {r["edits"]: r for r in rows if (r["method"], r["loss"]) == (method, loss)}
        shares = [" / ".join(percent(at[n][role]) if n in at else "–" for n in counts) for role in (*ROLES, "mean")]
        last = at.get(counts[-1])
        gains = [gain(found, last, role) if last else "" for role in ("portability", "locality")]
        lines.append([method, loss, *shares, *gains])
    after = " / ".join(map(str, counts))
    heads = ["method", "loss", *(SHORT[role] for role in (*ROLES, "mean"))]
    heads += [f"{SHORT[role]} − CE after {counts[-1]}" for role in ("portability", "locality")]
    note = f"Per cent, {protocol}, after {after} edits in a row on one model, every edit so far judged again."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def sweep() -> str:
    """Each loss setting tried on the tuning split, by method."""
    found = kept("editing-sweep-")
    rows = [r for summary, _ in found for r in summary["rows"] if r["protocol"] == "teacher-forced" and r["edits"] == 1]
    rows.sort(key=lambda r: METHODS.index(r["method"]))
    lines = [[r["method"], r["loss"], *(percent(r[role]) for role in (*ROLES, "mean"))] for r in rows]
    heads = ["method", "loss", *(SHORT[role] for role in (*ROLES, "mean"))]
    cases = " or ".join(map(str, sorted({r["cases"] for r in rows})))
    note = f"Per cent, teacher-forced, {cases} cases of the tuning split, which no other table uses."
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def ablation() -> str:
    """OVERTONE with one part out of force at a time, by method."""
    found = kept("editing-ablation-")
    lines = []
    for summary, _ in found:
        for row in summary["rows"]:
            if row["protocol"] == "teacher-forced":
                shares = [percent(row[role]) for role in (*ROLES, "mean")]
                lines.append([row["method"], row["setting"], *shares, f"{row['final_loss_spread']:.3f}"])
    heads = ["method", "setting", *(SHORT[role] for role in (*ROLES, "mean")), "spread"]
    cases = " or ".join(sorted({str(row["cases"]) for summary, _ in found for row in summary["rows"]}))
    note = (
        f"Per cent, teacher-forced, {cases} cases; *spread*: largest minus smallest final loss (nats) among an edit's target "
        "tokens."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def interval(row: dict[str, Any], name: str, digits: int = 2) -> str:
    """A value with its 95 % interval."""
    if row.get(name) is None:
        return "–"
    return f"{row[name]:.{digits}f} [{row[name + '_low']:.{digits}f}, {row[name + '_high']:.{digits}f}]"


def threshold(steps: float | str | None) -> str:
    """Steps; where nothing is forgotten within the horizon, the line never comes down to 0."""
    if isinstance(steps, str):
        return "∞"
    return "–" if steps is None else f"{steps:,.0f}"


def acquisition(*names: str) -> str:
    """What an encounter gains and how it is forgotten, by part of a run, group and depth."""
    found = [load(name) for name in names]
    lines = []
    parts = {row["dataset"] for summary, _ in found for row in summary["rows"]}
    for summary, _ in found:
        for row in summary["rows"]:
            first = [row["dataset"]] if len(parts) > 1 else []
            decay = row.get("decay_constant")
            lines.append(
                [
                    *first,
                    row["group"],
                    row["depth"],
                    interval(row, "effectivity"),
                    interval(row, "effectivity_net"),
                    "–" if decay is None else f"{decay:.2f} [{row['decay_low']:.2f}, {row['decay_high']:.2f}]",
                    "–" if decay is None else f"{row['r_squared']:.2f}",
                    threshold(row.get("threshold_steps")),
                    f"{row['final_gain']:+.2f}",
                ]
            )
    heads = ["part"] if len(parts) > 1 else []
    heads += [
        "group",
        "depth",
        "effectivity",
        "above the control",
        "decay constant",
        "R²",
        "threshold (steps)",
        "at the end",
    ]
    seeds = ", ".join(sorted({str(summary["seed"]) for summary, _ in found}))
    note = (
        "Nats, mean over a target's tokens; 95 % bootstrap over passages; seed "
        f"{seeds}. *never*: the control; what a maximum over a noisy window gains by chance. Threshold: where retainability "
        "reaches 0. At the end: log-probability less that before the first encounter."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def forecast() -> str:
    """The planner's error on a run with another interval than the one it was fitted on."""
    made = json.loads((HERE / "acquisition-plan" / "plan.json").read_text())
    ways = ("planner", "no forgetting", "last encounter only")
    lines = [
        [row["group"], row["depth"], f"{row['measured']:+.2f}"]
        + [f"{row[way + ': mean curve']:.2f} ({row[way]:.2f})" for way in ways]
        for row in made["errors"]
        if row["place"] == "end"
    ]
    note = (
        "Nats: how far the forecast log-probability at the last state is off for the mean over 200 queries and, in brackets, "
        "for a single query."
    )
    return "\n".join([*table(["group", "depth", "measured gain", *ways], lines), "", note])


TABLES = {
    "editing single teacher-forced": lambda: editing("teacher-forced", "editing-single-"),
    "editing single generated": lambda: editing("generated", "editing-single-"),
    "editing tuned teacher-forced": lambda: editing("teacher-forced", "editing-tuned-"),
    "editing continual teacher-forced": lambda: continual("teacher-forced"),
    "editing continual generated": lambda: continual("generated"),
    "editing sweep": sweep,
    "editing ablation": ablation,
    "acquisition tiny": lambda: acquisition("acquisition-tiny"),
    "acquisition batches": lambda: acquisition("acquisition-batches"),
    "acquisition smollm2": lambda: acquisition("acquisition-smollm2"),
    "acquisition forecast": forecast,
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
        # Up to its own end, never to that of a later table.
        place = rf"<!-- {name} table -->((?:(?!<!-- ).)*<!-- end -->)?"
        text = re.sub(place, lambda _, t=table: t, text, count=1, flags=re.DOTALL)
    if "--write" in sys.argv:
        README.write_text(text)


if __name__ == "__main__":
    main()
