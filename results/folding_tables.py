"""The table of docs/folding.md."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, percent, table


def folding(prefix: str = "folding-") -> str:
    """A line a run, arm and way of asking: right answers with each number of distractors, all hops together."""
    found = kept(prefix)
    if not found:
        return ABSENT
    counts = sorted({int(row["distractors"]) for summary, _ in found for row in summary["rows"]})
    lines = []
    for summary, config in found:
        asked = config["config"]["data"]
        name = asked if asked == "worlds" else asked.rpartition("/")[2].partition(".")[0]
        for arm, way in dict.fromkeys((row["arm"], row["asked"]) for row in summary["rows"]):
            rows = [r for r in summary["rows"] if (r["arm"], r["asked"], r["hops"]) == (arm, way, 0)]
            cells = [_cell(next((r for r in rows if r["distractors"] == n), None)) for n in counts]
            recited = max((r["recited"] for r in rows if arm not in ("single-task", "in-context")), default=0.0)
            lines.append([
                name, str(config["config"]["seed"]), arm, way, *cells, percent(recited) if recited else "–",
                percent(summary["majority"]),
            ])  # fmt: skip
    heads = ["questions", "seed", "arm", "facts", *(f"{n} distractors" for n in counts), "recited", "majority"]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def _cell(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{percent(row['accuracy'])} [{percent(row['low'])}, {percent(row['high'])}]"
