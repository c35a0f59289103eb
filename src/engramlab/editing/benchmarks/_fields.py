"""What the formats share: a record's fields, read strictly, and the cases put together from them.

Three rules hold in every format. A key that is absent, null or NaN is *missing*, which only matters for keys the
format needs. A text that is there but empty makes the record bad, except an old answer and the answer of a locality prompt,
which may be unknown. Numbers are taken for names and answers ("1984"), never for prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from engramlab.base.errors import UserError, quoted
from engramlab.base.facts import Case, Edit, Query
from engramlab.files.parquet import Unreadable
from engramlab.files.tables import missing
from engramlab.files.text import CELL, wrong_with

_NAME = 200  # characters of a subject that is looked for in other capitals


class BadRecord(UserError):
    """A record that cannot be used: the `index` it has in its file (from 0), the `key` that is wrong, the `reason`."""

    def __init__(self, index: int, key: str, reason: str) -> None:
        self.index, self.key, self.reason = index, key, reason
        super().__init__(f"record {index}, key {quoted(key)}: {reason}" if key else f"record {index}: {reason}")


@dataclass(frozen=True, slots=True)
class HopQuery(Query):
    """A question that several facts answer together.

    Attributes:
        hops: each of these facts: the ways to ask for it, and its right answers.
    """

    hops: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()


class Fields:
    """A record, or an object inside one at `path`. Every reader raises BadRecord with the full path of the key."""

    def __init__(self, values: Mapping[str, object], index: int, path: str = "") -> None:
        self.values = {key: value for key, value in values.items() if not missing(value)}
        self.index, self.path = index, path

    def bad(self, key: str, reason: str) -> BadRecord:
        return BadRecord(self.index, f"{self.path}{key}", reason)

    def has(self, key: str) -> bool:
        return key in self.values

    def name(self, key: str) -> str:
        """An id, a subject or a relation: text or a number; "" where missing."""
        return self._text(key, self.values[key], numbers=True) if self.has(key) else ""

    def prompts(self, key: str, subject: str = "") -> tuple[str, ...]:
        """One or several prompts with `{}` filled in; () where missing."""
        value = self.values.get(key)
        several = value if isinstance(value, list) else [] if value is None else [value]
        if value is not None and not several:
            raise self.bad(key, "is an empty list; write a prompt, or leave the key out")
        return tuple(self._fill(key, self._text(key, one), subject) for one in several)

    def prompt(self, key: str, subject: str = "") -> str:
        """The one prompt that must be there (a list of one is taken)."""
        found = self.prompts(key, subject)
        if not found:
            raise self.bad(key, "is missing; it must be the prompt, as text")
        if len(found) > 1:
            raise self.bad(key, f"is a list of {len(found)}; it must be one prompt")
        return found[0]

    def answers(self, key: str, *, needed: bool = True) -> tuple[str, ...]:
        """Every spelling, the first one first: from a text, a number, or lists of them, nested however the file does it.

        Empty spellings beside good ones are left out: they would make any output right.
        """
        found = tuple(dict.fromkeys(self._spellings(key, self.values.get(key))))
        if needed and not found:
            wrong = "is empty" if self.has(key) else "is missing"
            raise self.bad(key, f"{wrong}; it must be the answer: a text, or a list of its spellings")
        return found

    def inner(self, key: str) -> Fields:
        """The object under `key`; one without keys where missing."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.bad(key, f"is {_kind(value)}; it must be an object")
        return Fields(value, self.index, f"{self.path}{key}.")

    def entries(self, key: str) -> list[Fields]:
        """The objects of the list under `key` (one object alone is a list of one); [] where missing."""
        value = self.values.get(key)
        several = value if isinstance(value, list) else [] if value is None else [value]
        found = []
        for number, one in enumerate(several):
            if not isinstance(one, dict):
                raise self.bad(key, f"holds {_kind(one)}; it must be a list of objects")
            place = f"{key}[{number}]" if several is value else key
            found.append(Fields(one, self.index, f"{self.path}{place}."))
        return found

    def _spellings(self, key: str, value: object, depth: int = 0) -> Iterable[str]:
        if isinstance(value, list):
            if depth > 3:
                raise self.bad(key, "is nested too deep; it must be a text or a list of spellings")
            for one in value:
                yield from self._spellings(key, one, depth + 1)
        elif value is not None and not (isinstance(value, str) and not value.strip()):
            yield self._text(key, value, numbers=True)

    def _text(self, key: str, value: object, *, numbers: bool = False) -> str:
        if numbers and isinstance(value, float):
            if not math.isfinite(value):
                raise self.bad(key, f"is {value}; it must be text or a finite number")
            return str(int(value)) if value.is_integer() else str(value)
        if numbers and isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, Unreadable):
            raise self.bad(key, value.why)
        if not isinstance(value, str):
            raise self.bad(key, f"is {_kind(value)}; it must be text")
        if not value.strip():
            raise self.bad(key, "is empty; it must be text")
        if wrong := wrong_with(value):
            raise self.bad(key, wrong)
        return value.strip()

    def _fill(self, key: str, prompt: str, subject: str) -> str:
        if "{}" not in prompt:
            return prompt
        if not subject:
            raise self.bad(key, "has the placeholder {}, and the record names no subject to put there")
        if prompt.count("{}") * len(subject) > CELL:
            raise self.bad(key, "has the placeholder {} too often; a prompt needs it once")
        return prompt.replace("{}", subject)


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def case_id(fields: Fields, *keys: str) -> str:
    """The record's own id, under the first of `keys` it has; else its index in the file."""
    return next((fields.name(key) for key in keys if fields.has(key)), str(fields.index))


