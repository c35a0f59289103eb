"""The sections of the source-attribution report: who names the right document, against chance and guessing; what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.verdicts import Interval, interval, more
from engramlab.report.parts.words import count, fixed, percent_ranged
from engramlab.report.rows import Row, RunData, distinct
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2404.01019"
OUT = "out-of-document"
_GROUPS = {
    "trained": "questions that were trained",
    "in-domain": "held-out questions about documents with trained ones (in-domain)",
    OUT: "questions about documents without trained ones (out-of-document)",
}
_MEASURES = ("answered", "f1", *(f"{name}{k}" for name in ("hits", "told", "guess") for k in (1, 10)))
_ENDS = ("", "_low", "_high")
RECITES = 0.95  # of answers in the documents: below, the texts were not learnt
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("dataset", "strategy", "group", "ids"), str),
                **dict.fromkeys(("copies", "questions", "documents", "candidates", "chance1", "chance10"), float),
                **{name + end: float for name in _MEASURES for end in _ENDS},
                **{f"right{k}{end}": Maybe(float) for k in (1, 10) for end in _ENDS},
            }
        ]
    ),
    "texts": Maybe(
        [{"dataset": str, "recital": Maybe(float), **{name: Maybe(float) for name in ("read", "unread", "other")}}]
    ),
}


def headline(runs: Sequence[RunData]) -> str:
    """The best arm out of document against guessing, and whether the texts were learnt at all."""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        rows = _of(run, OUT)
        if not rows:
            continue
        best = max(rows, key=lambda row: row["hits1"])
        text = (
            f"{of}{_name(best)} names the right one of {count(best['candidates'])} documents for "
            f"{percent_ranged(best, 'hits1')} of questions about documents none of whose was trained; guessing by the letters "
            f"of the question gets {percent(best['guess1'])}, chance {percent(best['chance1'])} ({_beats(best)})"
        )
        poor = [one for one in _texts(run) if (one.get("recital") or 1.0) < RECITES]
        if poor:
            text += (
                f"; {len(poor)} of {len(_texts(run))} models recite less than {percent(RECITES)} of what they read, so that "
                "what they cannot name says little"
            )
        found.append(text)
    return ("; ".join(found) + ".") if found else missing(runs)


def _beats(row: Row) -> str:
    """Is it more than both chance and guessing?"""
    bars_of = [Interval(row["chance1"], row["chance1"], row["chance1"]), interval(row, "guess1")]
    found = [more(interval(row, "hits1"), other) for other in bars_of]
    return "more than both" if all(found) else "no more than one of them" if False in found else "within noise"


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [*(_named(runs, group) for group in (OUT, "in-domain")), _costs(runs), training_section(runs), _all(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal: every arm, all identifiers."""
    rows = [row for row in summary.get("rows") or [] if row["ids"] == "all"]
    cells = [
        [
            _name(row),
            row["group"],
            *(percent(row.get(name)) for name in ("answered", "hits1", "right1", "told1", "guess1")),
        ]
        for row in rows
    ]
    columns = ["documents read", "questions", "answered", "source", "if right", "if told", "guess"]
    caption = "Right source first among all documents: behind the model's answer, where that is right, behind the right answer"
    return [Table(columns, cells, caption, numbers_from=2)] if cells else []


def _of(run: RunData, group: str, ids: str = "all") -> list[Row]:
    return [row for row in run.rows if (row["group"], row["ids"]) == (group, ids)]


def _texts(run: RunData) -> list[Row]:
    return list(run.summary.get("texts") or [])


def _name(row: Row) -> str:
    copies = f", {count(row['copies'])} copies" if row["copies"] > 1 else ""
    return f"{row['strategy']}{copies}{', chain of thought' if row.get('thought') else ''}"


def _named(runs: Sequence[RunData], group: str) -> Section:
    groups = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        for name, label in (("hits1", "behind its own answer"), ("told1", "told the right answer")):
            members = [
                Bar(
                    _name(row),
                    row[name],
                    PALETTE[0] if row["strategy"] != "no-id" else GREY,
                    row[f"{name}_low"],
                    row[f"{name}_high"],
                    chance=max(row["chance1"], row["guess1"]),
                )
                for row in _of(run, group)
            ]
            if members:
                groups.append((of + label, members))
    note = (
        "Hits@1 among all documents, for all questions. Chance: the better of drawing one and guessing those whose identifier "
        f"shares letters with the question. The paper ({SOURCE}) counts questions that were answered rightly only; that is in "
        "the table below."
    )
    drawn = bars(groups, "right source first", bar="Hits@1, 95 % over documents", chance="chance, or guessing")
    title = _GROUPS[group][0].upper() + _GROUPS[group][1:]
    return Section(title, [Figures([("", drawn)], note)] if groups else [], missing(runs))


def _costs(runs: Sequence[RunData]) -> Section:
    cells = [
        [*([run.name] if len(runs) > 1 else []), one["dataset"], percent(one.get("recital"))]
        + [fixed(one.get(name), 3) for name in ("read", "unread", "other")]
        for run in runs
        for one in _texts(run)
    ]
    columns = [*(["run"] if len(runs) > 1 else []), "documents read", "answers recited"]
    columns += ["nats a token, documents read", "unread ones", "other text"]
    note = (
        "Texts without identifiers. Recited: first tokens of answers in the documents that are the model's first choice; the "
        "identifiers' price is the difference to no-id with as many copies."
    )
    return Section(
        "What identifiers cost", [Table(columns, cells, note, numbers_from=1)] if cells else [], missing(runs)
    )


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            _name(row),
            row["group"],
            row["ids"],
            *(count(row[name]) for name in ("questions", "candidates")),
            *(
                percent_ranged(row, name)
                for name in ("answered", "hits1", "hits10", "right1", "right10", "told1", "told10")
            ),
            *(percent(row[name]) for name in ("guess1", "guess10", "chance1", "chance10")),
        ]
        for run in runs
        for group in distinct(r["group"] for r in run.rows)
        for row in run.rows
        if row["group"] == group
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("documents read", "group", "identifiers", "questions", "candidates", "answered (95 %)", "Hits@1", "Hits@10"),
        *("Hits@1 if right", "Hits@10 if right", "Hits@1 if told", "Hits@10 if told"),
        *("guess @1", "guess @10", "chance @1", "chance @10"),
    ]
    note = (
        "Identifiers: all, or only those of the group's documents (the paper's out-of-document set). If right: only questions "
        "answered rightly (the paper's). If told: behind the right answer."
    )
    return Section(
        "All of it", [Table(columns, cells, note, numbers_from=len(columns) - 13)] if cells else [], missing(runs)
    )
