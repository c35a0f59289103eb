"""A table of facts with dates, a row each: what holds now is edited in (after arXiv 2406.04496).

    subject, relation, object, start, end      dates as 2024, 2024-05 or 2024-05-01; an open end still holds, the ends
                                               excluded; relations are nouns: "capital", "head of government"

A case is a subject's relation with dates that has an object now. Rows without dates are what stays, and what else follows is
composed of; see ``_dated.py`` for the questions. Other spellings of an object may stand in ``aliases``, separated by ``|``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from engramlab.base.facts import Case
from engramlab.editing.benchmarks._dated import Dated, case_of, clash, current, invariant
from engramlab.editing.benchmarks._fields import BadRecord, Fields

KEYS = "subject, relation, object, start and end"
_ALL = ("subject", "relation", "object", "start", "end")
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


def recognises(record: Mapping[str, object]) -> bool:
    return record.keys() >= set(_ALL)


def spread(values: Sequence[object]) -> Iterator[tuple[int, object]]:
    """A case a subject and relation with dates, at its last row; and every row that cannot be read."""
    rows: list[tuple[int, Dated]] = []
    for index, value in enumerate(values):
        try:
            rows.append((index, _row(value if isinstance(value, dict) else {}, index)))
        except BadRecord:
            yield index, value
    facts = invariant([row for _, row in rows])
    histories: dict[tuple[str, str], list[tuple[int, Dated]]] = {}
    for index, row in rows:
        histories.setdefault((row.subject.casefold(), row.relation), []).append((index, row))
    for history in histories.values():
        of = [row for _, row in history]
        pair = clash(of)
        if any(row.dated for row in of) and (pair or current(of)):
            yield history[pair[1] if pair else -1][0], {"history": history, "facts": facts}


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord: a row that cannot be read, dates backwards, two objects at one time."""
    history = record.get("history")
    if not isinstance(history, list):
        history = [(index, _row(record, index))]
    rows = [row for _, row in history]
    if (pair := clash(rows)) is not None:
        (first, one), (second, other) = (history[i] for i in pair)
        raise BadRecord(
            second,
            "start",
            f"the {other.relation} of {other.subject!r} is {other.object!r} while record {first} has it as {one.object!r}; "
            "end the one before the other starts",
        )
    facts = record.get("facts")
    made = case_of(rows, facts if isinstance(facts, dict) else {})
    if made is None:
        raise BadRecord(index, "end", "is over, and no other row says what holds now; leave it open, or the row out")
    return made


def _row(record: Mapping[str, object], index: int) -> Dated:
    fields = Fields(record, index)
    for key in ("subject", "relation", "object"):
        if not fields.name(key).strip():
            raise fields.bad(key, "is missing; a fact has a subject, a relation and an object")
    start, end = (_date(fields, key) for key in ("start", "end"))
    if start and end and end < start[: len(end)]:
        raise fields.bad("end", f"is {end}, before the start, {start}; turn them round")
    aliases = tuple(part.strip() for part in _open(fields, "aliases").split("|") if part.strip())
    subject, relation, what = (fields.name(key).strip() for key in ("subject", "relation", "object"))
    return Dated(subject, relation, what, start, end, aliases)


def _open(fields: Fields, key: str) -> str:
    """A text that may be empty, as a cell of a table is."""
    value = fields.values.get(key)
    return "" if isinstance(value, str) and not value.strip() else fields.name(key).strip()


def _date(fields: Fields, key: str) -> str:
    text = _open(fields, key)
    if text and not _DATE.fullmatch(text):
        raise fields.bad(key, f"is {text!r}; write a date as 2024, 2024-05 or 2024-05-01, or leave it open")
    return text
