"""What several wordings of an edit are worth: the table by method, rows and number of wordings, and what may be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.rows import ROLES
from engramlab.report.parts.blocks import Section, Table
from engramlab.report.parts.figures import percent
from engramlab.report.parts.judged import of_protocol, unedited
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, ranged
from engramlab.report.rows import RunData, distinct

WORDINGS, COPIES = "wordings", "copies"
WORDS = [
    "method",
    "rows",
    "wordings",
    "cases",
    "failed",
    "reliability",
    "generality",
    "portability",
    "locality",
    "old object's K",
]


def wording_cells(summary: Mapping[str, Any], protocol: str = "generated") -> list[list[str]]:
    """A line a method, kind of rows and number of wordings; the first is the unedited model's."""
    rows = of_protocol(summary.get("wordings") or [], protocol)
    of = unedited(rows)
    first = [["unedited", *["–"] * 4, *(fixed(of.get(role)) for role in ROLES), "–"]] if of else []
    return first + [
        [
            row["method"],
            row["kind"],
            *(count(row.get(name)) for name in ("wordings", "cases", "failed")),
            *(ranged(row, name) for name in ("reliability", "generality", "portability", "locality")),
            f"{fixed(row.get('old'))} (was {fixed(row.get('old_before'))})",
        ]
        for row in rows
    ]


def _hops(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in summary.get("wordings") or [] if row["protocol"] == "generated"]
    ends = ("_low", "_high")
    kinds = distinct(k for row in rows for k in row if k.startswith("portability ") and not k.endswith(ends))
    cells = [
        [row["method"], row["kind"], count(row.get("wordings")), *(ranged(row, kind) for kind in kinds)] for row in rows
    ]
    return [kind.removeprefix("portability ") for kind in kinds], cells


def worth(summary: Mapping[str, Any]) -> str:
    """Many wordings against as many copies of one, with what the intervals allow to say."""
    rows = [row for row in summary.get("wordings") or [] if row["protocol"] == "generated"]
    said = []
    for method in distinct(row["method"] for row in rows):
        of = {(row["kind"], row["wordings"]): row for row in rows if row["method"] == method}
        most = max((k for kind, k in of if kind == WORDINGS), default=0)
        many, copies = (of.get((kind, most)) for kind in (WORDINGS, COPIES))
        if many is None or copies is None:
            continue
        one, other = interval(many, "generality"), interval(copies, "generality")
        if one is None or other is None:
            continue
        against = {True: "more than", False: "less than", None: "within noise of"}[more(one, other)]
        said.append(f"{method} {percent(one.value)}, {against} the {percent(other.value)} of as many copies")
    if not said:
        return ""
    return "Held-out wordings answered after an edit in many wordings: " + "; ".join(said) + "."


def section(runs: Sequence[RunData]) -> Section:
    """The tables of edits in several wordings."""
    blocks: list[Any] = []
    for run in runs:
        of = f" Run {run.name}." if len(runs) > 1 else ""
        for protocol, title in (("generated", "Written freely."), ("teacher_forced", "Teacher-forced.")):
            if cells := wording_cells(run.summary, protocol):
                blocks.append(Table(WORDS, cells, title + of, numbers_from=2))
        kinds, cells = _hops(run.summary)
        if kinds:
            heads = ["method", "rows", "wordings", *kinds]
            blocks.append(
                Table(
                    heads,
                    cells,
                    "What follows from an edit, by kind." + of,
                    numbers_from=2,
                )
            )
    return Section("What several wordings are worth", blocks, "Wordings were not asked for.")
