"""The sections of the plug-in-memory report: with documents and without, exchanged, added and gone, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Details, Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, percent_ranged
from engramlab.report.rows import Row, RunData, distinct
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2305.11564"
_WHEN = {
    ("memory", "as trained"): "with its memory",
    ("memory", "added"): "documents of the unseen added",
    ("memory", "emptied"): "memory emptied",
    ("bare", "as trained"): "trained without a memory",
}
_GROUPS = {
    "train": "read about, asked in training",
    "test": "read about, never asked in training",
    "unseen": "nothing read in training",
}
#: Of a summary.
NEEDS = {
    "top": float,
    "documents": float,
    "rows": [
        {
            **dict.fromkeys(("network", "when", "group", "attribute"), str),
            **dict.fromkeys(("questions", "exact_match", "exact_match_low", "exact_match_high", "chance"), float),
            **dict.fromkeys(("hit", "hit_low", "hit_high", "hit_1"), Maybe(float)),
        }
    ],
    "changes": [
        {
            "change": str,
            "documents": float,
            **dict.fromkeys(
                ("new", "new_low", "new_high", "old", "same", "same_low", "same_high", "own"), Maybe(float)
            ),
            "right_before": Maybe(float),
            "examples": Maybe([{"before": str, "after": str}]),
        }
    ],
    "beta": Maybe([[float]]),
}


def headline(runs: Sequence[RunData]) -> str:
    """Those never asked about, with the memory and without; and the unseen, once their documents are there."""
    found = []
    for run in runs:
        known, bare = _of(run, "memory", "as trained", "test"), _of(run, "bare", "as trained", "test")
        if known is None:
            continue
        text = f"{run.name}: " if len(runs) > 1 else ""
        text += f"with documents {percent(known['exact_match'])}, chance {percent(known['chance'])}"
        if bare is not None:
            which = more(interval(known, "exact_match"), interval(bare, "exact_match"))
            text += f", without a memory {percent(bare['exact_match'])} ({_VERDICT[which]})"
        added = _of(run, "memory", "added", "unseen")
        if added is not None:
            which = more(interval(added, "exact_match"), added["chance"])
            text += (
                f"; of subjects never read about, documents added, {percent(added['exact_match'])} ({_ABOVE[which]})"
            )
        swapped = _changed(run, "documents exchanged")
        if swapped is not None and swapped.get("new") is not None:
            text += (
                f"; exchanged documents: new value named {percent(swapped['new'])}, everybody else's answers as before "
                f"{percent(swapped.get('same'))}"
            )
        found.append(text)
    return ("; ".join(found) + ".") if found else missing(runs)


_VERDICT = {True: "the memory gains", False: "the memory loses", None: "within noise"}
_ABOVE = {True: "above chance", False: "below chance", None: "chance"}


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_answers(runs), _changes(runs), _hits(runs), _all(runs), training_section(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal: means over attributes, and what changed with the documents."""
    cells = [
        [_when(row), row["group"], percent_ranged(row, "exact_match"), percent(row["chance"]), percent(row.get("hit"))]
        for row in summary["rows"]
        if row["attribute"] == "mean"
    ]
    tables = [Table(["when", "whom", "right (95 %)", "chance", "found"], cells, "Questions answered", numbers_from=2)]
    moved = [
        [row["change"], count(row["documents"]), *(percent(row.get(name)) for name in ("new", "old", "same"))]
        for row in summary["changes"]
    ]
    columns = ["change", "documents", "new value", "old value", "others alike"]
    return [*tables, Table(columns, moved, "Documents changed", numbers_from=1)]


def _of(run: RunData, network: str, when: str, group: str) -> Row | None:
    key = (network, when, group, "mean")
    return next((r for r in run.rows if (r["network"], r["when"], r["group"], r["attribute"]) == key), None)


def _changed(run: RunData, change: str) -> Row | None:
    return next((row for row in run.summary.get("changes") or [] if row["change"] == change), None)


