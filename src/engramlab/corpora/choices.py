"""Questions with options to choose from, of which one is right: made from facts, and what users' translations say of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engramlab.base.errors import UserError, at_places, quoted
from engramlab.base.facts import Fact
from engramlab.base.random_access import key, permute
from engramlab.corpora.cloze import GAP, Cloze
from engramlab.corpora.facts import FactTable
from engramlab.files import tables

STATEMENTS = 2
"""Statements of its own that a question about a fact comes with, at most."""


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question and its options.

    Attributes:
        id: distinct among the questions asked together.
        truth: the number of the right option.
        translations: statements with a gap that came with it.
    """

    id: str
    text: str
    options: tuple[str, ...]
    truth: int
    translations: tuple[str, ...] = ()

    def shuffled(self, seed: int) -> ChoiceQuestion:
        """The same with its options in an order of its own."""
        order = permute(key(seed, "options", self.id), np.arange(len(self.options)), len(self.options)).tolist()
        return replace(self, options=tuple(self.options[i] for i in order), truth=order.index(self.truth))


def chosen(questions: Sequence[ChoiceQuestion], limit: int | None, seed: int) -> list[ChoiceQuestion]:
    """So many of the questions, drawn by the seed; all of them for None."""
    order = permute(key(seed, "questions"), np.arange(len(questions)), len(questions)).tolist() if questions else []
    return [questions[i] for i in (order if limit is None else sorted(order[:limit]))]


def of_table(table: FactTable, wrong: int, seed: int) -> list[ChoiceQuestion]:
    """A question for every fact, with so many wrong objects of its relation (fewer where there are not so many), drawn for
    each, and the beginnings of sentences that end in the object as its translations.

    Raises:
        UserError: no relation has two objects.
    """
    by_relation: defaultdict[str, dict[str, Fact]] = defaultdict(dict)
    for fact in table:
        by_relation[fact.relation].setdefault(fact.object, fact)
    statements = min([STATEMENTS, *(table.wordings.asking[relation] for relation in by_relation)])
    found = []
    for fact in table:
        right = {name.casefold() for name in (fact.object, *fact.aliases)}
        others = [
            o
            for o, one in by_relation[fact.relation].items()
            if not right & {o.casefold(), *map(str.casefold, one.aliases)}
        ]
        if not others:
            continue
        name = f"{fact.subject}/{fact.relation}"
        order = permute(key(seed, "wrong", name), np.arange(len(others)), len(others)).tolist()
        said = table.wordings.prompts(fact.relation, fact.subject)[:statements]
        options = (fact.object, *(others[i] for i in order[:wrong]))
        text = table.wordings.plain(fact.relation, fact.subject)
        found.append(ChoiceQuestion(name, text, options, 0, tuple(f"{one} {GAP}." for one in said)))
    if not found:
        raise UserError(f"{table.name}: no relation has two objects to choose from")
    return found


def read_translations(path: str | Path, questions: Sequence[ChoiceQuestion]) -> list[list[Cloze]]:
    """A user's translations, one list for each question: records ``{"id": ..., "translations": ["... [MASK] ...", ...]}``.

    Raises:
        UserError: an id that no question has or two records have, a question without a record, no translations or unequally
            many, or one that has not exactly one gap; names file and record.
    """
    wanted = {question.id for question in questions}
    known: dict[str, tuple[str, list[Cloze]]] = {}
    for place, record in tables.objects(path):
        where = f"{path}, {place}"
        name, texts = str(record.get("id", "")), record.get("translations")
        if not name:
            raise UserError(f"{where}: key 'id' is missing")
        if name in known:
            raise UserError(f"{where}, key 'id': {quoted(name)} is also the id of {known[name][0]}; give each its own")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: key 'translations' must be a list of texts, not {quoted(texts)}")
        known[name] = (place, [Cloze.of(text, f"{where}, key 'translations': ") for text in texts])
    if lacking := [question.id for question in questions if question.id not in known]:
        raise UserError(
            f"{path}: {len(lacking)} of {len(wanted)} questions have no translations: {at_places(lacking)}; add a record each"
        )
    found = [known[question.id] for question in questions]
    for place, clozes in found:
        if len(clozes) != len(found[0][1]):
            raise UserError(
                f"{path}, {place}: has {len(clozes)} translations, but {found[0][0]} has {len(found[0][1])}; give equally many"
            )
    return [clozes for _, clozes in found]
