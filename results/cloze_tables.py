"""The table of docs/estimation.md about questions asked as statements."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, percent, table

COLUMNS = {
    "bare": ("before", "bare"),
    "rules": ("before", "rules"),
    "own": ("before", "own"),
    "model": ("before", "model"),
    "all": ("before", "ensemble"),
    "trained": ("consistency", "ensemble"),
    "control": ("control", "ensemble"),
}


def cloze(prefix: str = "cloze-") -> str:
    """A line a run: accuracy of every translation and of all together, before and behind training; and how they agree."""
    found = kept(prefix)
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        rows = [row for row in summary["rows"] if row["score"] == summary["train_by"]]
        cells = [_cell(rows, when, name) for when, name in COLUMNS.values()]
        agree = [_one(rows, when, "ensemble").get("agreement") for when in ("before", "consistency")]
        asked = config["config"]["questions"]
        name = "countries" if asked == "facts" else asked.rpartition("/")[2].partition(".")[0]
        chance = f"{percent(rows[0]['chance'])}"
        lines.append([name, f"{rows[0]['questions']}", chance, *cells, " → ".join(map(percent, agree))])
    heads = ["questions", "number", "chance", *COLUMNS, "agreement"]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _one(rows: list[dict[str, Any]], when: str, name: str) -> dict[str, Any]:
    """The row of a translation; of several statements of the questions' own the first."""
    return next((r for r in rows if r["when"] == when and r["translator"].split()[0] == name), {})


def _cell(rows: list[dict[str, Any]], when: str, name: str) -> str:
    row = _one(rows, when, name)
    if not row:
        return "–"
    return f"{percent(row['accuracy'])} [{percent(row['low'])}, {percent(row['high'])}]"
