"""The table of docs/editing.md on learning to edit, from the runs whose names begin as below; without any, a line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kept import ABSENT, HERE, kept, made_by, share, table

ROLES = {"reliability": "Rel.", "generality": "Gen.", "portability": "Por.", "locality": "Loc."}


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    recall = "" if row.get("recall") is None else f", recall {share(row['recall'])}"
    return f"{share(row['share'])} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]{recall}"


def learning(prefix: str = "learning-") -> str:
    """Generated scores of every arm and count, recall beside each, and what training alone has changed."""
    if not any((path / "summary.json").exists() for path in HERE.glob(f"{prefix}*")):
        return ABSENT
    found = kept(prefix)
    lines = []
    for summary, _ in found:
        rows = [row for row in summary["rows"] if row["protocol"] == "generated"]
        unchanged = {row["arm"]: row for row in summary["kept"]}
        for arm, edits in dict.fromkeys((row["arm"], row["count"]) for row in rows):
            of = {row["role"]: row for row in rows if (row["arm"], row["count"]) == (arm, edits)}
            name = Path(str(summary["model"])).name.removesuffix(".gguf")
            lines.append([name, arm, f"{edits:,}", *(_cell(of.get(role)) for role in ROLES), _cell(unchanged.get(arm))])
    heads = ["model", "arm", "edits in memory", *ROLES.values(), "without a block as before"]
    note = (
        "Generated, 95 % bootstrap over cases (the last column: over prompts); recall: queries behind their own edit."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])
