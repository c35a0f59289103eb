"""The sections of the knowledge-estimation report: accuracy over the number of facts shown, controls, and wordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, Bar, Line, bars, curves, percent, styles
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, percent_ranged
from engramlab.report.rows import Row, RunData, distinct, words
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2404.12957"
#: Of a summary.
_SHARES = ("chance", "majority", "accuracy", "low", "high", "mass", "draw_low", "draw_high")
NEEDS = {
    "rows": Maybe(
        [
            {
                "relation": str,
                "way": str,
                **dict.fromkeys(("shown", "draws", "subjects", "options", "ties", *_SHARES), float),
            }
        ]
    )
}


def headline(runs: Sequence[RunData]) -> str:
    """Where the longest list beats the best wording, relation by relation."""
    found = []
    for run in runs:
        for relation in distinct(row["relation"] for row in run.rows):
            rows = [row for row in run.rows if row["relation"] == relation]
            lists, said = _lists(rows), [row for row in rows if row["way"] == "wording"]
            if not lists:
                continue
            longest = max(lists, key=lambda row: row["shown"])
            text = f"{words(relation)}: {percent(longest['accuracy'])} behind {count(longest['shown'])} other facts"
            if said:
                best = max(said, key=lambda row: row["accuracy"])
                which = more(interval(longest, "accuracy", ""), interval(best, "accuracy", ""))
                verdict = {True: "lists find more", False: "words find more", None: "within noise"}[which]
                text += f", {percent(best['accuracy'])} in the best wording ({verdict})"
            found.append(f"{text}, chance {percent(longest['chance'])}")
    return ("; ".join(found) + ".") if found else missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_over_counts(runs), _controls(runs), _wordings(runs), _all(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal."""
    cells = [
        [
            words(row["relation"]),
            _what(row),
            count(row["shown"]),
            percent_ranged(row, "accuracy", ""),
            percent(row["chance"]),
        ]
        for row in summary.get("rows") or []
    ]
    columns = ["relation", "asked by", "facts shown", "accuracy (95 %)", "chance"]
    return [Table(columns, cells, "The right object first among the options", numbers_from=2)] if cells else []


def _what(row: Row) -> str:
    if row["way"] == "wording":
        return str(row.get("wording"))
    return str(row["way"]) + (f", {row['control']} {row.get('place')}" if row.get("control") else "")


def _lists(rows: Sequence[Row]) -> list[Row]:
    return sorted((r for r in rows if r["way"] != "wording" and not r.get("control")), key=lambda row: row["shown"])


def _over_counts(runs: Sequence[RunData]) -> Section:
    lines = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        looks = styles(distinct(row["relation"] for row in run.rows))
        for relation, (colour, _) in looks.items():
            rows = [row for row in run.rows if row["relation"] == relation]
            for form, dash in zip(distinct(row["way"] for row in _lists(rows)), ("solid", "dash"), strict=False):
                chosen = [row for row in _lists(rows) if row["way"] == form]
                label = words(relation) + (f", {form}" if form != "list" else "") + of
                lines.append(Line(label, [r["shown"] for r in chosen], [r["accuracy"] for r in chosen], colour, dash))
            if rows:
                ends = [0, max(row["shown"] for row in rows)]
                lines.append(Line(f"{words(relation)}, chance{of}", ends, [rows[0]["chance"]] * 2, colour, "dot"))
    note = (
        "Dotted: one in the number of options. The list is bare: no word says what the relation is. "
        f"The paper ({SOURCE}) finds curves that rise steeply over the first few facts and then flatten."
    )
    figure = curves(lines, x="facts shown", y="right object first", shares=True)
    return Section("Behind a list of other facts", [Figures([("", figure)], note)] if lines else [], missing(runs))


def _controls(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for relation in distinct(row["relation"] for row in run.rows):
            rows = [row for row in run.rows if row["relation"] == relation]
            spoilt = [row for row in rows if row.get("control")]
            plain = [row for row in _lists(rows) if spoilt and row["shown"] == spoilt[0]["shown"]][:1]
            members = [_bar(row, _what(row) if row.get("control") else "nothing put in") for row in [*plain, *spoilt]]
            if spoilt:
                groups.append((words(relation) + of, members))
    if not groups:
        return Section("Facts put out of force", [], missing(runs))
    note = (
        "A share of the longest list is about made-up subjects (unknown) or gives real ones another's object (incorrect). The "
        f"paper ({SOURCE}) finds that unknown ones hardly hurt and incorrect ones do, most in one block."
    )
    return Section("Facts put out of force", [Figures([("", _drawn(groups))], note)])


def _wordings(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for relation in distinct(row["relation"] for row in run.rows):
            rows = [row for row in run.rows if row["relation"] == relation]
            said = [row for row in rows if row["way"] == "wording"]
            longest = _lists(rows)[-1:]
            members = [_bar(row, str(row.get("wording"))) for row in said]
            members += [_bar(row, f"behind {count(row['shown'])} facts") for row in longest]
            if said:
                groups.append((words(relation) + of, members))
    return Section("Against questions in words", [Figures([("", _drawn(groups))])] if groups else [], missing(runs))


def _bar(row: Row, label: str) -> Bar:
    return Bar(label, row["accuracy"], GREY, row["low"], row["high"], chance=row["chance"])


def _drawn(groups: Sequence[tuple[str, list[Bar]]]) -> go.Figure:
    return bars(groups, "right object first", bar="accuracy, 95 % over subjects", chance="chance")


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            words(row["relation"]),
            _what(row),
            *(count(row.get(name)) for name in ("shown", "draws", "subjects", "options")),
            percent_ranged(row, "accuracy", ""),
            *(percent(row.get(name)) for name in ("draw_low", "draw_high", "mass", "chance", "majority")),
            count(row.get("ties")),
        ]
        for run in runs
        for row in run.rows
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("relation", "asked by", "shown", "lists", "subjects", "options", "accuracy (95 %)"),
        *("worst list", "best list", "probability of the right one", "chance", "commonest object", "ties"),
    ]
    return Section("All of it", [Table(columns, cells, numbers_from=len(columns) - 11)] if cells else [], missing(runs))
