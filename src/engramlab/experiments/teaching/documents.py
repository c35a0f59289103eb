"""Documents in place of a table: passages as subjects, what they say as facts, wordings by a chat model or plainly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts.teaching import only, words_of
from engramlab.files.documents import documents
from engramlab.writing.lessons import Known, Lesson, passages_of

_LONGEST = 20_000  # passages read


@dataclass(frozen=True)
class DocumentWords:
    """How what passages say is asked for; stands where a table's divided wordings do."""

    known: Mapping[tuple[str, str], Known]

    @property
    def trained(self) -> DocumentWords:
        """Itself."""
        return self

    def plain(self, relation: str, subject: str) -> str:
        """The question for the chat, none of those that are trained."""
        one = self.known[subject, relation]
        return one.questions[1] if one.questions else one.other

    def prompts(self, relation: str, subject: str, part: str) -> list[tuple[str, str]]:
        """As of a table: its own sentence and the first question are trained, the other wording and question never."""
        one = self.known[subject, relation]
        said = [("statement", one.own if part == "trained" else one.other)]
        return [*said, *(("question", text) for text in self.questions(relation, subject, part))]

    def questions(self, relation: str, subject: str, part: str) -> list[str]:
        """The forms of the question of one part."""
        asked = self.known[subject, relation].questions
        if not asked:
            return []
        if part == "trained":
            return [f"{asked[0]} Answer:", f"Question: {asked[0]}\nAnswer:"]
        return [f"Q: {asked[1]}\nA:"]


@dataclass(frozen=True)
class DocumentTable:
    """What passages say, as far as a lesson was made of it; stands where a table of facts does.

    Attributes:
        lessons: by subject, which is what a passage is called.
        kept: facts that are in it (subject, relation); None for all.
    """

    name: str
    lessons: Mapping[str, Lesson]
    kept: frozenset[tuple[str, str]] | None = None

    def __iter__(self) -> Iterator[Fact]:
        for subject, lesson in self.lessons.items():
            for k, one in enumerate(lesson.known):
                if self.kept is None or (subject, f"fact {k + 1}") in self.kept:
                    yield Fact(subject, f"fact {k + 1}", one.target)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @cached_property
    def subjects(self) -> list[str]:
        """The passages with a fact."""
        return list(dict.fromkeys(fact.subject for fact in self))

    @property
    def relations(self) -> list[str]:
        """ "fact 1" and so on, as many as a passage has at most."""
        return list(dict.fromkeys(fact.relation for fact in self))

    def choices(self) -> dict[str, Sequence[str]]:
        """None: what passages say has no other objects."""
        return {}

    def only(self, facts: Iterable[Fact]) -> DocumentTable:
        """The same with these facts alone."""
        return replace(self, kept=frozenset((fact.subject, fact.relation) for fact in facts))

    def words(self) -> DocumentWords:
        """Its wordings."""
        known = {(s, f"fact {k + 1}"): one for s, lesson in self.lessons.items() for k, one in enumerate(lesson.known)}
        return DocumentWords(known)

    def texts(self, single: bool) -> list[str]:
        """The texts about its subjects: each passage, and unless ``single`` its rewrites."""
        every = [self.lessons[subject] for subject in self.subjects]
        return [text for one in every for text in (one.text, *(() if single else one.rewrites))]


def some_of(table: Any, facts: Iterable[Fact], words: Any = None) -> Any:
    """A table with these of its facts alone, in other wordings if given."""
    if isinstance(table, DocumentTable):
        return table.only(facts)
    return only(table, facts, words)


def read(source: Path, column: str) -> tuple[dict[str, str], int]:
    """The passages of documents, by what they are called, and how many others say the same as one of them, word for word.

    Raises:
        UserError: there is none.
    """
    found: dict[str, str] = {}
    said: set[tuple[str, ...]] = set()
    repeated = 0
    for number, text in enumerate(documents(str(source), column), 1):
        for k, passage in enumerate(passages_of(text), 1):
            if (words := words_of(passage)) in said:
                repeated += 1
                continue
            said.add(words)
            found[f"passage {k} of document {number}"] = passage
        if len(found) > _LONGEST:
            break
    if not found:
        raise UserError(f"documents: {source} holds no passage of two sentences or more")
    return found, repeated


def table_of(name: str, passages: Mapping[str, str], lessons: Sequence[Lesson]) -> DocumentTable:
    """The table of lessons about passages; without what could not be held out: a wording or a question that stands in a text or
    a trained question, of this passage or another one."""
    texts = (text for lesson in lessons for text in (lesson.text, *lesson.rewrites))
    asked = (one.questions[0] for lesson in lessons for one in lesson.known if one.questions)
    trained = _standing(
        (words for lesson in lessons for one in lesson.known for words in _held(one)), chain(texts, asked)
    )
    made = {}
    for subject, lesson in zip(passages, lessons, strict=True):
        said = " ".join((lesson.text, *lesson.rewrites))
        known = tuple(
            one
            for one in lesson.known
            if one.other not in said and one.other != one.own and not any(words in trained for words in _held(one))
        )
        made[subject] = replace(lesson, known=known)
    return DocumentTable(name, made)


def _held(one: Known) -> list[tuple[str, ...]]:
    """The words of what is only asked with."""
    return [words for text in (one.other, *one.questions[1:]) if (words := words_of(text))]


_START = 4  # words by which wordings are looked up


def _standing(wanted: Iterable[tuple[str, ...]], texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Which runs of words stand in one of the texts, in time that hardly grows with their number."""
    by_start: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for words in wanted:
        by_start.setdefault(words[:_START], set()).add(words)
    lengths = sorted({len(start) for start in by_start})
    found: set[tuple[str, ...]] = set()
    for text in texts:
        said = words_of(text)
        for k in range(len(said)):
            for n in lengths:
                found.update(words for words in by_start.get(said[k : k + n], ()) if said[k : k + len(words)] == words)
    return found
