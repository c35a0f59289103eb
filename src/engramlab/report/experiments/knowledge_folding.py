"""The sections of the knowledge-folding report: what is answered with facts folded in, in view, and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import Interval, interval, more
from engramlab.report.parts.words import count, duration, fixed, percent_ranged, short
from engramlab.report.rows import Row, RunData, distinct
from engramlab.report.shapes import Maybe

SOURCE = "RECKONING, arXiv 2305.06349"
FOLDING = ("multi-task", "single-task", "fixed-rates", "first-order")
#: Of a summary.
NEEDS = {
    "majority": Maybe(float),
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("arm", "asked"), str),
                **dict.fromkeys(
                    ("distractors", "hops", "questions", "accuracy", "low", "high", "labelled", "recited"), float
                ),
            }
        ]
    ),
    "rates": Maybe([{"arm": str, "groups": [str], "rates": [[float]]}]),
    "training": Maybe([{"stage": str, "seconds": float, "steps": Maybe(float), "loss": Maybe(float)}]),
}
_VERDICT = {True: "folding gains", False: "folding loses", None: "within noise"}


def headline(runs: Sequence[RunData]) -> str:
    """What folding gives above the facts of another world, and what distractors take from it and from facts in view."""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        name = next((one for one in FOLDING if _whole(run.rows, one, "facts")), "")
        folded, random = _whole(run.rows, name, "facts"), _whole(run.rows, name, "random")
        if not folded or not random:
            continue
        which = more(_ends(folded[0]), _ends(random[0]))
        text = (
            f"{of}{name}, facts folded in: {percent_ranged(folded[0], 'accuracy', '')} answered, with facts of another world "
            f"{percent_ranged(random[0], 'accuracy', '')} "
            f"({_VERDICT[which]}), majority {percent(run.summary.get('majority'))}"
        )
        seen = _whole(run.rows, "in-context", "facts")
        if len(folded) > 1:
            text += (
                f"; with {count(folded[-1]['distractors'])} distractors {percent_ranged(folded[-1], 'accuracy', '')}"
            )
            text += f", facts in view {percent_ranged(seen[-1], 'accuracy', '')}" if seen else ""
        elif seen:
            text += f"; facts in view {percent_ranged(seen[0], 'accuracy', '')}"
        found.append(text)
    return ("; ".join(found) + ".") if found else missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_answered(runs), _hops(runs), _rates(runs), _cost(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal: all hops together."""
    cells = [
        [
            row["arm"],
            row["asked"],
            count(row["distractors"]),
            percent_ranged(row, "accuracy", ""),
            percent(row["labelled"]),
        ]
        for row in summary.get("rows") or []
        if row["hops"] == 0
    ]
    caption = f"Right answers; the most frequent one is right in {percent(summary.get('majority'))}"
    columns = ["arm", "facts", "distractors", "right (95 %)", "any label"]
    return [Table(columns, cells, caption, numbers_from=2)] if cells else []


def _whole(rows: Sequence[Row], arm: str, asked: str) -> list[Row]:
    """The rows of all hops, by number of distractors."""
    found = [row for row in rows if (row["arm"], row["asked"], row["hops"]) == (arm, asked, 0)]
    return sorted(found, key=lambda row: float(row["distractors"]))


def _ends(row: Row) -> Interval | None:
    return interval(row, "accuracy", "")


_ASKED = {
    "facts": "its facts",
    "random": "facts of another world",
    "none": "no facts",
    "plain steps": "plain steps on its facts",
}


def _answered(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for arm in distinct(row["arm"] for row in run.rows):
            mine = [row for row in run.rows if row["arm"] == arm and row["hops"] == 0]
            groups.append((f"{arm}{of}", [_bar(row, run.summary.get("majority")) for row in mine]))
    note = (
        "multi-task: the answer behind the facts that it needs, all written with no fact in view; single-task: the answer "
        "alone; in-context: the facts in view, finetuned; fixed-rates, first-order: multi-task with rates that are not learnt, "
        "or steps that are not differentiated through. Plain steps: without an outer loop. The stroke: the most frequent "
        f"answer. {SOURCE} reports multi-task above the best rival on average, single-task below facts in view."
    )
    drawn = bars(groups, "right answers", bar="right, 95 % over questions", chance="the most frequent answer")
    return Section("Answered", [Figures([("", drawn)], note)] if groups else [], missing(runs))


def _bar(row: Row, majority: float | None) -> Bar:
    colour = PALETTE[0] if row["asked"] == "facts" else GREY
    label = f"{_ASKED.get(row['asked'], row['asked'])}, {count(row['distractors'])} distractors"
    return Bar(label, row["accuracy"], colour, row["low"], row["high"], chance=majority)


def _hops(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            run.name,
            row["arm"],
            _ASKED.get(row["asked"], row["asked"]),
            count(row["distractors"]),
            "all" if row["hops"] == 0 else count(row["hops"]),
            count(row["questions"]),
            percent_ranged(row, "accuracy", ""),
            percent(row["labelled"]),
            percent(row["recited"]) if row["arm"] in FOLDING and row["arm"] != "single-task" else "–",
        ]
        for run in runs
        for row in run.rows
    ]
    columns = ["run", "arm", "facts", "distractors", "hops", "questions", "right (95 %)", "any label", "facts recited"]
    table = Table(columns, cells, "Hops: facts that the answer combines.", numbers_from=3, long=True)
    return Section("By hops", [table] if cells else [], missing(runs))


def _rates(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, one["arm"], str(step), group, short(rate)]
        for run in runs
        for one in run.summary.get("rates") or []
        for step, row in enumerate(one["rates"], 1)
        for group, rate in zip(one["groups"], row, strict=False)
    ]
    table = Table(["run", "arm", "step", "layer", "rate"], cells, numbers_from=4, long=True)
    return Section("Rates that were learnt", [table] if cells else [], missing(runs))


def _cost(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, row["stage"], count(row.get("steps")), duration(row["seconds"]), fixed(row.get("loss"), 3)]
        for run in runs
        for row in run.summary.get("training") or []
    ]
    table = Table(["run", "arm", "steps", "time", "last loss"], cells, numbers_from=2)
    return Section("What it cost", [table] if cells else [], missing(runs))
