"""Does a text give away what is taught? Asked of all that is replayed beside it.

Replayed text that states a fact, or asks for one, trains what is to be held out. A text *states* a fact of a table where it has
its subject and its object (each by any of its names, ending where a word does), and *asks* for it where it has its subject in a
form of the question, trained or held out, whatever it says behind that. Of what documents say, which has no subject to be
named, a text has a wording or a question and the phrase that answers it. The rule is ours; chance hits count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engramlab.base.facts import Fact
from engramlab.experiments.teaching.documents import DocumentTable
from engramlab.measuring.answers import is_named, normalise


class Stated:
    """Which facts a text states or asks for, in time that hardly grows with the number of facts.

    Args:
        table: the facts, of a ``FactTable`` or a ``DocumentTable``.
        words: their wordings, divided.
    """

    def __init__(self, table: Any, words: Any) -> None:
        self._table, self._words = table, words
        self._said = list(table) if isinstance(table, DocumentTable) else None
        names = map(self._own_names, self._said) if self._said is not None else _names_of_table(table)
        self._about: dict[str, list[int]] = {}  # by a name, normalised: what tells nothing without one of its names
        for number, of in enumerate(names):
            for name in dict.fromkeys(map(normalise, of)):
                self._about.setdefault(name, []).append(number)
        self._lengths = sorted({len(name) for name in self._about})

    def fact(self, text: str) -> Fact | None:
        """The first fact that the text states or asks for."""
        plain = normalise(text)
        for number in sorted({number for name in self._named(plain) for number in self._about[name]}):
            for fact, questions in self._facts(number):
                if is_named(plain, (fact.object, *fact.aliases)) or any(asked in plain for asked in questions):
                    return fact
        return None

    def _named(self, plain: str) -> list[str]:
        """The names that stand in a normalised text."""
        letters: Iterable[str] = self._about
        if len(self._about) > len(plain) * len(self._lengths):  # there are fewer parts of the text than names
            letters = {plain[k : k + n] for n in self._lengths for k in range(len(plain) - n + 1)} & self._about.keys()
        # Most names are nowhere: looking for the letters alone takes a fraction of looking for words.
        return [name for name in letters if name in plain and is_named(plain, [name])]

    def _facts(self, number: int) -> list[tuple[Fact, list[str]]]:
        """The facts about what has that number, each with the normalised questions that ask for it."""
        if self._said is not None:
            return [(self._said[number], [])]
        parts, subject = ("trained", "held-out"), self._table.subjects[number]
        return [
            (fact, [normalise(q) for part in parts for q in self._words.questions(fact.relation, subject, part)])
            for fact in self._table.about(number)
        ]

    def _own_names(self, fact: Fact) -> list[str]:
        """What a text must have to state a fact of documents."""
        known = self._words.known[fact.subject, fact.relation]
        return [known.own, known.other, *known.questions]


def _names_of_table(table: Any) -> Iterable[tuple[str, ...]]:
    for number, subject in enumerate(table.subjects):
        mention = table.wordings.said.mentions.get(subject, subject)
        yield (subject, mention, *table.subject_aliases.get(number, ()))
