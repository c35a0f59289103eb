"""Questions with their passages, from facts, from documents searched, or from a file; and the texts of a model from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from engramlab.base.errors import UserError
from engramlab.base.likeness import Bm25Index, WordIndex
from engramlab.base.random_access import key, permute
from engramlab.core.forward.retrieval import FaissIndex, VectorIndex, mean_states, read_vectors
from engramlab.core.text.passages import Asked
from engramlab.corpora.facts import FactTable
from engramlab.corpora.people import People
from engramlab.experiments.retrieval_tokens.config import Config
from engramlab.files.documents import documents
from engramlab.reading.contexts import spring


@dataclass(frozen=True)
class Data:
    """What is read and asked.

    Attributes:
        asked: every question; passages are empty where they are yet to be searched for.
        subjects: those trained, and those asked.
        documents: what is searched.
        entries: of a model from scratch, two texts about each person.
        vectors: of the user's: documents', and questions' in the order of ``asked``.
    """

    name: str
    asked: list[Asked]
    subjects: tuple[set[str], set[str]]
    documents: list[str] = field(default_factory=list)
    entries: list[tuple[str, str]] = field(default_factory=list)
    vectors: tuple[torch.Tensor, torch.Tensor] | None = None


def made(config: Config) -> Data:
    """The questions of a run. Raises UserError for files that cannot be asked, or subjects that cannot be split."""
    entries: list[tuple[str, str]] = []
    if config.records is not None:
        name, asked = str(config.records), spring.read(config.records)
        asked = [replace(one, passages=one.passages[: config.most]) for one in asked]
    elif config.scratch:
        people = People(config.people + config.subjects, config.seed)
        facts = partial(FactTable.read, relations=config.attributes)
        table = facts(FactTable.of_population(people, range(config.subjects)))
        name, asked = "people", of_facts(config, table)
        others = facts(FactTable.of_population(people, range(config.subjects, len(people))))
        read = others.passages(paraphrases=1, seed=config.seed)
        entries = [(one.text, (*one.paraphrases, one.text)[0]) for one in read]
    else:
        table = config.fact_table() or FactTable.read("countries", relations=config.attributes)
        name, asked = table.name, of_facts(config, table)
    names = list(dict.fromkeys(one.subject for one in asked))
    order = permute(key(config.seed, "subjects"), np.arange(len(names)), len(names))
    cut = round(config.train_share * len(names))
    if not 0 < cut < len(names):
        raise UserError(
            f"train_share: of {len(names)} subjects {cut} would be trained; leave some to train and some to ask"
        )
    subjects = {names[i] for i in order[:cut]}, {names[i] for i in order[cut:]}
    searched = list(documents(config.documents)) if config.documents is not None else []
    if config.documents is not None and not searched:
        raise UserError(f"documents {config.documents}: hold no text; give files with passages")
    vectors = None
    if config.vectors is not None and config.question_vectors is not None:
        there = read_vectors(config.vectors, count=len(searched))
        vectors = there, read_vectors(config.question_vectors, count=len(asked), width=there.shape[1])
    if config.retrieval in ("bm25", "faiss"):  # are the packages there?
        Bm25Index(["a"]) if config.retrieval == "bm25" else FaissIndex(torch.ones(1, 1))
    return Data(name, asked, subjects, searched, entries, vectors)


def of_facts(config: Config, table: FactTable) -> list[Asked]:
    """A question a fact, with a passage that states all facts of its subject, and those of others drawn by the seed."""
    stated = {one.id: one.text for one in table.passages(paraphrases=0, seed=config.seed)}
    names, found = list(stated), []
    for fact in table:
        passages: tuple[str, ...] = ()
        if config.documents is None:
            drawn = permute(key(config.seed, "others", fact.subject, fact.relation), np.arange(len(names)), len(names))
            others = [names[i] for i in drawn[: config.most] if names[i] != fact.subject]
            passages = (stated[fact.subject], *(stated[name] for name in others[: config.most - 1]))
        question = table.wordings.plain(fact.relation, fact.subject)
        found.append(Asked(question, passages, (fact.object, *fact.aliases), fact.subject))
    return found


def searched(config: Config, data: Data, model: Any, tokenizer: Any) -> list[Asked]:
    """The questions with the passages that are found for them, the likest first."""
    if not data.documents:
        return data.asked
    texts, questions = data.documents, [one.question for one in data.asked]
    count = min(config.most, len(texts))
    places: Sequence[Sequence[int]]
    if config.retrieval in ("words", "bm25"):
        index: WordIndex | Bm25Index = WordIndex(texts) if config.retrieval == "words" else Bm25Index(texts)
        places = [index.nearest(question, count) for question in questions]
    else:
        there, asked = data.vectors or (mean_states(model, tokenizer, texts), mean_states(model, tokenizer, questions))
        kind = FaissIndex if config.retrieval == "faiss" else VectorIndex
        places = kind(there).nearest(asked, count)[0].tolist()
    return [replace(one, passages=tuple(texts[i] for i in of)) for one, of in zip(data.asked, places, strict=True)]


def chosen(config: Config, data: Data, asked: Sequence[Asked], part: int) -> list[Asked]:
    """The questions trained (part 0) or asked (part 1), as many as are wanted, in an order of the seed."""
    of = [one for one in asked if one.subject in data.subjects[part]]
    most = config.limit if part else config.trained
    order = permute(key(config.seed, "questions", part), np.arange(len(of)), len(of))
    return [of[i] for i in order[:most]]


def count_trained(config: Config, data: Data) -> int:
    """How many questions are trained."""
    return len(chosen(config, data, data.asked, 0))
