"""Where an edit's tokens end apart, by how many there are: one curve a loss, and a table with what it did to portability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engramlab.report.parts.blocks import Block, Figures, Section
from engramlab.report.parts.figures import Line, curves, styles
from engramlab.report.parts.judged import gain, rows_at
from engramlab.report.parts.training import missing, table_by_run
from engramlab.report.parts.words import short
from engramlab.report.rows import Row, RunData, distinct, number

_NOTE = (
    "Largest minus smallest loss of an edit's tokens after the last step, mean over edits; 0 for targets of one token. A loss "
    "that evens tokens out can only matter where the cross-entropy's curve is far above the loss at which it clips."
)
_TABLE = (
    "Brackets hold 95\u00a0% bootstrap intervals over edits. Portability: in points, generated, less that of OVERTONE in full "
    "on the same cases, with the interval over cases; ▲ or ▼ where it excludes 0."
)


def by_length(runs: Sequence[RunData], name: Callable[[str], str]) -> Section:
    """The section; `name` says what a setting is called."""
    title = "By the length of the target"
    blocks: list[Block] = []
    figures, rows = [], []
    for run in runs:
        of_run = [row for row in rows_at(run, "lengths") if number(row.get("final_loss_spread")) is not None]
        settings = distinct(str(row.get("setting")) for row in of_run)
        drawn = styles(settings)
        lines = []
        for setting in settings:
            mine = [row for row in of_run if str(row.get("setting")) == setting and number(row.get("shortest"))]
            y = [float(row["final_loss_spread"]) for row in mine]
            lines.append(Line(name(setting), [float(row["shortest"]) for row in mine], y, *drawn[setting]))
            rows += [[run.name, name(setting), *_cells(row)] for row in mine]
        if lines:
            figures.append(
                (run.name if len(runs) > 1 else "", curves(lines, x="target tokens, at least", y="nats", log_x=True))
            )
    if not rows:
        return Section(title, [], missing(runs, "No edit was followed"))
    blocks.append(Figures(figures, _NOTE))
    columns = [
        "run",
        "loss",
        "target tokens",
        "edits",
        "apart at the start",
        "apart in the end",
        "mean loss",
        "portability",
    ]
    blocks.append(table_by_run(runs, columns, rows, _TABLE, 2))
    return Section(title, blocks, "")


def _cells(row: Row) -> list[str]:
    first, last = row.get("shortest"), row.get("longest")
    apart = f"{short(row.get('final_loss_spread'))} [{short(row.get('low'))}, {short(row.get('high'))}]"
    to_full = row.get("to_full")
    return [
        str(first) if first == last else f"{first} to {last}",
        str(row.get("edits")),
        short(row.get("start_spread")),
        apart,
        short(row.get("final_loss")),
        gain(to_full) if isinstance(to_full, dict) else "",
    ]
