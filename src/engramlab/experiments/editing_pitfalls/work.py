"""Edits two by two, what is likely before, between and after them, and the scores that come of it; resumable in between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.facts import Case
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.core.deltas import Delta, WeightDelta
from engramlab.editing import hyper, method
from engramlab.editing.judge import beside, reading
from engramlab.editing.judge.beyond import Beyond
from engramlab.editing.method import EditFailed
from engramlab.experiments._run import Run
from engramlab.experiments.editing_pitfalls import scores
from engramlab.experiments.editing_pitfalls.asked import Item
from engramlab.experiments.editing_pitfalls.config import Config
from engramlab.files import writing

ANY_OF = " (any of)"
#: Of a fact: its probability, and the rank of its unlikeliest token, each the mean over wordings.
Read = dict[str, tuple[float, float]]


def read(model: nn.Module, tokenizer: Any, items: Sequence[Item], own: Sequence[Delta] | None = None) -> list[Read]:
    """The facts of each case, all in one batch: under a delta a case, or all under what is on the model."""
    groups = [[query for wordings in item.asked.values() for query in wordings] for item in items]
    found = []
    for item, evidence in zip(items, reading.read(model, tokenizer, groups, own), strict=True):
        rest = iter(evidence)
        of = {name: list(islice(rest, len(wordings))) for name, wordings in item.asked.items()}
        found.append(
            {
                name: (
                    float(np.mean([np.exp(np.mean(one.logprobs)) for one in each])),
                    float(np.mean([max(one.ranks) for one in each])),
                )
                for name, each in of.items()
            }
        )
    return found


def edited(
    model: nn.Module,
    tokenizer: Any,
    items: Sequence[Item],
    name: str,
    config: Any,
    several: bool,
    beyond: Beyond | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Every case edited twice, by itself, and read three times; the model is as it was afterwards.

    Args:
        several: make the way back of a round also to all of its right answers together.
        beyond: of the unedited model, what else is to be measured after both edits.

    Returns:
        A row a case and way: ``method``, ``case``, ``kind``, by fact ``p`` and ``ranks`` before, between and after, and what
        ``Beyond.measured`` says after; and what failed.
    """
    firsts = method.make_each(model, tokenizer, [[item.edits[0]] for item in items], method=name, config=config)
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []

    def lost(item: Item, way: str, error: Delta | EditFailed) -> None:
        failed.append({"method": way, "case": item.id, "reason": str(error)})

    for item, first in zip(items, firsts, strict=True):
        if isinstance(first, EditFailed):
            lost(item, name, first)
    good = [(item, one) for item, one in zip(items, firsts, strict=True) if isinstance(one, Delta)]
    before = read(model, tokenizer, [item for item, _ in good])
    between = read(model, tokenizer, [item for item, _ in good], [one for _, one in good]) if good else []
    ends: list[tuple[int, str, Delta, WeightDelta | None]] = []
    for i, (item, first) in enumerate(good):
        ways = {name: [item.edits[1]]} | ({name + ANY_OF: list(item.back)} if several and item.back else {})
        with deltas.active(model, first):
            for way, edits in ways.items():
                (last,) = method.make_each(model, tokenizer, [edits], method=name, config=config)
                if isinstance(last, EditFailed):
                    lost(item, way, last)
                    continue
                both = isinstance(first, WeightDelta) and isinstance(last, WeightDelta)
                ends.append((i, way, last, WeightDelta.sum([first, last]) if both else None))  # type: ignore[list-item]
    after: list[tuple[Read, Row]] = [({}, {})] * len(ends)

    def look(some: Sequence[Item], own: Sequence[Delta] | None = None) -> list[tuple[Read, Row]]:
        cases = [case_of(item) for item in some]
        more = beyond.measured(model, tokenizer, cases, own) if beyond else [{}] * len(some)
        return list(zip(read(model, tokenizer, some, own), more, strict=True))

    summed = [(k, end[3]) for k, end in enumerate(ends) if end[3] is not None]
    if summed:
        found = look([good[ends[k][0]][0] for k, _ in summed], [delta for _, delta in summed])
        for (k, _), one in zip(summed, found, strict=True):
            after[k] = one
    for k, (i, _, last, whole) in enumerate(ends):
        if whole is None:  # what is no change of weights has no sum
            with deltas.active(model, good[i][1]), deltas.active(model, last):
                (after[k],) = look([good[i][0]])
    for (i, way, _, _), (end, more) in zip(ends, after, strict=True):
        item = good[i][0]
        states = (before[i], between[i], end)
        row: dict[str, Any] = {"method": way, "case": item.id, "kind": item.kind, **more}
        for part, at in (("p", 0), ("ranks", 1)):
            row[part] = {fact: [state[fact][at] for state in states] for fact in item.asked}
        rows.append(row)
    return rows, failed


def case_of(item: Item) -> Case:
    """A case's two edits, of which the last one's prompt is gone on behind for its fluency."""
    return Case(item.id, item.edits, ordered=True)


def part(run: Run, load: Any, name: str, source: str, items: Sequence[Item]) -> dict[str, Any]:
    """One method on one source, from where an earlier run left it."""
    config: Config = run.config
    several = name in config.joint

    def make(start: int, stop: int) -> dict[str, Any]:
        model, tokenizer = load()
        kept = run.folder / "before" / writing.name_of(source) / "beyond.json"
        beyond = beside.unedited(kept, config, load, list(map(case_of, items)), config.seed)
        began = time.monotonic()
        made, lost = edited(model, tokenizer, items[start:stop], name, hyper.of(config.hyper, name), several, beyond)
        return {"rows": made, "failed": lost, "seconds": round(time.monotonic() - began, 3)}

    folder, empty = run.folder / name / writing.name_of(source), {"rows": [], "failed": [], "seconds": 0.0}
    return run.in_parts(folder, f"{name}, {source}", len(items), config.at_once, make, empty)


def scored(record: Mapping[str, Any], source: str, items: Sequence[Item], seed: int) -> list[dict[str, Any]]:
    """A row a kind and method: every score's mean over cases with its 95 % interval, and what was measured beside them."""
    by = {item.id: item for item in items}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        groups.setdefault((row["kind"], row["method"]), []).append(row)
    made = []
    for (kind, way), rows in groups.items():
        if kind == "round":
            each = [
                scores.round_trip(row["p"], row["ranks"], of.true, of.edits[0].target)
                for row in rows
                for of in (by[row["case"]],)
            ]
        else:
            each = [scores.conflict(row["p"]) for row in rows]
        found = {"source": source, "kind": kind, "method": way, "cases": len(rows)}
        for score in each[0]:
            found |= bootstrap.mean(score, [one[score] for one in each], seed)
        made.append(found | beside.means(rows, seed))
    return made
