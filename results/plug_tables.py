"""The table of docs/plug-in-memory.md: questions answered with documents and without, and what exchanging them moved."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, percent, table

COLUMNS = {
    "never asked": ("memory", "as trained", "test"),
    "found": ("memory", "as trained", "test"),
    "no memory": ("bare", "as trained", "test"),
    "unseen, added": ("memory", "added", "unseen"),
    "emptied": ("memory", "emptied", "test"),
}


def plug(prefix: str = "plug-") -> str:
    """A line a run: right answers, means over attributes, with 95 % intervals over subjects; and the exchange."""
    found = kept(prefix)
    if not found:
        return ABSENT
    lines = []
    for summary, config in found:
        rows = {(r["network"], r["when"], r["group"]): r for r in summary["rows"] if r["attribute"] == "mean"}
        cells = [_cell(rows.get(key), "hit" if name == "found" else "exact_match") for name, key in COLUMNS.items()]
        chance = rows.get(COLUMNS["never asked"], {}).get("chance")
        swapped = next((c for c in summary["changes"] if c["change"] == "documents exchanged"), {})
        moved = [_cell(swapped, "new"), _cell(swapped, "same")]
        name = f"{summary['objective']}, seed {config['config']['seed']}"
        lines.append([name, f"{summary['documents']}", percent(chance), *cells, *moved])
    heads = ["network", "documents", "chance", *COLUMNS, "new value named", "others alike"]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _cell(row: dict[str, Any] | None, name: str) -> str:
    if not row or row.get(name) is None:
        return "–"
    return f"{percent(row[name])} [{percent(row[name + '_low'])}, {percent(row[name + '_high'])}]"
