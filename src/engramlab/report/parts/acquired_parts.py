"""The parts of acquisition runs as pages read them, and what the paper finds beside what is so here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engramlab.base.rows import DEPTHS
from engramlab.report import shapes
from engramlab.report.parts.verdicts import NOT_SO, SO, interval, verdict
from engramlab.report.parts.words import fixed, ranged
from engramlab.report.rows import Row, RunData, distinct, number, read_object
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


def findings(part: PartRows) -> list[tuple[str, str, str]]:
    """What the paper finds, the numbers here, and the verdict: said by intervals, not by eye."""
    found = []
    for group in part.groups:
        if group == "never":
            continue
        values = [interval(part.row(group, depth), "effectivity") for depth in DEPTHS]
        if any(number(part.row(group, depth).get("effectivity")) is not None for depth in DEPTHS):
            text = f"{group}: " + ", ".join(ranged(part.row(group, depth), "effectivity") for depth in DEPTHS)
            found.append(("effectivity: memorization > semantic > compositional", text, verdict(values)))
    for group in part.groups:
        fits = {depth: number(part.row(group, depth).get("r_squared")) for depth in DEPTHS}
        shown = [f"{depth} {fixed(value)}" for depth, value in fits.items() if value is not None]
        if shown and fits["memorization"] is not None:
            finding = "R falls linearly in log t (R² ≥ 0.8 for memorization)"
            found.append((finding, f"{group}: {', '.join(shown)}", SO if fits["memorization"] >= 0.8 else NOT_SO))
    for depth in DEPTHS:
        rows = [part.row(group, depth) for group in ("duplicate", "paraphrase")]
        if all(number(row.get("decay_constant")) is not None for row in rows):
            two, one = (ranged(row, "decay_constant", 3, "decay_") for row in rows)
            said = verdict([interval(row, "decay_constant", "decay_") for row in rows])
            found.append(
                ("duplicates decay faster than paraphrases", f"{depth}: duplicates {two}, paraphrases {one}", said)
            )
    return found
