"""What a model reads and is measured on: biographies or bioD, alone or beside junk."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.core.text import batches, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.batches import Entries, Order, Stream
from engramlab.core.text.tokens import Sequences
from engramlab.corpora.biod import FIRST, NAME, REST, Biod
from engramlab.corpora.layout import NAME as NAMED
from engramlab.corpora.layout import Population
from engramlab.corpora.people import DAYS, MONTHS, Pools
from engramlab.corpora.sources.bios import BiosCorpus, bios
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.experiments.knowledge_capacity import bits
from engramlab.experiments.knowledge_capacity.config import SPARE, Config
from engramlab.measuring import scoring

_NAME = 120  # the mark of a name's tokens where they are scored; attributes have 1 to 6
_SAMPLED = 4096  # entries whose lengths stand for all
_LOOKED = 1 << 17  # training texts among which those that are measured are looked for
FREE = "work_city"  # what follows from another value, the employer, carries no bits
GENDER = "gender"
DOMAIN = "<|domain|>"


class Led:
    """Entries with a token in front."""

    def __init__(self, entries: Entries, token: int) -> None:
        self.entries, self.token = entries, token

    def __len__(self) -> int:
        return len(self.entries)

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Rows with these numbers."""
        return self.entries.tokens(entries).wrapped([self.token], [])


