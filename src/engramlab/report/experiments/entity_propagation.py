"""The sections of the entity-propagation report: what each way of telling a definition did to inferences and to the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts import beside
from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, duration, fixed, short, signed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

SOURCE, DISTILLATION = "arXiv 2305.01651", "arXiv 2306.09306"
POPULAR = "specificity"
ARMS = {
    "ft-last": "fine-tuned, last layer",
    "ft-all": "fine-tuned, all layers",
    "distillation": "distilled",
    "rome": "ROME",
    "context": "definition in front",
    "random": "another definition in front",
}
_ENDS = ("", "_low", "_high")
_SCORES = ("gain", "sum_before", "sum_after", "mean_before", "mean_after", "sum_more", "by_overlap")
NEEDS = {
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("source", "arm", "kind"), str),
                **dict.fromkeys(("probes", "entities", "perplexity_before", "perplexity_after"), float),
                **{f"{name}{end}": Maybe(float) for name in _SCORES for end in _ENDS},
            }
        ]
    ),
    "failed": Maybe([{"source": str, "arm": str, "entity": str, "reason": str}]),
    "together": Maybe(float),
    "times": Maybe([{"source": str, "arm": str, "seconds": float, "editing_seconds": float}]),
    "beside": Maybe([{"source": str, "arm": str, "entities": float, **beside.MEASURED}]),
}


def headline(runs: Sequence[RunData]) -> str:
    """Does telling by weights reach what the definition in front does, and is that more than any definition does?"""
    found = []
    for run in runs:
        of = (f"{run.name}: " if len(runs) > 1 else "") + _told_together(run)
        for source, kind in distinct((row["source"], row["kind"]) for row in run.rows):
            if kind in (POPULAR, "memorization"):
                continue
            by = {row["arm"]: row for row in run.rows if (row["source"], row["kind"]) == (source, kind)}
            if "context" not in by:
                continue
            said = [
                f"{ARMS.get(arm, arm)} {signed(row.get('gain'))}{_VERDICT[more(interval(row, 'gain'), 0.0)]}"
                for arm, row in by.items()
            ]
            found.append(f"{of}{source}, {kind}, nats gained a token: " + ", ".join(said))
    return ("; ".join(found) + ".") if found else missing(runs)


def _told_together(run: RunData) -> str:
    size = int(number(run.summary.get("together")) or 1)
    return f"{size} entities told in one change: " if size > 1 else ""


_VERDICT = {True: "", False: " (a loss)", None: " (within noise)"}


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    moved = beside.moved(runs, "beside", _place, _PLACE)
    tasks = beside.tasks(runs, lambda row: _place(row)[:-1], _PLACE[:-1])
    return [_gains(runs), _all(runs), *filter(None, (moved, tasks)), _cost(runs), _failed(runs)]


_PLACE = ("source", "told by", "entities")


def _place(row: Row) -> list[str]:
    arm = str(row.get("arm", "–"))
    return [str(row.get("source", "–")), ARMS.get(arm, arm), count(row.get("entities"))]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    cells = [
        [row["kind"], row["arm"], count(row["probes"]), fixed(row.get("gain")), short(row["perplexity_after"])]
        for row in summary.get("rows") or []
    ]
    columns = ["probes", "arm", "n", "nats gained", "perplexity"]
    tables = [Table(columns, cells, "What a definition did", numbers_from=2)] if cells else []
    tables += beside.moved_terminal(dict(summary), "beside", lambda row: _place(row)[1:], _PLACE[1:])
    return tables + beside.tasks_terminal(dict(summary), lambda row: _place(row)[1:-1], _PLACE[1:-1])


def nats(row: Mapping[str, Any], name: str) -> str:
    """A signed number with its interval."""
    value, low, high = (number(row.get(f"{name}{end}")) for end in _ENDS)
    return "–" if value is None or low is None or high is None else f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def ways(row: Mapping[str, Any], name: str) -> str:
    """A share before and after."""
    return f"{percent(number(row.get(f'{name}_before')))} → {percent(number(row.get(f'{name}_after')))}"


def _gains(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for source, kind in distinct((row["source"], row["kind"]) for row in run.rows):
            rows = [row for row in run.rows if (row["source"], row["kind"]) == (source, kind)]
            if members := [_bar(row) for row in rows if number(row.get("sum_after")) is not None]:
                groups.append((f"{source}, {kind}{of}", members))
    note = (
        "The share of probes whose answer is the likeliest of its options, by the sum of its tokens' log-probabilities."
    )
    title = "Right among options"
    if not groups:
        return Section(title, [], missing(runs))
    return Section(title, [Figures([("", bars(groups, "right option first", bar="after, 95 % over entities"))], note)])


def _bar(row: Row) -> Bar:
    value, low, high = (number(row.get(f"sum_after{end}")) for end in _ENDS)
    colour = GREY if row["arm"] in ("context", "random") else PALETTE[0]
    return Bar(ARMS.get(row["arm"], str(row["arm"])), value, colour, low, high)


def _all(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            *(row["source"], row["kind"], ARMS.get(row["arm"], row["arm"])),
            *(count(row[name]) for name in ("entities", "probes")),
            f"{short(row['perplexity_before'])} → {short(row['perplexity_after'])}",
            nats(row, "gain"),
            ways(row, "sum"),
            ways(row, "mean"),
            nats(row, "by_overlap"),
        ]
        for run in runs
        for row in run.rows
    ]
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("source", "probes", "told by", "entities", "n", "perplexity", "nats gained a token"),
        *("right, by sum", "right, by mean", "gain and overlap"),
    ]
    caption = (
        "Perplexity: exp(mean over probes of the mean nats of an answer's tokens). right: the answer is the likeliest of its "
        "options, by sum or by mean of its tokens' log-probabilities. gain and overlap: rank correlation of what a probe "
        f"gained with the share of its words that stand in the definition; {SOURCE} finds that updates of weights hardly go "
        f"beyond such overlap and that the definition in front helps everywhere, {DISTILLATION} that distillation does "
        "better than fine-tuning. specificity: facts about countries, which should stay"
    )
    for run in runs:
        if text := _told_together(run):
            caption += f". {run.name}: {text.removesuffix(': ')}"
    table = Table(columns, cells, caption, numbers_from=len(columns) - 7)
    return Section("Before and after", [table] if cells else [], missing(runs))


def _cost(runs: Sequence[RunData]) -> Section:
    cells = [
        [
            run.name,
            row["source"],
            ARMS.get(row["arm"], row["arm"]),
            duration(row["editing_seconds"]),
            duration(row["seconds"]),
        ]
        for run in runs
        for row in run.summary.get("times") or []
    ]
    table = Table(["run", "source", "told by", "telling", "with asking"], cells, numbers_from=3)
    return Section("What it cost", [table] if cells else [], missing(runs))


def _failed(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, row["source"], row["arm"], row["entity"], row["reason"]]
        for run in runs
        for row in run.summary.get("failed") or []
    ]
    table = Table(["run", "source", "told by", "entity", "why"], cells, long=True)
    return Section("Not told", [table] if cells else [], "Every entity could be told in every way.")