def _when(row: Row) -> str:
    return _WHEN.get((row["network"], row["when"]), f"{row['network']}, {row['when']}")


def _answers(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for group in distinct(row["group"] for row in run.rows):
            members = [
                Bar(
                    _when(row),
                    row["exact_match"],
                    PALETTE[0] if row["network"] == "memory" else GREY,
                    row["exact_match_low"],
                    row["exact_match_high"],
                    chance=row["chance"],
                )
                for row in run.rows
                if (row["group"], row["attribute"]) == (group, "mean")
            ]
            groups.append((_GROUPS.get(group, group) + of, members))
    note = (
        "Right: all tokens of the answer are named. Chance: always naming the commonest value of those asked in training. Both "
        "networks read the same rows; an entry does not find itself in the memory while it is read, unless the run says so. "
        f"Published ({SOURCE}): gains on tasks of four domains, which are not these questions."
    )
    drawn = bars(groups, "right", bar="right, 95 % over subjects", chance="commonest value") if groups else None
    return Section("With documents and without", [Figures([("", drawn)], note)] if drawn else [], missing(runs))


def _changes(runs: Sequence[RunData]) -> Section:
    cells, texts = [], []
    for run in runs:
        for row in run.summary.get("changes") or []:
            cells.append(
                [
                    *([run.name] if len(runs) > 1 else []),
                    row["change"],
                    count(row["documents"]),
                    percent(row.get("right_before")),
                    percent_ranged(row, "new"),
                    percent(row.get("old")),
                    percent_ranged(row, "same"),
                    percent(row.get("own")),
                ]
            )
            for example in row.get("examples") or []:
                texts.append(f"{example['before']}\n→ {example['after']}")
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("change", "documents", "right before", "new value (95 %)", "old value", "others alike (95 %)", "own alike"),
    ]
    caption = (
        "Others alike: of the subjects whose documents stayed, the share of answers that are the same tokens as before. Own "
        "alike: of those exchanged, the answers about what did not change."
    )
    blocks: list[Any] = [Table(columns, cells, caption, numbers_from=len(columns) - 6)] if cells else []
    blocks += [Details("Documents before and after", "\n\n".join(texts))] if texts else []
    return Section("Documents exchanged and added", blocks, missing(runs))


def _chance(summary: Row) -> float | None:
    """How often the right document would be among those read if they were drawn."""
    return min(1.0, summary["top"] / summary["documents"]) if summary["documents"] > 0 else None


def _hits(runs: Sequence[RunData]) -> Section:
    cells = []
    for run in runs:
        for row in run.rows:
            if row.get("hit") is not None and row["attribute"] == "mean":
                cells.append(
                    [
                        *([run.name] if len(runs) > 1 else []),
                        _when(row),
                        row["group"],
                        percent(row.get("hit_1")),
                        percent_ranged(row, "hit"),
                        percent(_chance(run.summary)),
                    ]
                )
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("when", "whom", "nearest", "among those read (95 %)", "by chance"),
    ]
    betas = "; ".join(
        f"{run.name}: " + ", ".join(fixed(value) for layer in run.summary.get("beta") or [] for value in layer)
        for run in runs
    )
    caption = f"How often a question's document was found. Learnt weights of the cosine, a head each (from 1): {betas}."
    return Section(
        "Found", [Table(columns, cells, caption, numbers_from=len(columns) - 3)] if cells else [], missing(runs)
    )


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            *(_when(row), row["group"], row["attribute"], count(row["questions"])),
            *(percent_ranged(row, "exact_match"), percent(row["chance"]), percent(row.get("hit"))),
        ]
        for run in runs
        for row in run.rows
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("when", "whom", "attribute", "questions", "right (95 %)", "chance", "found"),
    ]
    return Section(
        "All of it", [Table(columns, cells, numbers_from=len(columns) - 4, long=True)] if cells else [], missing(runs)
    )