class Unread:
    """Training entries of which none reads as the one that its person is measured on.

    Entry m of person s is number m * people + s; of the m from ``exposures`` on, the first is measured, and the ``SPARE``
    behind it take the places of those that read as it does, each drawn like any other.

    Args:
        entries: at least ``people * (exposures + 1 + SPARE)`` of them.
        drawn: how entries are written, int ``[n, k]``; two of one person with the same row are one text.
    """

    def __init__(
        self, entries: Entries, people: int, exposures: int, drawn: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.entries, self.people, self.exposures, self.drawn = entries, people, exposures, drawn

    def __len__(self) -> int:
        return self.people * self.exposures

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Rows with these numbers."""
        return self.entries.tokens(self.numbers(entries))

    def numbers(self, entries: np.ndarray) -> np.ndarray:
        """Whose text stands for each of these: int64 ``[n]``."""
        found = np.array(entries, np.int64)
        turn, person = np.divmod(found, self.people)
        alike = self._alike(found, person, np.arange(len(found)))
        for again in range(SPARE):
            if not len(alike):
                break
            spare = self.exposures + 1 + (turn[alike] + again) % SPARE
            found[alike] = spare * self.people + person[alike]
            alike = self._alike(found, person, alike)
        return found

    def _alike(self, found: np.ndarray, person: np.ndarray, among: np.ndarray) -> np.ndarray:
        measured = self.exposures * self.people + person[among]
        same: np.ndarray = (self.drawn(found[among]) == self.drawn(measured)).all(axis=1)
        return among[same]


class Reading:
    """A corpus as a model reads it.

    Attributes:
        tokenizer, end: what a model is built with, and its end token.
        occurring: how many of its tokens texts can have, of whomever they are.
        lengths: int64: tokens of entries that stand for all.
        dataset: the paper's name of it.
    """

    tokenizer: Any
    end: int
    occurring: int
    lengths: np.ndarray
    dataset: str

    def __init__(self, config: Config) -> None:
        self.config = config

    def tables(self, people: int, mixture: str) -> list[Entries]:
        """The entries of so many people and, of a mixture, those of junk."""
        raise NotImplementedError

    def measured(self, people: int, whom: np.ndarray) -> Sequences:
        """The texts about some of the people that losses are taken on, a row a person."""
        raise NotImplementedError

    def trained_on(self, people: int, whom: np.ndarray) -> Sequences:
        """All training texts about some of the people."""
        raise NotImplementedError

    def bits(self, model: nn.Module, people: int, asked: int, mixture: str) -> dict[str, float]:
        """Losses (nats) and bits, of so many of the people; ``loss_…`` and what ``bits.py`` says."""
        raise NotImplementedError

    def read_share(self, people: int, asked: int) -> float:
        """The share of the measured texts that are training texts as well, token by token; of as many people as ``_LOOKED``
        training texts are about. It is 0 wherever a person has more than one text, and what is measured is no copy of one."""
        whom = chosen(people, min(asked, max(1, _LOOKED // self.config.exposures)))
        rows = self.trained_on(people, whom)
        known = {rows.row(i).tobytes() for i in range(len(rows))}
        rows = self.measured(people, whom)
        return float(np.mean([rows.row(i).tobytes() in known for i in range(len(rows))]))

    def stream(self, people: int, mixture: str) -> Stream:
        """Endless batches; of a mixture, rows come from junk as often as its share says."""
        config, streams = self.config, []
        for label, table in zip(("entries", "junk"), self.tables(people, mixture), strict=False):
            order = Order(len(table), random_key(config.seed, label))
            streams.append(
                batches.laid_out(config.layout, table, order, start=[self.end], end=self.end, length=config.context)
            )
        if len(streams) == 1:
            return streams[0]
        seed = random_key(config.seed, "mixture")
        return batches.Mixed(*streams, ratio=config.junk_share, end=self.end, seed=seed)

    def steps(self, people: int, mixture: str, batch: int) -> int:
        """Optimizer steps that read about each of so many people as often as asked."""
        rows: float = people * self.config.exposures
        if self.config.layout == "packed":
            rows *= (float(self.lengths.mean()) + mixture.endswith("+domain") + 1) / self.config.context
        if mixture != "alone":
            rows /= 1 - self.config.junk_share
        return max(1, math.ceil(rows / batch - 1e-9))

    def check_context(self) -> None:
        """Raises UserError where an entry does not fit."""
        longest = int(self.lengths.max()) + 3
        if longest > self.config.context:
            raise UserError(f"context: {self.config.context} tokens are fewer than an entry has ({longest}); raise it")


def facts(population: Population, tokenizer: Any, pools: Pools) -> bits.Biographies:
    """The sizes of the pools, and by attribute, and for names, the loss of a guesser who knows nothing else."""

    def rows(pieces: np.ndarray) -> list[tuple[int, ...]]:
        texts = ["".join(population.pieces[p] for p in row) for row in pieces.tolist()]
        return [tuple(ids) for ids in tokens.encode(tokenizer, texts)[0]]

    # Of a name and a date, only the last word can begin another; words before it are told apart by the space behind.
    last = np.unique(population.name_examples()[:, -1])[:, None]
    found = {"name": math.log(pools.first_names * pools.middle_names) + bits.guess(rows(last))}
    sizes = {GENDER: len(population.pronouns)}
    found[GENDER] = math.log(sizes[GENDER])
    for a, attribute in enumerate(population.attributes):
        if attribute == "birth_date":
            sizes[attribute] = pools.birth_years * len(MONTHS) * DAYS
            found[attribute] = math.log(sizes[attribute])
        elif attribute != FREE:
            values = rows(population.value_examples(a))
            sizes[attribute], found[attribute] = len(values), bits.guess(values)
    return bits.Biographies(pools.first_names * pools.middle_names * pools.last_names, sizes, found)


def occurring(tokenizer: Any, texts: Iterable[str]) -> int:
    """How many different tokens texts have, with the end token and that of a domain where the tokenizer has it."""
    found = {tokens.end_token(tokenizer), *(ids for ids in [tokenizer.get_vocab().get(DOMAIN)] if ids is not None)}
    for text in texts:
        found.update(tokens.encode(tokenizer, [text])[0][0])
    return len(found)


def by_mention(
    model: nn.Module, rows: Sequences, start: list[int], attributes: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Loss of the first mention of each row's name, and of its values, by attribute and "name": nats, float64 ``[rows]``."""
    named = np.flatnonzero(rows.marks == NAMED)
    row = np.repeat(np.arange(len(rows)), rows.lengths)[named]
    mention = np.cumsum(np.diff(named, prepend=-2) > 1) + row  # tokens of one mention follow each other
    first = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(first, row, mention)
    marks = np.where(rows.marks < 0, 0, np.where(rows.marks == tokens.GAP, 0, rows.marks)).astype(np.int8)
    marks[named[mention == first[row]]] = _NAME
    sums = _by_mark(model, Sequences(rows.ids, rows.offsets, marks).wrapped(start, []))
    values = {name: sums[:, a + 1] for a, name in enumerate(attributes)}
    city, employer = (attributes.index(name) + 1 for name in (FREE, "employer"))
    values["employer"] = values["employer"] + np.where(_before(rows, city, employer), values[FREE], 0.0)
    return {**values, "name": sums[:, _NAME]}


def chosen(people: int, asked: int) -> np.ndarray:
    """People who are measured, spread over all."""
    return np.unique(np.linspace(0, people - 1, min(asked, people)).astype(np.int64))


class Biographies(Reading):
    """bioS; bioS^simple where every text about a person is the same; or, between them, rewordings in a fixed order (ours)."""

    def __init__(self, config: Config, tokenizer: Callable[[Callable[[], Iterator[str]]], Any]) -> None:
        super().__init__(config)
        # The pieces of a corpus do not depend on how many people it has: one tokenizer serves all.
        largest = self.corpus(max(config.people))
        self.tokenizer = tokenizer(lambda: _shown(largest))
        if any(mixture.endswith("+domain") for mixture in config.mixtures):
            self.tokenizer.add_special_tokens({"additional_special_tokens": [DOMAIN]})
        self.end = tokens.end_token(self.tokenizer)
        self.occurring = occurring(self.tokenizer, _shown(largest))
        self.facts = facts(largest.population, self.tokenizer, config.pools)
        table = TokenTable(largest, self.tokenizer)
        sample = np.unique(np.linspace(0, len(table) - 1, _SAMPLED).astype(np.int64))
        self.lengths = table.tokens(sample).lengths
        self.fixed = config.texts == "once" or (config.first_templates == 1 and not config.permute)
        self.dataset = "bioS^simple" if self.fixed else "bioS" if config.permute else "bioS, order fixed"
        for people in config.people:
            for mixture in config.mixtures:
                self.corpus(people, mixture)

    def corpus(self, people: int, mixture: str = "alone", *, exposures: int | None = None) -> BiosCorpus:
        """Entries about so many people, the same in every mixture, and about those of junk as the second group."""
        config, exposures = self.config, exposures or self.config.exposures
        once, permute = config.texts == "once", "+permute" if config.permute else ""
        variant = "single" if once else f"multi{exposures}{permute}"
        more: dict[str, Any] = {}
        if mixture.startswith("repeated"):
            more = {"celebrities": config.repeated_people, "celebrity_entries": variant}
        elif mixture != "alone":
            pools = config.pools
            left = pools.first_names * pools.middle_names * pools.last_names - people
            more = {
                "celebrities": min(left, config.junk_people),
                "celebrity_entries": "single" if once else f"multi1{permute}",
            }
            if left < 1:
                raise UserError(f"people: with {people} people no name is left for junk; use more of the pools")
        made = BiosConfig(config.seed, people, pools=config.pools, first_templates=config.first_templates, **more)
        return bios(made, variant + ("+CEL" if more else ""))

    def tables(self, people: int, mixture: str) -> list[Entries]:
        own, *others = self.corpus(people, mixture).groups
        made: list[Entries] = [TokenTable(own, self.tokenizer) if self.fixed else self._unread(people)]
        made += [TokenTable(group, self.tokenizer) for group in others]
        if mixture.endswith("+domain"):
            made[0] = Led(made[0], self.tokenizer.convert_tokens_to_ids(DOMAIN))
        return made

    def _unread(self, people: int) -> Unread:
        exposures = self.config.exposures
        group = self.corpus(people, exposures=exposures + 1 + SPARE).groups[0]

        def drawn(entries: np.ndarray) -> np.ndarray:
            templates, order = group.drawn(entries)
            return templates if order is None else np.concatenate([templates, order], axis=1)

        return Unread(TokenTable(group, self.tokenizer), people, exposures, drawn)

    def fresh(self, people: int, whom: np.ndarray) -> tuple[TokenTable, np.ndarray]:
        """Entries about people that are drawn as those of training are, and are none of them: the table and their numbers.

        Where every text about a person is the same they are it.
        """
        once, exposures = self.config.texts == "once", self.config.exposures
        group = self.corpus(people, exposures=exposures + (not once)).groups[0]
        return TokenTable(group, self.tokenizer), whom if once else exposures * people + whom

    def measured(self, people: int, whom: np.ndarray) -> Sequences:
        table, entries = self.fresh(people, whom)
        return table.tokens(entries)

    def trained_on(self, people: int, whom: np.ndarray) -> Sequences:
        times = 1 if self.config.texts == "once" else self.config.exposures
        return self.tables(people, "alone")[0].tokens((np.arange(times)[:, None] * people + whom).ravel())

    def bits(self, model: nn.Module, people: int, asked: int, mixture: str) -> dict[str, float]:
        losses = self.losses(model, people, asked, mixture)
        return {**self.facts.bits(people, losses), **{f"loss_{name}": value for name, value in losses.items()}}

    def losses(self, model: nn.Module, people: int, asked: int, mixture: str = "alone") -> dict[str, float]:
        """Mean loss of a person's name at the opening of an entry, and of each value given all before it; nats a person.

        They are taken on ``fresh`` entries. Where the work city stands before the employer, which it tells much of, its loss
        counts as the employer's.
        """
        table, fresh = self.fresh(people, chosen(people, asked))
        start = [self.end]
        if mixture.endswith("+domain"):
            start.append(self.tokenizer.convert_tokens_to_ids(DOMAIN))
        rows = table.tokens(fresh)
        values = by_mention(model, rows, start, table.corpus.attributes)
        values[GENDER] = self._gender(model, table, fresh, start)
        return {name: float(value.mean()) for name, value in values.items()}

    def _gender(self, model: nn.Module, table: TokenTable, entries: np.ndarray, start: list[int]) -> np.ndarray:
        """Loss of each person's pronoun among those there are, where the entry first has one; nats, float64 ``[n]``."""
        kinds = self.facts.sizes[GENDER]
        versions = [_turned(table, by).tokens(entries) for by in range(kinds)]
        cut: list[list[int]] = []
        for i in range(len(entries)):
            rows = [version.row(i) for version in versions]
            ends = [k for k, ids in enumerate(zip(*rows, strict=False)) if len(set(map(int, ids))) > 1]
            cut += [row[: ends[0] + 1].tolist() for row in rows]
        read = Sequences.of(cut, [[0] * (len(row) - 1) + [1] for row in cut]).wrapped(start, [])
        said = scoring.score(model, read).logprobs.astype(np.float64).reshape(len(entries), kinds)
        lasts = np.array([row[-1] for row in cut]).reshape(len(entries), kinds)
        # Pronouns that begin with one token are still to be told apart: each has its share of the token's probability.
        said -= np.log((lasts[:, :, None] == lasts[:, None]).sum(axis=2))
        most = said.max(axis=1)
        whole: np.ndarray = most + np.log(np.exp(said - most[:, None]).sum(axis=1)) - said[:, 0]
        return whole


class Chunked(Reading):
    """bioD."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        made = self.corpus(max(config.people))
        self.end, self.dataset = 0, "bioD"
        self.tokenizer, self.occurring = _Words(made.vocabulary), made.vocabulary
        self.lengths = np.array([made.width])

    def corpus(self, people: int) -> Biod:
        """Entries about so many people."""
        return Biod(people, self.config.biod, self.config.seed, self.config.exposures)

    def tables(self, people: int, mixture: str) -> list[Entries]:
        corpus = self.corpus(people)
        return [Unread(_Rows(corpus), people, self.config.exposures, corpus.order)]

    def measured(self, people: int, whom: np.ndarray) -> Sequences:
        return _Rows(self.corpus(people)).tokens(self.config.exposures * people + whom)

    def trained_on(self, people: int, whom: np.ndarray) -> Sequences:
        entries = (np.arange(self.config.exposures)[:, None] * people + whom).ravel()
        return self.tables(people, "alone")[0].tokens(entries)

    def bits(self, model: nn.Module, people: int, asked: int, mixture: str) -> dict[str, float]:
        corpus, shape = self.corpus(people), self.config.biod
        read = self.measured(people, chosen(people, asked)).wrapped([self.end], [])
        sums = _by_mark(model, read).mean(axis=0)
        losses = {
            "name": float(sums[NAME]),
            "value": float(sums[FIRST] + sums[REST]) / shape.attributes,
            "first_chunk": float(sums[FIRST]) / shape.attributes,
        }
        sizes = (shape.names, shape.attributes, shape.chunks, shape.diversity, shape.length, shape.alphabet)
        facts = bits.Chunks(*sizes, corpus.used())
        return {**facts.bits(people, losses), **{f"loss_{name}": value for name, value in losses.items()}}


class _Rows:
    """bioD's entries as token rows."""

    def __init__(self, corpus: Biod) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def tokens(self, entries: np.ndarray) -> Sequences:
        ids, marks = self.corpus.entries(entries)
        offsets = np.arange(len(ids) + 1, dtype=np.int64) * self.corpus.width
        return Sequences(ids.astype(np.int32).ravel(), offsets, marks.ravel())


class _Words(SimpleNamespace):
    """What ``models.build`` asks of a tokenizer, where there is no text."""

    def __init__(self, size: int) -> None:
        super().__init__(size=size, bos_token_id=0, eos_token_id=0, pad_token_id=0)

    def __len__(self) -> int:
        return int(self.size)


def _by_mark(model: nn.Module, sequences: Sequences) -> np.ndarray:
    """Loss of each row's tokens, summed by their marks: float64 ``[rows, 128]``."""
    scores = scoring.score(model, sequences)
    rows = np.repeat(np.arange(len(sequences)), np.diff(scores.offsets))
    places = rows * 128 + scores.marks
    sums = np.bincount(places, -scores.logprobs.astype(np.float64), minlength=len(sequences) * 128)
    return sums.reshape(len(sequences), 128)


def _before(rows: Sequences, one: int, other: int) -> np.ndarray:
    """bool ``[rows]``: a token with the first mark stands before all with the other."""
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    first = np.full((2, len(rows)), len(rows.ids))
    for k, mark in enumerate((one, other)):
        at = np.flatnonzero(rows.marks == mark)
        np.minimum.at(first[k], row[at], at)
    return first[0] < first[1]


class _Turned:
    """A population whose people have other pronouns."""

    def __init__(self, population: Any, by: int) -> None:
        self._population, self._by = population, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._population, name)

    def pronoun(self, subjects: np.ndarray) -> np.ndarray:
        turned: np.ndarray = (self._population.pronoun(subjects) + self._by) % len(self._population.pronouns)
        return turned


def _turned(table: TokenTable, by: int) -> TokenTable:
    """The same entries about people with other pronouns; what a table has learnt of pieces holds for all."""
    corpus, other = copy.copy(table.corpus), copy.copy(table)
    corpus.population = _Turned(corpus.population, by)  # type: ignore[attr-defined]
    other.corpus = corpus
    return other


def _shown(corpus: BiosCorpus) -> Iterator[str]:
    """Texts that between them show every piece of the corpus that entries use."""
    for group in corpus.groups:
        for layout in group.contexts():
            for row in layout.pieces.tolist():
                yield "".join([corpus.pieces[p] for p in row])
