"""The sections of the editing-pitfalls report: two edits that touch, an answer edited away and back, the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts import beside
from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2310.02129"
ANY_OF = " (any of)"
CONFLICT = {"explicit": "CS explicit", "implied": "CS implied", "magnitude": "CM", "tied": "TFD"}
ROUND = {
    "distortion": "D",
    "distortion_divided": "D / answers",
    "ignored": "IR",
    "failed": "FR",
    "outranked": "lost ranks",
    "back": "back",
}
#: GPT-J, per cent, as arXiv 2310.02129 prints it.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    ("reverse", "ft"): {"explicit": 99.6, "implied": 4.2, "magnitude": 97.2},
    ("reverse", "rome"): {"explicit": 56.8, "implied": 0.0, "magnitude": 0.1},
    ("reverse", "memit"): {"explicit": 55.2, "implied": 0.0, "magnitude": -1.2},
    ("composite", "ft"): {"explicit": 96.7, "implied": 88.9, "magnitude": 89.0, "tied": 90.0},
    ("composite", "rome"): {"explicit": 77.6, "implied": 29.2, "magnitude": 39.3, "tied": 81.0},
    ("composite", "memit"): {"explicit": 75.5, "implied": 49.3, "magnitude": 28.8, "tied": 64.5},
    ("round", "ft"): {"easy": 9.6, "hard": 16.1, "ignored": 96.4},
    ("round", "rome"): {"easy": 6.9, "hard": 14.0, "ignored": 67.4},
    ("round", "memit"): {"easy": 6.4, "hard": 13.5, "ignored": 56.9, "back": 99.5},
    ("round", "memit" + ANY_OF): {"easy": 2.1, "hard": 2.7, "ignored": 2.5, "back": 94.0},
}
#: What of a round trip is printed beside ours: D (of the easy and the hard file), IR and success (easy).
ROUND_PUBLISHED = ("easy", "hard", "ignored", "back")
_SCORES = (*CONFLICT, *ROUND)
NEEDS = {
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("source", "kind", "method"), str),
                "cases": float,
                **{name: Maybe(float) for score in _SCORES for name in (score, f"{score}_low", f"{score}_high")},
                **beside.MEASURED,
            }
        ]
    ),
    "failed": Maybe([{"method": str, "case": str, "reason": str}]),
}


def headline(runs: Sequence[RunData]) -> str:
    """Does the second edit overrule the first also where it only implies it, and what does a round trip do to the rest?"""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        for row in run.rows:
            explicit, implied = (interval(row, name) for name in ("explicit", "implied"))
            if row["kind"] in ("reverse", "composite") and implied is not None:
                which = more(explicit, implied)
                verdict = {True: "less", False: "more", None: "within noise"}[which]
                wins, said = (percent(number(row.get(name))) for name in ("explicit", "implied"))
                found.append(
                    f"{of}{row['method']}, {row['kind']}: the second edit wins over the first in {wins}, "
                    f"what it implies in {said} ({verdict})"
                )
        for plain, joint in _pairs(run.rows):
            which = more(interval(joint, "ignored"), interval(plain, "ignored"))
            verdict = {True: "more", False: "less", None: "within noise"}[which]
            found.append(
                f"{of}after a round trip by {plain['method']} {percent(number(plain.get('ignored')))} of the other right "
                f"answers lost weight, by one edit to all of them {percent(number(joint.get('ignored')))} ({verdict})"
            )
    return ("; ".join(found) + ".") if found else missing(runs)


def _pairs(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of round trips, each with that of the way back to all answers."""
    by = {(row["source"], row["method"]): row for row in rows if row["kind"] == "round"}
    return [
        (by[source, name.removesuffix(ANY_OF)], row)
        for (source, name), row in by.items()
        if name.endswith(ANY_OF) and (source, name.removesuffix(ANY_OF)) in by
    ]


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    found = [_conflicts(runs), _rounds(runs), beside.moved(runs, "rows", _place, _PLACE), _failed(runs)]
    return [section for section in found if section is not None]


_PLACE = ("source", "kind", "method", "cases")


def _place(row: Row) -> list[str]:
    return [row["source"], row["kind"], row["method"], count(row["cases"])]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    rows = summary.get("rows") or []
    tables = []
    if conflicts := [row for row in rows if row["kind"] != "round"]:
        cells = [
            [row["kind"], row["method"], count(row["cases"]), *(percent(number(row.get(name))) for name in CONFLICT)]
            for row in conflicts
        ]
        tables.append(Table(["kind", "method", "cases", *CONFLICT.values()], cells, "Two edits", numbers_from=2))
    if rounds := [row for row in rows if row["kind"] == "round"]:
        cells = [
            [row["method"], count(row["cases"]), *(_plain(row, name) for name in ROUND if name != "distortion_divided")]
            for row in rounds
        ]
        names = [title for name, title in ROUND.items() if name != "distortion_divided"]
        tables.append(Table(["method", "cases", *names], cells, "There and back", numbers_from=1))
    return tables + beside.moved_terminal(dict(summary), "rows", lambda row: _place(row)[1:], _PLACE[1:])


