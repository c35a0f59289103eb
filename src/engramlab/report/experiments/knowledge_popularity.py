"""The page of `engramlab plan --popularity`: who is learnt by how often a corpus states them, and what deduplication does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.rows import DEPTHS
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import DASHES, Line, alike, curves
from engramlab.report.parts.training import missing
from engramlab.report.parts.words import big, count, fixed
from engramlab.report.rows import RunData, distinct
from engramlab.report.shapes import Maybe

_OF = {"depth": str, "condition": str, "learnt": float}
NEEDS = {
    "rows": Maybe([_OF | {"statements": float, "interval": float, "gain": float}]),
    "shares": Maybe([_OF | {"half": Maybe(float)}]),
    "poor": Maybe(list),
}
_COLOURS = ("#D55E00", "#009E73", "#0072B2")
_SOURCE = (
    "After the argument of arXiv 2406.11813, section 4.4: a fact whose statements lie further apart than the learnability "
    "threshold never accumulates, and removing duplicates helps. The simulation is ours, by the laws that a run has measured, "
    "each fact met at random steps."
)


def headline(runs: Sequence[RunData]) -> str:
    """What part of the facts is learnt, with duplicates and without."""
    texts = []
    for run in runs:
        for depth in DEPTHS:
            found = [row for row in run.summary.get("shares") or [] if row["depth"] == depth]
            said = [f"{row['condition']} {row['learnt']:.1%}" for row in found]
            texts += [f"{depth}: {', '.join(said)}"] if said else []
    return "Facts learnt, " + "; ".join(texts) + "." if texts else missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Curves of what is learnt over popularity, and the shares."""
    blocks: list[Block] = []
    for run in runs:
        for name, said in (("learnt", "share learnt"), ("gain", "gain at the end (nats)")):
            figures = []
            for depth in DEPTHS:
                found = [row for row in run.rows if row.get("depth") == depth]
                lines = []
                for k, condition in enumerate(distinct(row["condition"] for row in found)):
                    own = [row for row in found if row["condition"] == condition]
                    points = [row["statements"] for row in own], [row[name] for row in own]
                    lines.append(Line(condition, *points, _COLOURS[k % 3], DASHES[k % len(DASHES)]))
                if lines:
                    axis = {"type": "log", "rangemode": "normal"}
                    drawn = curves(lines, x="statements of the fact in the training", y=said, xaxis=axis)
                    figures.append((depth, drawn))
            if figures:
                blocks.append(Figures(alike(figures), _SOURCE if name == "learnt" else ""))
        if run.summary.get("poor"):
            blocks.append(Text(f"Laws of a poor fit: {', '.join(map(str, run.summary['poor']))}."))
    blocks += [table for run in runs for table in terminal(run.summary)]
    return [Section("Popularity and deduplication", blocks, missing(runs))]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The share of facts that are learnt under each condition."""
    rows = [
        [row["depth"], row["condition"], fixed(row["learnt"], 3), count(row.get("half")), big(row.get("threshold"))]
        for row in summary.get("shares") or []
    ]
    heads = ["depth", "the facts are stated", "facts learnt", "half learnt from (statements)", "threshold (steps)"]
    return [Table(heads, rows, "Facts learnt, of all", 2)] if rows else []
