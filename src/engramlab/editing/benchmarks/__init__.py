"""Editing benchmarks: one file each, and the file name is the registration.

A benchmark that is made and not read has ``cases(seed, limit) -> list[Case]``, in an order drawn by the seed, and may say with
``LIMIT`` how many of them a run takes that does not say. A format of files has ``KEYS`` (what it is known by, for messages),
``recognises(record) -> bool`` and ``case(record, index) -> Case``, which raises BadRecord; where a record makes several
cases, or needs others, also ``spread(values) -> (number of the record, what one case is made of), ...``; where a list of
texts is of the format too, ``is_text(text) -> bool`` and ``of_text(text, index) -> Case``.

Every benchmark sorts its questions into the same three roles: ``generality`` (the edit's prompt in other words),
``portability`` (what follows from the edit) and ``locality`` (what must stay); a judge's ``group`` is the kind as the
benchmark calls it. Two more roles have no right share: ``wanted``, texts that the edit should make likelier, and
``rival``, what an answer to the same prompt is chosen among (see ``judge/rivals.py``).

    loaded = benchmarks.load("recent_test.json", bad="skip", limit=100)
    loaded.cases, loaded.skipped, loaded.format
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

from engramlab.base import registry
from engramlab.base.arrays import brief
from engramlab.base.errors import UserError, at_places, listed, nearest, note, quoted
from engramlab.base.facts import Case, Edit
from engramlab.editing.benchmarks._fields import BadRecord
from engramlab.files import tables
from engramlab.files.tables import Record

__all__ = [
    "BadRecord",
    "Loaded",
    "Skipped",
    "agreeing",
    "check",
    "check_joint",
    "contradictions",
    "load",
    "made",
    "names",
    "no_ops",
    "overwritten",
    "repeats",
    "spelt",
]

#: A record left out: its index in the file (from 0), the key that is wrong ("" if the record itself is), and why.
Skipped = tuple[int, str, str]


@dataclass(frozen=True)
class Loaded:
    """What a file holds: its cases, the records left out, the format it was read as, which record each case is, and what is
    wrong with no record but good to know."""

    __repr__ = brief

    cases: list[Case]
    skipped: list[Skipped]
    format: str
    records: list[int] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)


def _modules(has: str) -> dict[str, ModuleType]:
    package = sys.modules[__name__]
    found = {name: registry.load(package, name, "benchmark") for name in registry.names(package)}
    return {name: module for name, module in found.items() if hasattr(module, has)}


def names() -> list[str]:
    """Names of the formats."""
    return list(_modules("recognises"))


def made() -> dict[str, ModuleType]:
    """The benchmarks that are made and not read, by name."""
    return _modules("cases")


def check(benchmark: str | Path) -> None:
    """Raises UserError for a benchmark that is neither made, nor on the hub, nor a file here."""
    if str(benchmark) not in made() and not str(benchmark).startswith("hub:") and not Path(benchmark).exists():
        raise UserError(f"benchmark {benchmark!r}: no such file; give a file, hub:owner/name, or {' or '.join(made())}")


def load(
    path: str | Path,
    *,
    format: str | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    limit: int | None = None,
    seed: int = 0,
    apart: bool = True,
    subjects: str = "",
) -> Loaded:
    """The cases of a benchmark: of a file in its order, of one that is made in the order of its seed.

    A record is used whole or not at all: one empty locality prompt makes it bad. Cases whose ids the file repeats get
    "#2", "#3", ... behind them, so that results stay apart.

    Args:
        path: a name of ``made()``, a .json (list, object around a list, one record), .jsonl, .csv, .tsv or .parquet file,
            packed or not, or ``hub:owner/name[:file or split]``.
        format: one of ``names()``; by default the one that recognises most records.
        bad: what to do about bad records: refuse the file, or skip them and list them in ``skipped``.
        limit: stop after this many cases; later records are not looked at.
        seed: of a benchmark that is made.
        apart: will the cases stand on models of their own? Who makes them together refuses such as contradict each other.
        subjects: who needs prompts to quote their subjects, for messages ("rome"); then a record whose prompt does not is bad.

    What is wrong with no record, but good to know, is told as a note and kept: edits that change nothing, records that say the
    same, and edits that contradict each other.

    Raises:
        UserError: no such file, not readable, no format or several formats fit, no usable record; with "refuse" a bad
        record: the first one's index, key and reason, and how many others there are.
    """
    if bad not in ("refuse", "skip"):
        raise UserError(f"bad={bad!r} is unknown; use 'refuse' or 'skip'")
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: must be at least 1, or left out for all records")
    if str(path) in made():
        if format is not None:
            raise UserError(f"format: is of a benchmark's file; leave it out for {path}")
        return Loaded(made()[str(path)].cases(seed, limit), [], str(path))
    formats = _modules("recognises")
    raws = list(tables.records(path, whole=lambda value: any(one.recognises(value) for one in formats.values())))
    if not raws:
        raise UserError(f"{path}: holds no records")
    format = format or _detect(path, raws, formats)
    if format not in formats:
        near = nearest(format, list(formats))
        raise UserError(
            f"benchmark format {quoted(format)} is unknown; did you mean {near!r}? There are: {', '.join(formats)}"
        )
    module = formats[format]
    cases: list[Case] = []
    skipped: list[Skipped] = []
    numbers: list[int] = []
    values = [raw.value for raw in raws]
    texts = hasattr(module, "of_text") and not any(isinstance(value, dict) for value in values)
    for index, value in module.spread(values) if hasattr(module, "spread") else enumerate(values):
        if len(cases) == limit:
            break
        try:
            case = _case(module, replace(raws[index], value=value), index, texts)
            _check_subjects(case, index, subjects)
            cases.append(case)
            numbers.append(index)
        except BadRecord as error:
            if (left := (index, error.key, error.reason)) not in skipped[-1:]:
                skipped.append(left)
    if skipped and (bad == "refuse" or not cases):
        raise UserError(_refusal(path, format, raws, skipped, none_good=not cases))
    oddities = list(_oddities(cases, [f"record {number}" for number in numbers], apart))
    for text in oddities:
        note(f"{path}: {text}")
    return Loaded(list(_unique(cases)), skipped, format, numbers, oddities)


def no_ops(edits: Sequence[Edit]) -> list[int]:
    """The edits, by number, that change nothing: the new answer is the old one, without regard to capitals and white space."""
    return [i for i, one in enumerate(edits) if one.query.target and spelt(one.target) == spelt(one.query.target)]


def repeats(cases: Sequence[Case]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of cases with the same prompts and targets; each j with the first i that it repeats."""
    first: dict[tuple[str, ...], int] = {}
    found = []
    for j, case in enumerate(cases):
        said = tuple(spelt(text) for edit in case.edits for text in (edit.query.prompt, edit.target))
        if (i := first.setdefault(said, j)) != j:
            found.append((i, j))
    return found


