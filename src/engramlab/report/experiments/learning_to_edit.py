"""The sections of the learning-to-edit report: what a block of new facts does before an aligned model, and before others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.rows import PROTOCOLS, ROLES
from engramlab.report.parts import beside
from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import GREY, Bar, bars, percent
from engramlab.report.parts.judged import HEADS, said
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, percent_ranged
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {"arm": str, "count": float, "protocol": str, "role": str, "cases": float, "recall": Maybe(float)}
            | {"share": float, "low": float, "high": float}
        ]
    ),
    "beside": Maybe([{"arm": str, "count": float, "cases": float, **beside.MEASURED}]),
    "kept": Maybe([{"arm": str, "prompts": float, "share": float, "low": float, "high": float}]),
}
_SOURCE = (
    "After arXiv 2402.11905, which claims a lead over its rivals on LLaMA2-Chat-7B and Qwen-Chat-7B, with far more examples; "
    "data and wording here are ours. Locality is told from each arm's own model without a block."
)


_OTHERS = {"untouched": "no training", "ike": "IKE", "ft-m": "FT-M"}


def headline(runs: Sequence[RunData]) -> str:
    """What the aligned model does with one edit, beside the untouched model behind the same block, IKE and FT-M."""
    found = []
    for run in runs:
        arm = str(run.summary.get("kept_arm") or "")
        parts = []
        for role in ROLES:
            mine = _at(run.rows, arm, role)
            if mine is None:
                continue
            text = f"{role} {percent(mine['share'])}"
            for other, named in _OTHERS.items():
                row = _at(run.rows, other, role)
                if row is not None:
                    verdict = more(interval(mine, "share", ""), interval(row, "share", ""))
                    word = {True: "more than", False: "less than", None: "within noise of"}[verdict]
                    text += f", {word} {percent(row['share'])} ({named})"
            parts.append(text)
        if parts:
            text = f"One edit at a time, {arm}, generated: {'; '.join(parts)}."
            for row in run.summary.get("kept") or []:
                if row["arm"] == arm:
                    text += f" Without a block it answers {percent(row['share'])} of {count(row['prompts'])} prompts as before."
            found.append(text)
    return " ".join(found) or missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    blocks: list[Block] = []
    for run in runs:
        groups = []
        for role in ROLES:
            shown = [(arm, _at(run.rows, arm, role)) for arm in distinct(row["arm"] for row in run.rows)]
            members = [Bar(arm, row["share"], GREY, row["low"], row["high"]) for arm, row in shown if row is not None]
            groups += [(role, members)] if members else []
        if groups:
            blocks.append(Figures([(run.name, bars(groups, "share", bar="generated, 95 % over cases"))], _SOURCE))
    blocks += [table for run in runs for table in _tables(run.summary)]
    moved, tasks = beside.moved(runs, "beside", _place, _PLACE), beside.tasks(runs, _place, _PLACE)
    return [Section("New facts before a question", blocks, missing(runs)), *filter(None, (moved, tasks))]


_PLACE = ("arm", "edits")


def _place(row: Row) -> list[str]:
    """Of no edits: what a training did by itself."""
    return [str(row.get("arm", "–")), count(row.get("count"))]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    moved = beside.moved_terminal(dict(summary), "beside", _place, _PLACE)
    return _tables(summary) + moved + beside.tasks_terminal(dict(summary), _place, _PLACE)


def _tables(summary: Mapping[str, Any]) -> list[Table]:
    rows = list(summary.get("rows") or [])
    tables = []
    for protocol in PROTOCOLS:
        some = [row for row in rows if row["protocol"] == protocol]
        places = list(dict.fromkeys((row["arm"], row["count"]) for row in some))
        cells = [[arm, count(n), *(_cell(some, arm, role, n, protocol) for role in ROLES)] for arm, n in places]
        if cells:
            caption = f"Edits in one memory, {said(protocol)} (95 % over cases; in brackets: behind their own edit)"
            tables.append(Table(["arm", "edits", *(HEADS[role] for role in ROLES)], cells, caption, numbers_from=1))
    kept = [[row["arm"], count(row["prompts"]), percent_ranged(row, "share", "")] for row in summary.get("kept") or []]
    if kept:
        tables.append(Table(["arm", "prompts", "answered as before"], kept, "Without a block, after training", 1))
    return tables


def _at(rows: Sequence[Row], arm: str, role: str, edits: float = 1, protocol: str = "generated") -> Row | None:
    wanted = (arm, role, edits, protocol)
    return next((row for row in rows if (row["arm"], row["role"], row["count"], row["protocol"]) == wanted), None)


def _cell(rows: Sequence[Row], arm: str, role: str, edits: float, protocol: str) -> str:
    row = _at(rows, arm, role, edits, protocol)
    if row is None:
        return "–"
    recall = number(row.get("recall"))
    return percent_ranged(row, "share", "") + ("" if recall is None else f" [{percent(recall)}]")