def edit(prompt: str, subject: str, target: tuple[str, ...], old: tuple[str, ...] = (), relation: str = "") -> Edit:
    """An edit without judges: `target` and `old` are spellings, the first one first (`old` may be ()).

    The subject is spelled as the prompt quotes it when only capitals differ. One that the prompt does not quote is
    kept as it is: methods that need it refuse such an edit, the others take it.
    """
    looked = 0 < len(subject) <= _NAME and subject not in prompt
    if looked and (found := re.search(re.escape(subject), prompt, re.IGNORECASE)):
        subject = found.group()
    query = Query(prompt, old[0] if old else "", old[1:], subject=subject, relation=relation)
    return Edit(query, target[0], target[1:])


def judging(role: str, group: str, prompt: str, answers: tuple[str, ...]) -> Query:
    """A query that judges an edit; `answers` are spellings, () (locality only) where the answer is unknown."""
    return Query(prompt, answers[0] if answers else "", answers[1:], role=role, group=group)


def entry_judges(
    entry: Fields, role: str, group: str, subject: str = "", *, prompt: str = "prompt", answer: str = "ground_truth"
) -> list[Query]:
    """The judges of one entry: one for each phrasing of its prompt, all with the entry's answers."""
    phrasings = entry.prompts(prompt, subject)
    if not phrasings:
        raise entry.bad(prompt, "is missing; it must be the prompt, as text")
    answers = entry.answers(answer, needed=role != "locality")
    given = entry.values.get(answer)
    if len(phrasings) > 1 and isinstance(given, list) and len(given) == len(phrasings):
        raise entry.bad(
            prompt, f"is a list as long as {answer!r}, so it is unclear which answer is whose; write an entry a prompt"
        )
    return [judging(role, group, phrasing, answers) for phrasing in phrasings]


def one_hop(fields: Fields) -> list[Query]:
    """The portability question that arXiv 2305.13172 added to ZsRE and CounterFact: {"New Question", "New Answer"}."""
    if not fields.has("portability"):
        return []
    entry = fields.inner("portability")
    return entry_judges(entry, "portability", "one-hop", prompt="New Question", answer="New Answer")


def put_together(id: str, edits: list[Edit], judges: Iterable[Query]) -> Case:
    """The case, its judges on the last edit with an `id` that is unique in the case ("portability-2")."""
    numbered, counts = [], dict[str, int]()
    for query in judges:
        counts[query.role] = number = counts.get(query.role, 0) + 1
        numbered.append(replace(query, id=f"{query.role}-{number}"))
    return Case(id, (*edits[:-1], replace(edits[-1], judges=tuple(numbered))))
