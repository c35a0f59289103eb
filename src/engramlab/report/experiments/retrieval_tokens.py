"""The sections of the retrieval-tokens report: what is answered from passages, and what happens without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.alike import Nouns
from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, percent_ranged, points_ranged, signed
from engramlab.report.rows import Row, RunData, number
from engramlab.report.shapes import Maybe

SOURCE = "SPRING, arXiv 2405.19670"
TOKENS, PLAIN, LORA = "virtual tokens", "plain", "LoRA"
SCORES = {"em": "exact match", "f1": "F1", "begins": "begins with the answer"}
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {
                "way": str,
                **dict.fromkeys(("k", "questions", "subjects"), float),
                **{f"{name}{end}": float for name in SCORES for end in ("", "_low", "_high", "_more")},
                **{f"{name}_more_{end}": float for name in SCORES for end in ("low", "high")},
            }
        ]
    ),
    "without": Maybe([{"way": str, "nats": float, "change": float}]),
    "training": Maybe([{"stage": str, "seconds": float, "steps": Maybe(float), "loss": Maybe(float)}]),
    **dict.fromkeys(("passages_left_out", "answer_in_passages", "tokens"), Maybe(float)),
    "data": Maybe(str),
}


def headline(runs: Sequence[RunData]) -> str:
    """What the tokens answer beside plain reading, their untrained selves and LoRA, and whether the model is still itself."""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        best, plain = _best(run.rows), _row(run.rows, PLAIN)
        if best is None or plain is None:
            continue
        which = more(interval(best, "em_more"), 0.0)
        text = (
            f"{of}with {count(best['k'])} trained tokens {percent(best['em'])} of the held-out questions are answered "
        )
        text += f"exactly, {_VERDICT[which]} by plain reading ({percent(plain['em'])}"
        untrained, lora = _row(run.rows, "untrained tokens"), _row(run.rows, LORA)
        text += f"; the same tokens untrained {percent(untrained['em'])}" if untrained else ""
        text += f"; LoRA {percent(lora['em'])})" if lora else ")"
        changes = {row["way"]: row["change"] for row in run.summary.get("without") or []}
        if TOKENS in changes:
            exact = "not at all" if changes[TOKENS] == 0 else f"by {signed(changes[TOKENS])} nats"
            text += f"; without passages the answers' loss moved {exact}"
            text += f", under LoRA by {signed(changes[LORA])} nats a token" if LORA in changes else ""
        found.append(text)
    return (". ".join(found) + ".") if found else missing(runs)


_VERDICT = {True: "more than", False: "fewer than", None: "within noise of what is answered"}


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_answered(runs), _without(runs), _all(runs), training_section(runs, Nouns("subjects", "answers"))]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    cells = [[_named(row), *(percent_ranged(row, name) for name in SCORES)] for row in summary.get("rows") or []]
    tables = [Table(["reading", *SCORES.values()], cells, "Held-out questions (95 % over subjects)")] if cells else []
    if without := _without_cells(summary):
        tables.append(Table(["model", "nats a token", "change"], without, "Answers without passages"))
    return tables


def _row(rows: Sequence[Row], way: str) -> Row | None:
    return next((row for row in rows if row["way"] == way), None)


def _best(rows: Sequence[Row]) -> Row | None:
    """The row with all tokens: what the training is for; the number is not chosen by its result."""
    of = [row for row in rows if row["way"] == TOKENS]
    return max(of, key=lambda row: row["k"]) if of else None


def _named(row: Row) -> str:
    return f"{row['way']}, k = {count(row['k'])}" if row["k"] else str(row["way"])


def _answered(runs: Sequence[RunData]) -> Section:
    colours = {TOKENS: PALETTE[0], LORA: PALETTE[1]}
    figures = []
    for name, title in SCORES.items():
        groups = [
            (
                run.name,
                [
                    Bar(_named(r), r[name], colours.get(r["way"], GREY), r[f"{name}_low"], r[f"{name}_high"])
                    for r in run.rows
                ],
            )
            for run in runs
            if run.rows
        ]
        if groups:
            figures.append((title, bars(groups, title, bar="held-out questions, 95 % over subjects")))
    told = [
        f"{run.name}: {percent(number(run.summary.get('answer_in_passages')))} of the questions have their answer in a "
        f"passage; {count(run.summary.get('passages_left_out') or 0)} passages did not fit and were left out, whole."
        for run in runs
        if run.rows
    ]
    note = (
        f"Plain is the same model without tokens (k = 0); untrained tokens are the words the vectors begin as. {SOURCE}: any "
        "number of the first tokens works, and more are no worse. Exact match and F1 are SQuAD's (arXiv 1606.05250)."
    )
    blocks: list[Block] = [Figures(figures, " ".join([note, *told]))] if figures else []
    return Section("From passages", blocks, missing(runs))


def _without_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    return [
        [row["way"], fixed(row["nats"], 4), "0, exactly" if row["change"] == 0 else signed(row["change"])]
        for row in summary.get("without") or []
    ]


def _without(runs: Sequence[RunData]) -> Section:
    cells = [[run.name, *of] for run in runs for of in _without_cells(run.summary)]
    caption = "The right answers' loss behind their questions alone; virtual tokens stay out where there is no passage."
    table = Table(["run", "model", "nats a token", "change"], cells, caption, numbers_from=2)
    return Section("Without passages", [table] if cells else [], missing(runs))


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, _named(row), *(count(row[name]) for name in ("questions", "subjects"))]
        + [percent_ranged(row, name) for name in SCORES]
        + [points_ranged(row, f"{name}_more") for name in ("em", "f1")]
        for run in runs
        for row in run.rows
    ]
    columns = ["run", "reading", "questions", "subjects", *SCORES.values(), "EM less plain", "F1 less plain"]
    caption = "Differences question by question; of LoRA without a passage, to the model without one."
    return Section("All of it", [Table(columns, cells, caption, numbers_from=2)] if cells else [], missing(runs))
