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
from typing import Any

from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, core, within, words_of
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
    for number in range(len(table.subjects)):
        yield tuple(_names(table, number))


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
