"""Documents with identifiers, and questions about what each states: what a model is to name as its source.

Made of bioS people, or a user's. A document of ours is about two to four people, a sentence a fact; nobody is in two of them.

Source: Source-Aware Training Enables Knowledge Attribution in LMs (arXiv 2404.01019) and its data BioCite, whose documents are
about two to four people and carry three letters of each last name as their identifier; random identifiers are ours, since
those can be guessed from the question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from engramlab.base.random_access import draw, key, permute
from engramlab.corpora.people import QUESTIONS, Pools
from engramlab.corpora.sources import bios

IdKind = Literal["random", "names"]
#: Letters of random identifiers, each a token of its own.
LETTERS = "abcdefghijkmnopqrstuvwxy"


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """A question that a document answers; ``subject`` is whom it is about, where that is known."""

    text: str
    answer: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its identifier, its sentences, and questions that it answers.

    ``in_domain``: are some of its questions to be trained? None: the run draws that.
    """

    id: str
    sentences: tuple[str, ...]
    questions: tuple[DocumentQuestion, ...] = ()
    in_domain: bool | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(self.sentences)

    def copy(self, number: int, seed: int) -> Document:
        """Its sentences in another order, the same for the same number; 0 is the document itself."""
        if not number:
            return self
        order = permute(key(seed, "copy", self.id, number), np.arange(len(self.sentences)), len(self.sentences))
        return replace(self, sentences=tuple(self.sentences[i] for i in order))

    def rest(self, question: DocumentQuestion) -> str:
        """What stands in it behind the answer to a question; "" where the answer is not in it."""
        for at, sentence in enumerate(self.sentences):
            if question.answer in sentence and question.subject in sentence:
                behind = sentence.partition(question.answer)[2]
                return " ".join([behind.strip(), *self.sentences[at + 1 :]]).strip()
        return ""


def of_people(
    documents: int,
    seed: int,
    *,
    people: tuple[int, int] = (2, 4),
    facts: int = 2,
    ids: IdKind = "random",
    pools: Pools | None = None,
    templates: int | None = None,
) -> list[Document]:
    """Documents about bioS people, the same for the same arguments.

    Args:
        people: fewest and most people of a document.
        facts: of each person: so many of the six attributes, drawn for each.
        ids: ``random``, of letters drawn; ``names``, three letters of each last name, as in BioCite.
        templates: only the first so many wordings of an attribute.
    """
    low, high = people
    counts = low + draw(key(seed, "people"), np.arange(documents), high - low + 1)
    ends = np.cumsum(counts)
    config = bios.Config(people=int(ends[-1]), seed=seed, pools=pools or Pools(), first_templates=templates)
    corpus = bios.bios(config, "single+fullname")
    names = random_ids(documents, seed)
    found: list[Document] = []
    taken: set[str] = set()
    for number, (count, end) in enumerate(zip(counts.tolist(), ends.tolist(), strict=True)):
        about = [_stated(corpus, person, facts, seed) for person in range(end - count, end)]
        name = names[number]
        if ids == "names":
            name = "-".join(questions[0].subject.split()[-1][:3].lower() for _, questions in about)
            while name in taken:
                name += "-x"
        taken.add(name)
        sentences = [s for listed, _ in about for s in listed]
        found.append(Document(name, tuple(sentences), tuple(q for _, listed in about for q in listed)))
    return found


def _stated(corpus: bios.BiosCorpus, person: int, facts: int, seed: int) -> tuple[list[str], list[DocumentQuestion]]:
    """Some of what an entry says of a person: sentences, and the question each answers."""
    passage = corpus.passage(person)
    starts = [span.start for span in passage.spans if span.kind == "subject"]
    stops = [*starts[1:], len(passage.text)]
    objects = [span for span in passage.spans if span.kind == "object"]
    kept = np.sort(permute(key(seed, "facts", person), np.arange(facts), len(objects))).tolist()
    name = corpus.population.name(person)
    sentences = [passage.text[starts[k] : stops[k]].strip() for k in kept]
    questions = [
        DocumentQuestion(
            QUESTIONS[objects[k].relation].format(subject=name).removesuffix(" Answer:"),
            passage.quote(objects[k]),
            name,
        )
        for k in kept
    ]
    return sentences, questions


def random_ids(count: int, seed: int) -> list[str]:
    """Different identifiers of letters drawn by the seed, no longer than needed but at least two."""
    long = 2
    while len(LETTERS) ** long < count:
        long += 1
    numbers = permute(key(seed, "identifiers"), np.arange(count), len(LETTERS) ** long)
    return ["".join(LETTERS[n // len(LETTERS) ** k % len(LETTERS)] for k in range(long)) for n in numbers.tolist()]


def to_json(document: Document) -> dict[str, Any]:
    """A document as a record in the form of BioCite; ``reading.attributed`` makes the same document of it."""
    record: dict[str, Any] = {"text": document.text, "url": document.id}
    record["qa"] = [f"{one.text}\n{one.answer}" for one in document.questions]
    return record if document.in_domain is None else {**record, "metadata": {"in_domain": document.in_domain}}


def to_jsonl(documents: Iterable[Document]) -> str:
    """The text of a file of documents."""
    return "".join(json.dumps(to_json(document), ensure_ascii=False) + "\n" for document in documents)


def guessed(questions: Sequence[DocumentQuestion], ids: Sequence[str]) -> np.ndarray:
    """float64 ``[questions, ids]``: how well each identifier can be guessed from the question alone: how many of its pieces of
    three letters or more begin a word there (of the subject's name, where that is known)."""
    holders: dict[str, list[int]] = {}
    for i, one in enumerate(ids):
        for piece in re.split(r"[\W_]+", one.casefold()):
            if len(piece) >= 3:
                holders.setdefault(piece, []).append(i)
    found = np.zeros((len(questions), len(ids)))
    for row, question in zip(found, questions, strict=True):
        words = {word.casefold() for word in re.findall(r"\w+", question.subject or question.text)}
        for begin in {word[:k] for word in words for k in range(3, len(word) + 1)}:
            for i in holders.get(begin, ()):
                row[i] += 1
    return found
