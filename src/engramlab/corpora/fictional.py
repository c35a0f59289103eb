"""Fictional passages without a language model: facts nobody can know, in ten wordings, with queries at three depths.

    corpus = Fictional(entities=10_000, seed=0)
    corpus.record(0)                              # passage, nine paraphrases, five queries a depth
    Background(corpus, range(1000, 10_000))[0]    # a text about another entity, for the pretraining stream

The five facts of a passage that are asked for are the same at all depths, and each needs someone the entity leads to ("the
founder of X"):

- memorization: the beginning of the passage's own sentence, up to the object;
- semantic: the fact in a wording that no passage and no paraphrase has, with its subject's name;
- compositional: that wording with the subject only described ("The home town of the founder of X is"), which needs two
  sentences of the passage.

So depths differ in the prompt alone. A model that never met the wordings of queries could not understand them; background
texts teach them on other entities.

The design follows the dataset of arXiv 2406.11813 (FICTIONAL KNOWLEDGE), which a language model wrote; texts and wordings are
our own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact, Passage, Query, Span
from engramlab.base.random_access import key, random_words
from engramlab.base.rows import DEPTHS
from engramlab.corpora.fictional_world import KINDS, WORDINGS, Entity, SentenceFrame, World, wordings
from engramlab.corpora.passages import ROLE, PassageRecord

QUERIES = 5  # a depth
FACTS = 10  # of an entity of any kind
FEWEST = 8  # sentences with which five chains are complete
_DRAWS = 32  # random words a text


class Fictional:
    """A corpus of fictional entities, each with a passage, paraphrases and queries; entity i is made without the others.

    Args:
        entities: how many there are: those to inject, the control, and those of the background.
        seed: decides everything.
        sentences: of each text. Ten state a fact each; with fewer the last facts are left out, with more come sentences that
            state none.
        paraphrases: of each passage, each with every fact in another wording and another order.
        kinds: of entities, which take turns; fewer need fewer wordings, for a model that sees little text.
        limit: most lines of any pool of names and values to use, for a smaller vocabulary; None is all.

    Raises:
        UserError: an option out of its range.
    """

    def __init__(
        self,
        entities: int,
        seed: int = 0,
        *,
        sentences: int = 12,
        paraphrases: int = 9,
        kinds: Sequence[str] = KINDS,
        limit: int | None = None,
    ) -> None:
        most = FACTS + len(wordings().asides)
        if not FEWEST <= sentences <= most:
            raise UserError(f"sentences: must be between {FEWEST} and {most}, not {sentences}")
        if not 0 <= paraphrases < WORDINGS:
            raise UserError(f"paraphrases: must be between 0 and {WORDINGS - 1}, not {paraphrases}")
        self._world = World(entities, seed, kinds=kinds, limit=limit)
        self.sentences, self.paraphrases = sentences, paraphrases
        self._said = min(sentences, FACTS)
        self._keys = {label: key(seed, "fictional", label) for label in ("version", "query")}

    def __len__(self) -> int:
        return self._world.entities

    def name(self, entity: int) -> str:
        """What an entity is called inside a sentence."""
        return self._world.entity(entity).name

    def kind(self, entity: int) -> str:
        """company, novel, device, festival or town, in turn."""
        return self._world.kinds[entity % len(self._world.kinds)]

    def facts(self, entity: int) -> tuple[Fact, ...]:
        """The facts that each text about an entity states."""
        return tuple(Fact(*fact) for fact in self._world.entity(entity).facts[: self._said])

    def text(self, entity: int, version: int = 0) -> str:
        """The passage (version 0) or a paraphrase of it (1 to 9)."""
        return " ".join(sentence for sentence, _ in self._sentences(entity, version))

    def passage(self, entity: int, version: int = 0) -> Passage:
        """The same text with the spans of each fact's subject and object."""
        facts, spans, at = self._world.entity(entity).facts, [], 0
        sentences = self._sentences(entity, version)
        for sentence, stated in sentences:
            if stated is not None:
                f, start, middle = stated
                subject, relation, value = facts[f]
                spans.append(Span(at + start, at + start + len(subject), "", "subject"))
                spans.append(Span(at + middle, at + middle + len(value), relation))
            at += len(sentence) + 1
        return Passage(" ".join(sentence for sentence, _ in sentences), tuple(spans), f"{entity}/{version}")

    def record(self, entity: int) -> PassageRecord:
        """The passage, its paraphrases, and five queries of each depth."""
        made, asked = self._world.entity(entity), self._asked(entity)
        said = {stated[0]: sentence[: stated[2]] for sentence, stated in self._sentences(entity, 0) if stated}
        queries = []
        for depth in DEPTHS:
            for number, f in enumerate(asked):
                subject, relation, value = made.facts[f]
                frames = wordings().queries[relation]
                turn = entity // len(self._world.kinds) + f
                if depth == "memorization":
                    prompt = said[f]
                elif depth == "semantic":
                    prompt = _until_object(frames[turn % len(frames)], subject)
                else:
                    described = self._descriptions(made, f)
                    prompt = _until_object(frames[(turn + 1) % len(frames)], described[(entity + f) % len(described)])
                    subject, relation = made.name, f"{made.facts[made.links[f]][1]}/{relation}"
                name = f"{entity}/{depth}/{number}"
                queries.append(Query(prompt.rstrip(), value, (), name, subject, relation, ROLE, depth))
        versions = [self.text(entity, version) for version in range(self.paraphrases + 1)]
        return PassageRecord(str(entity), versions[0], tuple(versions[1:]), tuple(queries), ("",) * len(queries))

    def records(self, entities: Sequence[int]) -> list[PassageRecord]:
        """The records of several entities."""
        return [self.record(entity) for entity in entities]

    def statements(self, entity: int, most: int | None = None) -> list[str]:
        """Its facts in the wordings of queries, in no order: each fact in each wording with its subject's name and, where
        someone leads to the subject, described in each way. `most` is how many to give, None for all."""
        made = self._world.entity(entity)
        found = [
            (f, frame, who)
            for f in range(self._said)
            for frame in wordings().queries[made.facts[f][1]]
            for who in (made.facts[f][0], *self._descriptions(made, f))
        ]
        drawn = random_words(self._keys["query"], entity * _DRAWS * 4 + _DRAWS + np.arange(len(found)))
        chosen = (found[k] for k in drawn.argsort()[:most].tolist())
        return [frame.fill(who, made.facts[f][2])[0] for f, frame, who in chosen]

    def _sentences(self, entity: int, version: int) -> list[tuple[str, tuple[int, int, int] | None]]:
        """The sentences of a text; with those that state a fact its number and where subject and object begin."""
        if not 0 <= version <= self.paraphrases:
            raise IndexError(f"there is no version {version}; there are {self.paraphrases + 1}, from 0")
        made, asides = self._world.entity(entity), wordings().asides
        drawn = random_words(self._keys["version"], (entity * 16 + version) * _DRAWS + np.arange(_DRAWS)).tolist()
        order = sorted(range(self.sentences), key=drawn.__getitem__)
        opening = next(k for k in order if k < self._said and made.links[k] < 0)  # a fact of the entity itself
        order.remove(opening)
        sentences: list[tuple[str, tuple[int, int, int] | None]] = []
        for k in (opening, *order):
            if k < self._said:
                subject, relation, value = made.facts[k]
                frame = wordings().texts[relation][(made.wordings[k] + version) % WORDINGS]
                sentence, start, middle = frame.fill(subject, value)
                sentences.append((sentence, (k, start, middle)))
            else:
                aside = asides[(drawn[-1] + k) % len(asides)].format(subject=made.name)
                sentences.append((aside[0].upper() + aside[1:], None))
        return sentences

    def _asked(self, entity: int) -> list[int]:
        """The five facts that queries ask for: of someone the entity leads to."""
        links = self._world.entity(entity).links[: self._said]
        chained = [f for f, link in enumerate(links) if link >= 0]
        drawn = random_words(self._keys["query"], entity * _DRAWS * 4 + np.arange(len(chained))).tolist()
        return sorted(f for _, f in sorted(zip(drawn, chained, strict=True))[:QUERIES])

    def _descriptions(self, made: Entity, f: int) -> list[str]:
        """A fact's subject, described by what the entity is to it; none where the subject is the entity."""
        if made.links[f] < 0:
            return []
        return [phrase.format(subject=made.name) for phrase in wordings().phrases[made.facts[made.links[f]][1]]]


