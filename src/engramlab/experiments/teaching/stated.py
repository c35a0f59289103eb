"""Does a text give away what is taught? Asked of all that is replayed beside it.

Replayed text that states a fact, or asks for one, trains what is to be held out. A text *states* a fact of a table where it has
its subject and its object (each by any of its names, ending where a word does), and *asks* for it where it has its subject in a
form of the question, trained or held out, whatever it says behind that. Of what documents say, which has no subject to be
named, a text has a wording or a question and the phrase that answers it. The rule is ours; chance hits count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engramlab.base.facts import Fact
from engramlab.experiments.teaching.documents import DocumentTable
from engramlab.measuring.answers import is_named, normalise


@dataclass(frozen=True)
class _Told:
    """Facts that a text may tell.

    Attributes:
        names: of what they are about, normalised: without one of them the text tells none.
        facts: each with the normalised questions that ask for it.
    """

    names: list[str]
    facts: list[tuple[Fact, list[str]]]


class Stated:
    """Which facts a text states or asks for.

    Args:
        table: the facts, of a ``FactTable`` or a ``DocumentTable``.
        words: their wordings, divided.
    """

    def __init__(self, table: Any, words: Any) -> None:
        self._told = list(_of_documents(table, words) if isinstance(table, DocumentTable) else _of_table(table, words))

    def fact(self, text: str) -> Fact | None:
        """The first fact that the text states or asks for."""
        plain = normalise(text)
        for told in self._told:
            # Most names are nowhere: looking for the letters alone takes a fraction of looking for words.
            if not any(name in plain and is_named(plain, [name]) for name in told.names):
                continue
            for fact, questions in told.facts:
                if is_named(plain, (fact.object, *fact.aliases)) or any(asked in plain for asked in questions):
                    return fact
        return None


def _of_table(table: Any, words: Any) -> Iterable[_Told]:
    for number, subject in enumerate(table.subjects):
        facts = list(table.about(number))
        mention = table.wordings.said.mentions.get(subject, subject)
        names = dict.fromkeys(map(normalise, (subject, mention, *table.subject_aliases.get(number, ()))))
        parts = ("trained", "held-out")
        asked = [[normalise(q) for part in parts for q in words.questions(f.relation, subject, part)] for f in facts]
        yield _Told(list(names), list(zip(facts, asked, strict=True)))


def _of_documents(table: DocumentTable, words: Any) -> Iterable[_Told]:
    for fact in table:
        known = words.known[fact.subject, fact.relation]
        yield _Told([normalise(text) for text in (known.own, known.other, *known.questions)], [(fact, [])])