def _plain(row: Mapping[str, Any], name: str) -> str:
    value = number(row.get(name))
    return fixed(value, 3) if name.startswith("distortion") else percent(value)


def ranged(row: Mapping[str, Any], name: str) -> str:
    """A score with its interval: shares in per cent, divergences in nats."""
    value, low, high = (number(row.get(key)) for key in (name, f"{name}_low", f"{name}_high"))
    if value is None or low is None or high is None:
        return "–"
    if name.startswith("distortion"):
        return f"{value:.3f} ({low:.3f} to {high:.3f})"
    return f"{percent(value)} ({100 * low:.0f} to {100 * high:.0f})"


def published(kind: str, method: str, names: Sequence[str]) -> str:
    """The paper's figures of a method, in the order of the scores; "" where it has none."""
    found = PUBLISHED.get((kind, "ft" if method.startswith("ft-") else method), {})
    return " / ".join("–" if name not in found else f"{found[name]:.1f}" for name in names) if found else "–"


def _conflicts(runs: Sequence[RunData]) -> Section:
    blocks: list[Block] = []
    rows = [(run, row) for run in runs for row in run.rows if row["kind"] != "round"]
    if not rows:
        return Section("Two edits that touch", [], missing(runs))
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for source in distinct(row["source"] for row in run.rows if row["kind"] != "round"):
            members = [
                Bar(
                    f"{row['method']}, {title}",
                    number(row[name]),
                    colour,
                    number(row.get(f"{name}_low")),
                    number(row.get(f"{name}_high")),
                )
                for row in run.rows
                if row["source"] == source and row["kind"] != "round"
                for (name, title), colour in zip(list(CONFLICT.items())[:2], PALETTE, strict=False)
                if number(row.get(name)) is not None
            ]
            if members:
                groups.append((source + of, members))
    note = (
        "The second edit is to overrule the first: explicit, its own answer is the likelier one; implied, what it says "
        "about the first fact is. 95 % over cases."
    )
    if groups:
        blocks.append(Figures([("", bars(groups, "conflict score", bar="share of cases, 95 %"))], note))
    names = list(CONFLICT)
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            row["source"],
            row["kind"],
            row["method"],
            count(row["cases"]),
            *(ranged(row, name) for name in names),
            published(row["kind"], row["method"], names),
        ]
        for run, row in rows
    ]
    columns = [*(["run"] if len(runs) > 1 else []), "source", "kind", "method", "cases", *CONFLICT.values(), "GPT-J"]
    caption = (
        "CM: by how much of its probability the first edit fell when the second was made. TFD: by how much the fact "
        f"that ties the two fell. GPT-J: the same scores in per cent in {SOURCE} (its FT beside ft-*); its coverage "
        "CS is at least 95.9"
    )
    blocks.append(Table(columns, cells, caption, numbers_from=len(columns) - 6))
    return Section("Two edits that touch", blocks)


def _rounds(runs: Sequence[RunData]) -> Section:
    names = list(ROUND)
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            row["source"],
            row["method"],
            count(row["cases"]),
            *(ranged(row, name) for name in names),
            published("round", row["method"], ROUND_PUBLISHED),
        ]
        for run in runs
        for row in run.rows
        if row["kind"] == "round"
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("source", "method", "cases", *ROUND.values(), "GPT-J D easy / hard / IR / back"),
    ]
    caption = (
        "One of several right answers edited to a wrong one and back. D: Jensen-Shannon divergence (nats) of the right "
        "answers' normalised probabilities, before and after; the paper's is divided by their number, × 100. IR: share of "
        "the other answers whose part fell, FR: cases where more than half did; parts also fall where the edited answer "
        "alone rose, so lost ranks: share of the other answers with more of the vocabulary before them than there was. "
        "back: the old answer is likelier than the new one again. any of: the way back is one edit to all right answers. "
        f"GPT-J: {SOURCE}, IR and success (our back) of the easy file"
    )
    table = Table(columns, cells, caption, numbers_from=len(columns) - 8)
    return Section("There and back again", [table] if cells else [], missing(runs))


def _failed(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, row["method"], row["case"], row["reason"]] for run in runs for row in run.summary.get("failed") or []
    ]
    table = Table(["run", "method", "case", "why"], cells, long=True)
    return Section("Edits that failed", [table] if cells else [], "Every edit could be made.")
