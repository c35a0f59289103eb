"""The sections of the cloze-questions report: accuracy by translation and score, and what training for consistency changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, duration, fixed, percent_ranged
from engramlab.report.rows import Row, RunData, distinct
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2201.00136"
ENSEMBLE = "ensemble"
_WHEN = {
    "before": "before",
    "others": "statements of other questions",
    "consistency": "trained for consistency",
    "control": "trained on other questions' statements",
}
#: Of a summary.
NEEDS = {
    "train_by": Maybe(str),
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("when", "score", "translator"), str),
                **dict.fromkeys(
                    ("questions", "accuracy", "low", "high", "ties", "chance", "fallbacks", "rows_read"), float
                ),
                "agreement": Maybe(float),
                "positions": [float],
            }
        ]
    ),
    "training": Maybe([{"stage": str, "seconds": float, "steps": Maybe(float), "loss": Maybe(float)}]),
}


def headline(runs: Sequence[RunData]) -> str:
    """What translating gains over the question itself, and what training for agreement gains over that."""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        rows = _by(run)
        before = _together(rows, "before")
        if before is None:
            continue
        text = f"{of}{before['translator']} {percent(before['accuracy'])}, chance {percent(before['chance'])}"
        plain = next((row for row in rows if (row["when"], row["translator"]) == ("before", "bare")), None)
        if plain is not None and before["translator"] == ENSEMBLE:
            which = more(interval(before, "accuracy", ""), interval(plain, "accuracy", ""))
            text += f", the question itself {percent(plain['accuracy'])} ({_VERDICT[which]})"
        after = _together(rows, "consistency")
        if after is not None:
            text += (
                f"; trained without labels {percent(after['accuracy'])}, translations agree "
                f"{percent(before.get('agreement'))} before and {percent(after.get('agreement'))} after"
            )
        found.append(text)
    return ("; ".join(found) + ".") if found else missing(runs)


_VERDICT = {True: "translating gains", False: "translating loses", None: "within noise"}


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_translated(runs), _consistency(runs), _positions(runs), _all(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal: the score that the model is trained by, and of the others all translations together."""
    chosen = summary.get("train_by")
    cells = [
        [
            row["when"],
            row["translator"],
            row["score"],
            percent_ranged(row, "accuracy", ""),
            percent(row.get("agreement")),
            percent(row["chance"]),
        ]
        for row in summary.get("rows") or []
        if row["score"] == chosen or row["translator"] == ENSEMBLE
    ]
    columns = ["when", "translation", "score", "accuracy (95 %)", "agree", "chance"]
    return [Table(columns, cells, "The right option first", numbers_from=3)] if cells else []


def _by(run: RunData) -> list[Row]:
    """The rows of the score that the model is trained by; of the first score where that was not asked."""
    scores = distinct(row["score"] for row in run.rows if row["when"] == "before")
    chosen = run.summary.get("train_by")
    chosen = chosen if chosen in scores else next(iter(scores), None)
    return [row for row in run.rows if row["score"] == chosen]


def _together(rows: Sequence[Row], when: str) -> Row | None:
    """The row of all translations together, or of the only one."""
    there = [row for row in rows if row["when"] == when]
    return next((row for row in there if row["translator"] == ENSEMBLE), there[0] if there else None)


def _named(row: Row) -> str:
    return _WHEN.get(row["when"], str(row["when"]))


def _bar(row: Row, label: str, colour: str = GREY) -> Bar:
    return Bar(label, row["accuracy"], colour, row["low"], row["high"], chance=row["chance"])


def _drawn(groups: Sequence[tuple[str, list[Bar]]]) -> Any:
    return bars(groups, "right option first", bar="accuracy, 95 % over questions", chance="chance")


def _translated(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        rows = [row for row in run.rows if row["when"] == "before"]
        for score in distinct(row["score"] for row in rows):
            members = [_bar(row, row["translator"]) for row in rows if row["score"] == score]
            groups.append((f"{score}{of}", members))
    note = (
        "rules: by rules for English; own: statements that came with the questions; model: written by a chat model; bare: the "
        "question with a gap behind it. The ensemble adds up their probabilities. A tie of n options counts 1/n. The other "
        f"translators of the paper ({SOURCE}) were trained networks."
    )
    return Section("Asked by statements", [Figures([("", _drawn(groups))], note)] if groups else [], missing(runs))


def _consistency(runs: Sequence[RunData]) -> Section:
    groups, cells = [], []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        rows = _by(run)
        whens = [when for when in _WHEN if _together(rows, when) is not None]
        if not {"consistency", "control"} & set(whens):
            continue
        found = [(when, _together(rows, when)) for when in whens]
        groups.append((f"all translations{of}", [_bar(row, _WHEN[when]) for when, row in found if row is not None]))
        own = [when for when in whens if when != "others"]
        for name in distinct(row["translator"] for row in rows if row["translator"] != ENSEMBLE and row["when"] in own):
            one = [row for row in rows if row["translator"] == name and row["when"] in own]
            groups.append((name + of, [_bar(row, _named(row), PALETTE[0]) for row in one]))
        cells += [[run.name, *_cost(row)] for row in run.summary.get("training") or []]
    note = (
        "Trained to prefer, in every translation, what all together prefer; no label is seen. Were the choice always at one "
        "place of the options, the loss would be lowest of all: see the positions."
    )
    if not groups:
        return Section("Trained until they agree", [], missing(runs))
    table = Table(["run", "part", "steps", "time", "last loss"], cells, "What it cost.", numbers_from=2)
    return Section("Trained until they agree", [Figures([("", _drawn(groups))], note), *([table] if cells else [])])


def _cost(row: Row) -> list[str]:
    steps, loss = row.get("steps"), row.get("loss")
    return [row["stage"], count(steps), duration(row["seconds"]), fixed(loss, 4)]


def _positions(runs: Sequence[RunData]) -> Section:
    cells: list[list[str]] = []
    for run in runs:
        for row in _by(run):
            if row["translator"] == ENSEMBLE:
                shares = " / ".join(f"{100 * share:.0f}" for share in row["positions"])
                cells.append([run.name, _named(row), shares])
    table = Table(["run", "", "chosen at each position, %"], cells, "Options are shuffled.", numbers_from=3)
    return Section("Where the chosen option stood", [table] if cells else [], missing(runs))


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            *(
                _named(row),
                row["translator"],
                row["score"],
                count(row["questions"]),
                percent_ranged(row, "accuracy", ""),
            ),
            *(percent(row.get(name)) for name in ("agreement", "chance", "fallbacks")),
            *(count(row.get(name)) for name in ("ties", "rows_read")),
        ]
        for run in runs
        for row in run.rows
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("when", "translation", "score", "questions", "accuracy (95 %)", "agrees with others", "chance"),
        *("not translated", "ties", "rows read"),
    ]
    return Section("All of it", [Table(columns, cells, numbers_from=len(columns) - 7)] if cells else [], missing(runs))
