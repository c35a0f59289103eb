"""Sanitation (KnowEdit, arXiv 2401.01286): answers that a model shall no longer give. A file is one object of lists.

    K_F       [{question, subject, ground_truth, target_new}]   to be forgotten: the new answer is "I don't know."
    K_R       [{question, ground_truth}]                        to be kept: locality
    success   [{question, ground_truth, target_new}]            questions for the same answers that are not taught:
    generality locality  [{question, ground_truth}]                        to be kept: locality

The train file has the first two, the test file the others: one object of all four (``jq -s add train.json test.json``)
is taught by one and judged by the other. Where there is no ``K_F``, what stands under ``success`` is taught. All
questions for one answer are one case, in whatever capitals the answer is written. An unseen question is answered as it
should be where the new answer stands anywhere in the first ten tokens written. Quotes doubled by the CSV that the files were
made of are put right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engramlab.base.facts import Case, Edit
from engramlab.editing.benchmarks._fields import Fields, edit, judging, put_together

KEYS = "K_F and K_R, or success and locality (lists)"
_KEPT = ("K_R", "locality")
_WITHIN = 10


def recognises(record: Mapping[str, object]) -> bool:
    if isinstance(record.get("K_F"), list):
        return True
    return isinstance(record.get("success"), list) and isinstance(record.get("locality"), list)


def spread(values: Sequence[object]) -> Iterator[tuple[int, object]]:
    """A file once for each answer."""
    for index, value in enumerate(values):
        record = value if isinstance(value, dict) else {}
        taught = record.get(_taught(record))
        answers = dict.fromkeys(map(_answer, taught)) if isinstance(taught, list) else {}
        yield from ((index, {**record, "answer": answer}) for answer in answers)
        if not answers:
            yield index, value


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    key, answer = _taught(record), record.get("answer")
    taught = [entry for entry in fields.entries(key) if answer is None or _answer(entry.values) == answer]
    if not taught:
        raise fields.bad(key, "holds nothing to teach; it must be a list of questions with ground_truth and target_new")
    edits = [_edit(entry) for entry in taught]
    judges = []
    for entry in fields.entries("success") if key == "K_F" else ():
        if answer is None or _answer(entry.values) == answer:
            target = entry.answers("target_new")
            judges.append(
                replace(judging("generality", "unseen", _unquoted(entry.prompt("question")), target), within=_WITHIN)
            )
    all_taught = {_unquoted(str(entry.values.get("question"))) for entry in fields.entries(key)}
    for kept in _KEPT:
        for entry in fields.entries(kept):
            question = _unquoted(entry.prompt("question"))
            if question in all_taught:
                raise entry.bad("question", f"stands under {key!r} too; it cannot be both forgotten and kept")
            spellings = tuple(map(_unquoted, entry.answers("ground_truth", needed=False)))
            judges.append(judging("locality", "kept", question, tuple(filter(None, spellings))))
    return put_together(edits[0].query.target if answer is None or answer else str(index), edits, judges)


def _taught(record: Mapping[str, object]) -> str:
    return "K_F" if isinstance(record.get("K_F"), list) else "success"


def _answer(entry: object) -> str:
    """The answer that an entry is about, as it is compared."""
    given = entry.get("ground_truth") if isinstance(entry, Mapping) else None
    return " ".join(given.casefold().split()) if isinstance(given, str) else ""


def _edit(entry: Fields) -> Edit:
    old, target = entry.answers("ground_truth"), entry.answers("target_new")
    if target[0].casefold() in map(str.casefold, old):
        raise entry.bad("target_new", 'is the old answer; it must be another, such as "I don\'t know."')
    return edit(_unquoted(entry.prompt("question")), entry.name("subject"), target, tuple(map(_unquoted, old)))


def _unquoted(text: str) -> str:
    """A cell of CSV that was never unquoted: the text itself."""
    inner = text.strip()
    if len(inner) > 2 and inner[0] == inner[-1] == '"' and '""' in inner[1:-1]:
        return inner[1:-1].replace('""', '"').strip()
    return text