def _oddities(cases: Sequence[Case], places: Sequence[str], apart: bool) -> Iterator[str]:
    """What is wrong with no record, but good to know."""
    whole = [(place, edit) for place, case in zip(places, cases, strict=True) for edit in case.edits]
    if same := no_ops([edit for _, edit in whole]):
        yield f"edits whose new answer is the old one: {len(same)} ({at_places([whole[i][0] for i in same])})"
    if again := [f"{places[i]} and {places[j]}" for i, j in repeats(cases)]:
        yield f"records that say the same: {len(again)} ({at_places(again)})"
    if not apart:
        return
    # Cases in an order of their own are never on one model.
    free = [(p, edit) for p, case in zip(places, cases, strict=True) if not case.ordered for edit in case.edits]
    found = [(free[i][0], free[j][0]) for i, j in contradictions([edit for _, edit in free])]
    if pairs := [f"{first} and {second}" for first, second in found if first != second]:
        yield f"pairs of edits that give one prompt different answers: {len(pairs)} ({at_places(pairs)})"


def contradictions(edits: Sequence[Edit]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of edits that give one prompt different answers, so that no model can satisfy both.

    Prompts and answers are compared without regard to capitals and white space; answers that share a spelling agree.
    Each j is paired with the first i it contradicts.
    """
    known = _Answers()
    found = []
    for j, edit in enumerate(edits):
        if (i := known.against(edit)) is not None:
            found.append((i, j))
        known.add(edit, j)
    return found


def check_joint(cases: Sequence[Case], name: str | Path) -> None:
    """Raises UserError for a case whose edits cannot be made together, as they must be made one after another."""
    if (first := next((case for case in cases if case.ordered), None)) is not None:
        raise UserError(
            f"{name}: the edits of case {first.id} (-> {quoted(first.edits[0].target)}, then -> "
            f"{quoted(first.edits[-1].target)}) are made one after another, the last one overruling what came before; here "
            "the edits of a case are made together, so take another file, or make them in order: engramlab run editing-pitfalls"
        )


def overwritten(edits: Sequence[Edit]) -> dict[int, int]:
    """Of edits made one after another: the number of each that no longer holds, and that of the last one with its prompt, which
    took its place by another answer (see ``contradictions``)."""
    last: dict[str, int] = {}
    found = {}
    for i in reversed(range(len(edits))):
        j = last.setdefault(spelt(edits[i].query.prompt), i)
        if not _Answers._of(edits[i]) & _Answers._of(edits[j]):
            found[i] = j
    return found


def agreeing(
    cases: Sequence[Case], places: Sequence[str], name: str | Path, bad: Literal["refuse", "skip"]
) -> tuple[list[Case], list[str]]:
    """The cases that can be made together, and a note on each that contradicts an earlier one and is left out.

    Args:
        places: what messages call each case: "record 7".
        name: of the benchmark, for messages.
        bad: "refuse" to leave nothing out.

    Raises:
        UserError: with "refuse" cases that contradict each other: all pairs (the first few by name).
    """
    known = _Answers()
    kept, left, pairs, first = [], [], [], ""
    for number, case in enumerate(cases):
        against = next(((i, edit) for edit in case.edits if (i := known.against(edit)) is not None), None)
        if own := contradictions(case.edits):
            against = number, case.edits[own[0][1]]
        if against is None:
            for edit in case.edits:
                known.add(edit, number)
            kept.append(case)
            continue
        i, edit = against
        first = first or quoted(edit.query.prompt)
        pairs.append(f"{places[i]} and {places[number]}")
        left.append(f"left out {places[number]}: it contradicts {places[i]} about {quoted(edit.query.prompt)}")
    if pairs and bad == "refuse":
        also = f" (so do {at_places(pairs[1:])})" if len(pairs) > 1 else ""
        raise UserError(
            f"{name}: {pairs[0]} give the same prompt {first} different answers{also}; no model can satisfy both, so leave "
            "one of them out, or all later ones with bad='skip'"
        )
    return kept, left


class _Answers:
    """The answers that edits give to prompts, in the order in which they are added."""

    def __init__(self) -> None:
        self._by_prompt: dict[str, dict[frozenset[str], int]] = {}
        self._common: dict[
            str, frozenset[str]
        ] = {}  # spellings that all answers to a prompt share: nothing to look for

    def against(self, edit: Edit) -> int | None:
        """The number of the first edit that gives this one's prompt another answer."""
        prompt, answers = spelt(edit.query.prompt), self._of(edit)
        if answers & self._common.get(prompt, answers):
            return None
        return next((i for others, i in self._by_prompt[prompt].items() if not answers & others), None)

    def add(self, edit: Edit, number: int) -> None:
        prompt, answers = spelt(edit.query.prompt), self._of(edit)
        self._by_prompt.setdefault(prompt, {}).setdefault(answers, number)
        self._common[prompt] = answers & self._common.get(prompt, answers)

    @staticmethod
    def _of(edit: Edit) -> frozenset[str]:
        return frozenset(map(spelt, (edit.target, *edit.aliases)))


def spelt(text: str) -> str:
    """A prompt or an answer as edits are compared: without regard to capitals and white space."""
    return " ".join(text.casefold().split())


def _detect(path: str | Path, raws: list[Record], formats: dict[str, ModuleType]) -> str:
    """The format that recognises most records: bad ones may lack the keys that tell."""
    records = [raw.value for raw in raws if isinstance(raw.value, dict)]
    votes = {name: sum(map(module.recognises, records)) for name, module in formats.items()}
    if not records and (texts := [raw.value for raw in raws if isinstance(raw.value, str)]):
        fits = {name: sum(map(module.is_text, texts)) for name, module in _modules("is_text").items()}
        votes |= {name: count for name, count in fits.items() if 2 * count > len(texts)}
    best = [name for name, count in votes.items() if count and count == max(votes.values())]
    if len(best) == 1:
        return best[0]
    if best:
        raise UserError(f"{path}: its records fit several formats ({', '.join(best)}); say which with format=")
    if records and (other := _other(records[0])):
        raise UserError(f"{path}: holds no edits: {other}")
    keys = listed(records[0]) if records else "none: they are no objects"
    known = "; ".join(f"{name} has {module.KEYS}" for name, module in formats.items())
    raise UserError(f"{path}: its records (keys: {keys}) are of no known format: {known}")


def _other(record: Mapping[str, object]) -> str:
    """What a record without an edit is, if another of our instruments reads it, or one of these formats goes with it."""
    from engramlab.corpora.facts import formats as facts
    from engramlab.reading import choices, completions

    for package, what in (
        (facts, "they are facts, which --facts takes"),
        (completions, "they are true and false answers to choose among"),
        (choices, "they are multiple-choice questions"),
    ):
        for name in registry.names(package):
            form = registry.load(package, name, "format")
            if form.recognises(record) if hasattr(form, "recognises") else record.keys() >= set(form.KEYS):
                return f"{what} (read as {name})"
    if record.keys() >= {"input", "output"}:
        return "they are questions with their answers, and say of none what it is to become; give each a target"
    if record and all(isinstance(value, list) and re.fullmatch(r"P\d+", key) for key, value in record.items()):
        return "they are wordings of relations, which go with the edits of ConflictEdit and RoundEdit"
    return ""


def _case(module: ModuleType, raw: Record, index: int, texts: bool) -> Case:
    if raw.broken:
        raise BadRecord(index, "", raw.broken)
    if texts and isinstance(raw.value, str):
        return module.of_text(raw.value, index)
    if not isinstance(raw.value, dict):
        raise BadRecord(index, "", f"is {quoted(raw.value)}; it must be an object")
    return module.case(raw.value, index)


def _check_subjects(case: Case, index: int, needed_by: str) -> None:
    """Raises BadRecord for an edit whose prompt does not quote its subject, where somebody needs that."""
    if not needed_by:
        return
    from engramlab.editing.requests import lacking_subject  # takes seconds, which a bad file need not wait for

    for edit in case.edits:
        if lacks := lacking_subject(edit):
            raise BadRecord(index, "subject", f"{lacks}; for {needed_by} it must stand there")


def _unique(cases: list[Case]) -> Iterator[Case]:
    taken = {case.id for case in cases}
    seen: dict[str, int] = {}  # how often each id has come
    for case in cases:
        number = seen[case.id] = seen.get(case.id, 0) + 1
        if number == 1:
            yield case
            continue
        while (id := f"{case.id}#{number}") in taken:
            number = seen[case.id] = number + 1
        yield replace(case, id=id)


def _refusal(path: str | Path, format: str, raws: list[Record], skipped: list[Skipped], *, none_good: bool) -> str:
    index, key, reason = skipped[0]
    place = f" ({raws[index].place})" if raws[index].place else ""
    where = f"record {index}{place}, key {quoted(key)}" if key else f"record {index}{place}"
    others = len(skipped) - 1
    more = f"{others} other record{' is' if others == 1 else 's are'} bad too" if others else "no other record is bad"
    if none_good and others:
        more += " and none is good"
    advice = "put it right" if none_good else "put it right, or skip bad records with bad='skip'"
    return f"{path}: {where}: {reason} (read as {format}; {more}); {advice}"
