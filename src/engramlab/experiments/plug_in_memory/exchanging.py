"""Documents exchanged: some subjects get one that states another value; who says what then?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.facts import Query
from engramlab.base.random_access import draw, key, permute
from engramlab.corpora.datasets import Dataset
from engramlab.corpora.layout import holes_of
from engramlab.experiments.plug_in_memory import asking
from engramlab.experiments.plug_in_memory.asking import Answers, Asked

if TYPE_CHECKING:
    from engramlab.experiments.plug_in_memory.shared import Run
    from engramlab.experiments.plug_in_memory.work import Texts


@dataclass(frozen=True)
class Exchange:
    """Which values change.

    Attributes:
        subjects, attributes: int64 ``[n]``.
        values: the new ones, each another subject's.
    """

    subjects: np.ndarray
    attributes: np.ndarray
    values: tuple[str, ...]

    @classmethod
    def drawn(cls, data: Dataset, members: np.ndarray, count: int, seed: int) -> Exchange:
        """One attribute of each of ``count`` of the members (or of all, where they are fewer); one with a single value is
        passed over."""
        population, start = data.corpus.population, data.corpus.subjects.start
        holes = holes_of(population)
        order = permute(key(seed, "exchanged"), np.arange(len(members)), len(members))
        found: list[tuple[int, int, str]] = []
        for subject in members[order].tolist():
            if len(found) == count:
                break
            there = np.arange(len(population.attributes)) if holes is None else np.flatnonzero(~holes[subject + start])
            a = int(there[draw(key(seed, "exchanged attribute"), [subject], len(there))[0]])
            tries = draw(key(seed, "exchanged value", subject), np.arange(100), len(data.corpus.subjects))
            own = population.value(subject + start, a)
            others = (population.value(int(other) + start, a) for other in tries)
            value = next((one for one in others if one and one != own), None)
            if value is not None:
                found.append((subject, a, value))
        subjects, attributes, values = zip(*found, strict=True) if found else ((), (), ())
        return cls(np.array(subjects, np.int64), np.array(attributes, np.int64), tuple(values))


def exchange(model: Any, run: Run, texts: Texts, made: Exchange, everybody: Asked, before: Answers) -> dict[str, Any]:
    """Exchanges the documents, asks everybody, and puts them back.

    Returns:
        ``new``: how often the new value is named, ``old``: the old one still; ``same``: how often everybody else answers as
        before; ``own``: how often those whose document changed answer the rest as before; with intervals over subjects.
    """
    data, memory, embedding, seed = texts.data, model.memory, model.get_input_embeddings(), run.config.seed
    number = {subject: i for i, subject in enumerate(texts.known.tolist())}
    attributes = data.corpus.attributes
    new = []
    for subject, a, value in zip(made.subjects.tolist(), made.attributes.tolist(), made.values, strict=True):
        passage = data.corpus.passage(int(texts.document[subject]))
        text = passage.text
        for span in sorted(passage.spans, key=lambda s: -s.start):
            if span.kind == "object" and span.relation == attributes[a]:
                text = text[: span.start] + value + text[span.end :]
        memory.swap(number[subject], run.tokenizer(text, add_special_tokens=False)["input_ids"], embedding)
        new.append(text)
    after = asking.ask(model, everybody)
    changed = np.zeros(len(everybody.subject), dtype=bool)
    for subject, a in zip(made.subjects, made.attributes, strict=True):
        changed |= (everybody.subject == subject) & (everybody.attribute == a)
    theirs = np.isin(everybody.subject, made.subjects)
    # The question of a changed fact, asked for the new value: it may have more or fewer tokens than the old.
    of = {(int(s), int(a)): v for s, a, v in zip(made.subjects, made.attributes, made.values, strict=True)}
    at = np.flatnonzero(changed)
    queries = [
        Query(everybody.encoded.queries[i].prompt, of[int(everybody.subject[i]), int(everybody.attribute[i])])
        for i in at
    ]
    about = everybody.subject[at], everybody.attribute[at], everybody.group[at], everybody.names
    named = asking.ask(model, Asked(asking.encoded(run.tokenizer, queries, run.masked), *about))
    same = asking.alike(before, after)
    for subject, document in zip(made.subjects.tolist(), texts.documents(made.subjects), strict=True):
        memory.swap(number[subject], document, embedding)
    found: dict[str, Any] = {"change": "documents exchanged", "documents": len(made.subjects)}
    for name, values, chosen in (
        ("new", named.right, np.arange(len(at))),
        ("old", after.right[at], np.arange(len(at))),
        ("same", same[~theirs], np.flatnonzero(~theirs)),
        ("own", same[theirs & ~changed], np.flatnonzero(theirs & ~changed)),
    ):
        subject = about[0] if name in ("new", "old") else everybody.subject[chosen]
        found |= bootstrap.ranged(values, subject, seed, name) if len(values) else {}
    found["right_before"] = float(before.right[at].mean()) if len(at) else None
    texts_of = [data.corpus.passage(int(texts.document[s])).text for s in made.subjects[:3]]
    return found | {"examples": [{"before": a, "after": b} for a, b in zip(texts_of, new[:3], strict=True)]}
