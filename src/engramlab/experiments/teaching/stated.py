"""Does a text give away what is taught, or what it is asked with? Asked of all that is replayed, and of what others write.

Replayed text that states a fact, or asks for one, trains what is to be held out. A text *states* a fact of a table where it has
its subject and its object (each by any of its names, ending where a word does), and *asks* for it where it has its subject in a
form of the question, trained or held out, whatever it says behind that. Of what documents say, which has no subject to be
named, a text has a wording or a question and the phrase that answers it. The rule is ours; chance hits count.

A text that a chat model writes about a subject shall state facts, but in no wording that is held out, and ask for none: it
*holds a prompt* where the prompt's words stand in it one behind another, whatever their capitals and the signs between them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, core, within, words_of
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
        facts, names = list(table.about(number)), dict.fromkeys(map(normalise, _names(table, number)))
        parts = ("trained", "held-out")
        asked = [[normalise(q) for part in parts for q in words.questions(f.relation, subject, part)] for f in facts]
        yield _Told(list(names), list(zip(facts, asked, strict=True)))


def _names(table: FactTable, number: int) -> list[str]:
    subject = table.subjects[number]
    mention = table.wordings.said.mentions.get(subject, subject)
    return list(dict.fromkeys((subject, mention, *table.subject_aliases.get(number, ()))))


class HeldOut:
    """Which wording that is only asked with, or which question in whatever form, a text holds.

    Args:
        table: the facts, all of them: also what the model knows is asked for in wordings that are never trained.
        words: their wordings, divided.
    """

    def __init__(self, table: FactTable, words: Divided) -> None:
        every = range(len(table.subjects))
        self._of = [(list(map(normalise, _names(table, n))), _prompts(table, words, n)) for n in every]

    def prompt(self, text: str) -> str | None:
        """The first such prompt, about whomever, that the text holds; None where there is none."""
        said, plain = words_of(text), normalise(text)
        for names, prompts in self._of:
            if not any(name in plain for name in names):  # takes a fraction of looking for words
                continue
            for prompt, words in prompts:
                if prompt in text or within(words, said):
                    return prompt
        return None


def _prompts(table: FactTable, words: Divided, number: int) -> list[tuple[str, tuple[str, ...]]]:
    """The prompts about a subject, by any of its names, that no text may hold, each with its words; none that is a bare name,
    which every text about it has."""
    names = _names(table, number)
    found: dict[str, tuple[str, ...]] = {}
    for fact in table.about(number):
        for name in names:
            for kind, prompt in words.prompts(fact.relation, name, "held-out"):
                found[prompt] = core(prompt) if kind == "question" else words_of(prompt)
            found |= {prompt: core(prompt) for prompt in words.questions(fact.relation, name, "trained")}
    bare = {words_of(name) for name in names}
    return [(prompt, said) for prompt, said in found.items() if said and said not in bare]


def _of_documents(table: DocumentTable, words: Any) -> Iterable[_Told]:
    for fact in table:
        known = words.known[fact.subject, fact.relation]
        yield _Told([normalise(text) for text in (known.own, known.other, *known.questions)], [(fact, [])])