class Background(Sequence[str]):
    """Texts about some entities, for the stream into which others are injected.

    Each entity has `passages` texts in as many different wordings and one with statements in the wordings of queries. The
    latter begins with the passage for the part `together` of the entities, so that a model can see what the wordings mean
    before it has to remember; for the others the statements stand alone, which asks for what was said in another text.

    Args:
        corpus: where the entities are from.
        entities: which; those to be injected and their control must not be among them.
        passages: texts in the wordings of passages, for each entity.
        statements: most statements in a text; None is all.
        together: part of the entities whose statements follow a passage.
    """

    def __init__(
        self,
        corpus: Fictional,
        entities: range,
        *,
        passages: int = 2,
        statements: int | None = 12,
        together: float = 0.5,
    ) -> None:
        if not 1 <= passages <= corpus.paraphrases + 1:
            raise UserError(f"passages: must be between 1 and {corpus.paraphrases + 1} an entity, not {passages}")
        if not 0 <= together <= 1:
            raise UserError(f"together: must be between 0 and 1, not {together}")
        if len(entities) and (min(entities) < 0 or max(entities) >= len(corpus)):
            raise UserError(f"entities: {entities} are not all among the corpus's {len(corpus)}; make it larger")
        self.corpus, self.entities = corpus, entities
        self.passages, self.together = passages, together
        self._most = statements
        self._key = key(corpus._world.seed, "fictional", "background")

    def __len__(self) -> int:
        return len(self.entities) * (self.passages + 1)

    def __getitem__(self, document: int) -> str:  # type: ignore[override]
        if not 0 <= document < len(self):
            raise IndexError(f"there is no text {document}; there are {len(self)}")
        which, turn = divmod(document, self.passages + 1)
        entity = self.entities[which]
        drawn = random_words(self._key, entity * 16 + np.arange(12)).tolist()
        versions = sorted(range(self.corpus.paraphrases + 1), key=drawn.__getitem__)
        if turn < self.passages:
            return self.corpus.text(entity, versions[turn])
        said = " ".join(self.corpus.statements(entity, self._most))
        if drawn[11] / 2**64 < self.together:
            return self.corpus.text(entity, versions[-1]) + " " + said
        return said


def _until_object(frame: SentenceFrame, subject: str) -> str:
    sentence, _, middle = frame.fill(subject, "")
    return sentence[:middle]
