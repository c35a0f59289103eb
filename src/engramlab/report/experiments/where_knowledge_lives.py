"""The sections of the page on where knowledge lives: one table and one figure of all ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.alike import Nouns
from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, duration, percent_ranged, points_ranged, signed
from engramlab.report.rows import Row, RunData, number
from engramlab.report.shapes import Maybe

SOURCES = "PlugLM, arXiv 2305.11564; SPRING, arXiv 2405.19670"
NO_MEMORY = "needs a network built with one"
SHARES = ("right", "right_more", "known", "known_more")
COSTS = ("once_seconds", "add_seconds", "add_tokens", "change_seconds", "question_seconds", "question_tokens")
#: What ways are called where a table has room for more.
CALLED = {"training": "weights, by training", "editing": "weights, by editing", "memory": "plug-in memory"}
CALLED |= {"virtual tokens": "retrieval, virtual tokens", "prompt": "retrieval, plain prompt"}
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {
                "way": str,
                **{f"{name}{end}": float for name in SHARES for end in ("", "_low", "_high")},
                **dict.fromkeys((*COSTS, "changed"), float),
                **dict.fromkeys(("right_before", "known_before", "right_questions", "known_questions"), float),
                **dict.fromkeys(("source", "source_low", "source_high"), Maybe(float)),
            }
        ]
    ),
    "left_out": Maybe([str]),
    "training": Maybe([{"stage": str, "seconds": float, "steps": Maybe(float), "loss": Maybe(float)}]),
    **dict.fromkeys(("facts", "subjects", "asked_subjects"), Maybe(float)),
    **dict.fromkeys(("model", "data", "edit_method"), Maybe(str)),
}
_VERDICT = {True: "more than", False: "fewer than", None: "within noise of"}


def headline(runs: Sequence[RunData]) -> str:
    """What each way answers beside the same model without the facts, and which of them forgot."""
    found = []
    for run in runs:
        said = [
            f"{CALLED.get(row['way'], row['way'])} {percent(row['right'])} ({_VERDICT[more(interval(row, 'right_more'), 0.0)]} "
            f"the {percent(row['right_before'])} without the facts)"
            for row in run.rows
        ]
        if not said:
            continue
        of = f"{run.name}: " if len(runs) > 1 else ""
        lost = [
            f"{row['way']} by {_points(row['known_more'])} points"
            for row in run.rows
            if more(interval(row, "known_more"), 0.0) is False
        ]
        known = (
            f"less of what was known before is answered under {', '.join(lost)}"
            if lost
            else ("of what was known before no way answers less, beyond noise")
        )
        found.append(f"{of}in wordings never trained with the facts are answered by {', '.join(said)}; {known}")
    return (". ".join(found) + ".") if found else missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_figure(runs), _table(runs), training_section(runs, Nouns("subjects", "answers"))]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    rows = summary.get("rows") or []
    if not rows:
        return []
    cells = [
        [row["way"], percent(row["right_before"]), *(percent_ranged(row, name) for name in ("right", "known"))]
        for row in rows
    ]
    cells += [[way, NO_MEMORY, "", ""] for way in summary.get("left_out") or []]
    costs = [
        [row["way"], *(_time(row[name]) for name in COSTS if "seconds" in name and "once" not in name)] for row in rows
    ]
    costs = [[*line, _source(row, short=True)] for line, row in zip(costs, rows, strict=True)]
    return [
        Table(["way", "before", "put in", "known before"], cells, "Held-out wordings (95 % over subjects)"),
        Table(["way", "add", "change", "question", "source"], costs, "Seconds a fact, a change, a question"),
    ]


def _figure(runs: Sequence[RunData]) -> Section:
    groups = [
        (
            f"{run.name}: {what}",
            [Bar(row["way"], row[name], colour, row[f"{name}_low"], row[f"{name}_high"]) for row in run.rows],
        )
        for run in runs
        if run.rows
        for what, name, colour in (("put in", "right", PALETTE[0]), ("known before", "known", PALETTE[1]))
    ]
    note = (
        "Share of questions whose answer begins with the right one, in wordings never trained with these facts, about "
        "subjects whose questions were never trained; and of questions about what the model knew before."
    )
    figure = [("Answers", bars(groups, "answered", bar="held-out wordings, 95 % over subjects"))] if groups else []
    return Section("What is answered", [Figures(figure, note)] if groups else [], missing(runs))


def _table(runs: Sequence[RunData]) -> Section:
    cells = [line for run in runs for line in lines(run.name, run.rows, run.summary.get("left_out") or [])]
    told = [
        f"{run.name}: {count(run.summary.get('facts'))} facts about {count(run.summary.get('subjects'))} subjects put in, "
        f"{count(run.summary.get('asked_subjects'))} subjects asked about; edited by {run.summary.get('edit_method') or '–'}."
        for run in runs
        if run.rows
    ]
    caption = (
        "Before: the same network without the facts. Once: seconds before the first fact can be added (training of the network "
        "with a memory, of the virtual tokens, statistics for editing). Trained tokens and seconds to add are a fact's share. "
        "Changed: questions about changed facts that are answered with the new object. Source: how often the document read "
        f"first was the subject's own; weights name none. The memory is another network than the others ({SOURCES})."
    )
    blocks: list[Block] = [Table(["run", *HEADS], cells, " ".join([caption, *told]), numbers_from=2)] if cells else []
    return Section("Side by side", blocks, missing(runs))


HEADS = [
    *("way", "before", "put in", "more", "known before", "known after", "change of known"),
    *("once", "to add", "tokens to add", "to change", "changed", "a question", "tokens read", "source"),
]


def lines(name: str, rows: Sequence[Row], left_out: Sequence[str]) -> list[list[str]]:
    """The table's lines of a run."""
    found = [
        [
            *(
                name,
                CALLED.get(row["way"], str(row["way"])),
                percent(row["right_before"]),
                percent_ranged(row, "right"),
            ),
            *(
                points_ranged(row, "right_more"),
                percent(row["known_before"]),
                percent_ranged(row, "known"),
                points_ranged(row, "known_more"),
            ),
            *(_time(row["once_seconds"]), _time(row["add_seconds"]), count(row["add_tokens"])),
            *(_time(row["change_seconds"]), percent(row["changed"])),
            *(_time(row["question_seconds"]), count(row["question_tokens"]), _source(row)),
        ]
        for row in rows
    ]
    return found + [[name, CALLED.get(way, way), NO_MEMORY, *[""] * (len(HEADS) - 2)] for way in left_out]


def _time(seconds: object) -> str:
    found = number(seconds)
    if found is None or found >= 1 or found == 0:
        return "0" if found == 0 else duration(found)
    return f"{1000 * found:.3g} ms"


def _source(row: Row, short: bool = False) -> str:
    if row.get("source") is None:
        return "no"
    return (
        percent(row["source"]) if short or interval(row, "source") is None else f"yes: {percent_ranged(row, 'source')}"
    )


def _points(value: float) -> str:
    return signed(100 * value)
