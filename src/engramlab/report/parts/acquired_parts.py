"""The parts of acquisition runs as pages read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engramlab.base.rows import DEPTHS
from engramlab.report import shapes
from engramlab.report.parts.blocks import Block
from engramlab.report.parts.training import table_by_run
from engramlab.report.rows import Row, RunData, distinct, read_object
from engramlab.report.shapes import Maybe

#: Of a part's curves.json.
_NUMBERS = [Maybe(float)]
_OF = {"group": str, "depth": str}
CURVES = {
    "curves": Maybe([{**_OF, "x": [float], "y": [float], "injections": [float]}]),
    "retainability": Maybe([{**_OF, "t": [float], "r": _NUMBERS}]),
    "facts": Maybe(
        [
            {**_OF, **dict.fromkeys(("passage", "prompt", "target"), str), "injections": [float], "y": _NUMBERS}
            | {"t_lam": [float], "y_lam": _NUMBERS}
        ]
    ),
    "fact_steps": Maybe([float]),
    "texts": Maybe(dict),
}


@dataclass(frozen=True)
class PartRows:
    """One part of a run: a checkpoint, batch, interval and learning rate."""

    run: str
    name: str
    label: str
    about: Row
    rows: list[Row]
    curves: Row

    def row(self, group: str, depth: str) -> Row:
        """The measurements of a group at a depth; empty where there are none."""
        return next((row for row in self.rows if (row.get("group"), row.get("depth")) == (group, depth)), {})

    @property
    def groups(self) -> list[str]:
        return distinct(str(row.get("group")) for row in self.rows)


def read_parts(runs: Sequence[RunData]) -> list[PartRows]:
    """The parts of some runs, in order; one of an unfinished run has no rows yet and is left out."""
    found = []
    for run in runs:
        folders = {child.name for child in run.path.iterdir()}
        for about in run.summary.get("parts") or []:
            name = str(about.get("dataset"))
            label = name if len(runs) == 1 else run.name if len(run.summary["parts"]) == 1 else f"{run.name}: {name}"
            rows = [row for row in run.rows if row["dataset"] == name]
            path = run.path / name / "curves.json"
            drawn = read_object(path) if name in folders else {}
            shapes.check(drawn, CURVES, path)
            found.append(PartRows(run.name, name, label, about, rows, drawn))
    return found


def measured(parts: Sequence[PartRows]) -> Iterator[tuple[list[str], Row]]:
    """The rows of some parts with the first cells of their line: part, group and depth."""
    for part in parts:
        for group in part.groups:
            for depth in DEPTHS:
                if row := part.row(group, depth):
                    yield [part.label, group, depth], row


def by_depth(parts: Sequence[PartRows], columns: str, rows: Sequence[Sequence[str]], caption: str) -> list[Block]:
    """A table of such lines; none without any."""
    heads = ["part", "group", "depth", *columns.split("|")]
    return [table_by_run(parts, heads, rows, caption, 3)] if rows else []
