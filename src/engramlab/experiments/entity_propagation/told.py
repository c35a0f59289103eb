"""The entities of a run: a definition, how it is told, and the probes that say what became of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.base.random_access import key, permute
from engramlab.corpora.fictional import Fictional
from engramlab.editing import benchmarks
from engramlab.editing.benchmarks import world
from engramlab.editing.requests import of_passage
from engramlab.experiments.entity_propagation.config import Config

_MADE = 20  # entities of `fictional`, where no limit says otherwise


@dataclass(frozen=True)
class Probe:
    """A question about an entity: its answer, and what else might be answered.

    Attributes:
        kind: a depth of ``fictional``, or "probe".
        overlap: the share of the words of prompt and answer that stand in the definition.
    """

    kind: str
    query: Query
    options: tuple[str, ...]
    overlap: float


@dataclass(frozen=True)
class Told:
    """An entity.

    Attributes:
        passage: its definition as an edit, read whole.
        fact: what the definition says first about it, as an edit, for methods that write one fact.
    """

    id: str
    definition: str
    passage: Edit
    fact: Edit
    probes: tuple[Probe, ...]


def told_of(config: Config) -> dict[str, list[Told]]:
    """The entities of each source; raises UserError for what cannot be used."""
    found = {}
    for file in config.files:
        found[file] = _fictional(config) if file == "fictional" else _of_file(config, file)
        if len(found[file]) < 2:
            raise UserError(f"{file}: holds one entity; there must be another, whose definition is the control")
    return found


def popular(config: Config) -> list[Query]:
    """Facts about countries, with their true answers."""
    return [case.edits[0].query for case in world.cases(config.seed, config.specificity)] if config.specificity else []


def overlap(definition: str, query: Query) -> float:
    """The share of the words of prompt and answer that stand in the definition (unigram precision, as BLEU-1 counts it)."""
    there = set(_words(definition))
    own = _words(f"{query.prompt} {query.target}")
    return sum(word in there for word in own) / max(len(own), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _told(
    id: str, definition: str, name: str, fact: Edit, probes: Sequence[tuple[str, Query, tuple[str, ...]]]
) -> Told:
    made = tuple(Probe(kind, query, options, overlap(definition, query)) for kind, query, options in probes)
    return Told(id, definition, of_passage(definition, name, id), replace(fact, statement=definition), made)


def _of_file(config: Config, file: str) -> list[Told]:
    loaded = benchmarks.load(file, bad=config.bad, limit=config.limit)
    if loaded.format not in ("entity-inferences", "ecbd"):
        raise UserError(f"{file}: is read as {loaded.format}; give a file of Entity Inferences or ECBD, or fictional")
    return [_of_case(case) for case in loaded.cases]


def _of_case(case: Case) -> Told:
    (fact,) = case.edits
    probes = []
    for query in fact.judges:
        if query.role == "portability":
            rivals = tuple(q.target for q in fact.judges if q.role == "rival" and q.prompt == query.prompt)
            probes.append(("probe", query, rivals))
    return _told(case.id, fact.statement, fact.query.subject, fact, probes)


def _fictional(config: Config) -> list[Told]:
    count = config.limit or _MADE
    corpus = Fictional(max(2 * count, 20), config.seed)
    objects: dict[str, dict[str, None]] = {}
    for entity in range(len(corpus)):
        for known in corpus.facts(entity):
            objects.setdefault(known.relation, {})[known.object] = None
    found = []
    for entity in range(count):
        name, passage = corpus.name(entity), corpus.passage(entity)
        stated = next(span for span in passage.spans if span.kind == "object")  # the opening is about the entity itself
        prompt, target = passage.text[: stated.start].rstrip(), passage.quote(stated)
        fact = Edit(
            Query(prompt, "", id=str(entity), subject=name if name in prompt else name[:1].upper() + name[1:]), target
        )
        probes = []
        for query in corpus.record(entity).queries:
            others = [one for one in objects[query.relation.rpartition("/")[2]] if one != query.target]
            order = permute(key(config.seed, "options", query.id), range(len(others)), len(others)) if others else ()
            probes.append((query.group, query, tuple(others[i] for i in order)[: config.options]))
        found.append(_told(str(entity), passage.text, name, fact, probes))
    return found
