"""What an arm trains on: texts about the facts, questions about half of the subjects, and replayed text, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact, Query
from engramlab.base.random_access import key as random_key
from engramlab.core.text import batches, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, by_heart, crossings
from engramlab.experiments.teaching.config import Arm, Config
from engramlab.experiments.teaching.documents import DocumentTable, DocumentWords

CROSSINGS = 6  # texts of that kind about each subject
PART = 20_000  # facts whose questions are tokenised together


@dataclass(frozen=True)
class Source:
    """Rows of one kind.

    Attributes:
        entries: their tokens.
        share: of an arm's rows.
        answers: are only answers targets?
    """

    name: str
    entries: batches.Entries
    share: float
    answers: bool = False

    def length(self, start: Sequence[int]) -> float:
        """Mean tokens that a row of it has the model read (the last one is not read)."""
        sample = np.unique(np.linspace(0, len(self.entries) - 1, 2000).astype(np.int64))
        return float(self.entries.tokens(sample).lengths.mean()) + len(start)

    def longest(self, start: Sequence[int]) -> int:
        """Tokens of its longest row, of all of them or a spread of 20,000."""
        sample = np.unique(np.linspace(0, len(self.entries) - 1, 20_000).astype(np.int64))
        return (
            max(
                int(self.entries.tokens(part).lengths.max()) for part in np.array_split(sample, -(-len(sample) // 4096))
            )
            + len(start)
            + 1
        )


@dataclass(frozen=True)
class Lesson:
    """An arm's rows: where they come from and how they are mixed.

    Attributes:
        sources: at most four.
        rote: do all rows that state facts come before all questions?
    """

    sources: tuple[Source, ...]
    start: list[int]
    end: int
    length: int
    rote: bool = False

    def mean(self) -> float:
        """Tokens of a row, on the average of the mixture."""
        return sum(source.share * source.length(self.start) for source in self.sources)

    def about(self) -> float:
        """Share of the rows that state facts."""
        return sum(source.share for source in self.sources if source.name in ("entries", "crossing"))

    def stream(self, seed: int, rows: int = 0) -> batches.Stream:
        """Endless batches of it. Every source has an order of its own, so that arms see equal rows in equal order.

        Args:
            rows: that will be taken, about: where facts come first, it says when questions begin (with a batch).
        """
        if not self.rote:
            return self._mixed(self.sources, seed)
        one, other = (self._mixed(some, random_key(seed, k)) for k, some in enumerate(self._phases()))
        return Then(one, other, round(self._first() * rows))

    def _first(self) -> float:
        """Share of the rows that come before the first question, where facts come first."""
        asked = sum(source.share for source in self.sources if source.name == "questions")
        return self.about() / (self.about() + asked)

    def _phases(self) -> tuple[list[Source], list[Source]]:
        """What states facts and what asks, each with its part of the replayed text: with all of it in both, questions would
        have fewer rows than their share."""
        found: tuple[list[Source], list[Source]] = ([], [])
        for source in self.sources:
            if source.name == "replay":
                for phase, part in zip(found, (self._first(), 1 - self._first()), strict=True):
                    phase.append(replace(source, share=source.share * part))
            else:
                found[source.name == "questions"].append(source)
        return found

    def _mixed(self, sources: Sequence[Source], seed: int) -> batches.Stream:
        made: batches.Stream | None = None
        left = 0.0
        for source in reversed(sources):
            order = batches.Order(len(source.entries), random_key(seed, source.name))
            rows: batches.Stream = batches.OneEntryARow(
                source.entries, order, start=self.start, end=self.end, length=self.length, answers_only=source.answers
            )
            if made is None:
                made, left = rows, source.share
                continue
            left += source.share
            mix = random_key(seed, "beside", source.name)
            made = batches.Mixed(rows, made, ratio=1 - source.share / left, end=self.end, seed=mix)
        assert made is not None
        return made


class Then:
    """Rows of one stream, then those of another.

    Args:
        rows: of the first.
    """

    def __init__(self, first: batches.Stream, second: batches.Stream, rows: int) -> None:
        self.streams, self.rows, self.taken = (first, second), rows, 0

    def take(self, rows: int, own: slice = batches.ALL) -> batches.Batch:
        """The next batch, of one of them alone; of its rows, ``own``."""
        stream = self.streams[self.taken >= self.rows]
        self.taken += rows
        return stream.take(rows, own)

    def state(self) -> dict[str, Any]:
        """Place in both."""
        return {"taken": self.taken, "streams": [stream.state() for stream in self.streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a ``state``."""
        self.taken = state["taken"]
        for stream, place in zip(self.streams, state["streams"], strict=True):
            stream.restore(place)


def lesson(
    arm: Arm,
    config: Config,
    table: FactTable | DocumentTable,
    words: Divided | DocumentWords,
    asked: Sequence[Fact],
    replay: Sequences | None,
    tokenizer: Any,
    length: int,
    told: Mapping[str, Sequence[str]] | None = None,
) -> Lesson:
    """The rows of an arm.

    Args:
        table: the facts to be taught, in the wordings that are trained.
        asked: those whose questions are trained.
        replay: rows of replayed text.
        length: longest row allowed.
        told: by subject, texts in place of entries in changing wordings, as many about each; None for the templates' entries.

    Raises:
        UserError: a row that is longer.
    """
    rows = questions(words, asked, tokenizer) if arm.questions else None
    if rows is not None and not len(rows):  # of documents, without a chat model
        rows = None
    about = 1 - (config.question_share if rows is not None else 0) - (config.replay_share if replay is not None else 0)
    across = 0.0
    if isinstance(table, DocumentTable):
        said = batches.TokenRows(Sequences.of(tokens.encode(tokenizer, table.texts(not arm.varied))[0]))
        sources = [Source("entries", said, about)]
    elif arm.rote:
        said = batches.TokenRows(Sequences.of(tokens.encode(tokenizer, by_heart(table, config.seed))[0]))
        sources = [Source("entries", said, about)]
    else:
        across = config.crossing_share if arm.crossing else 0.0
        entries: batches.Entries
        if told is not None and arm.varied:
            turns = zip(*(told[subject] for subject in table.subjects), strict=True)  # as entries lie, text by text
            entries = batches.TokenRows(
                Sequences.of(tokens.encode(tokenizer, [one for turn in turns for one in turn])[0])
            )
        else:
            entries = TokenTable(table.entries(arm.variant, config.seed), tokenizer)
        sources = [Source("entries", entries, about * (1 - across))]
    if across and not isinstance(table, DocumentTable):
        texts = crossings(table, CROSSINGS, config.seed)
        sources.append(
            Source("crossing", batches.TokenRows(Sequences.of(tokens.encode(tokenizer, texts)[0])), about * across)
        )
    if rows is not None:
        sources.append(Source("questions", batches.TokenRows(rows), config.question_share, answers=True))
    if replay is not None and config.replay_share:
        sources.append(Source("replay", batches.TokenRows(replay), config.replay_share))
    made = Lesson(tuple(sources), tokens.start_tokens(tokenizer), tokens.end_token(tokenizer), length, arm.rote)
    for source in sources:
        if (longest := source.longest(made.start)) > length:
            raise UserError(
                f"{source.name}: a row of {longest} tokens does not fit the model's context of {length}; teach fewer "
                "attributes at a time, or shorter ones"
            )
    return made


def questions(words: Divided | DocumentWords, facts: Sequence[Fact], tokenizer: Any) -> Sequences:
    """The trained forms of the questions about facts with their answers, the answers marked, and so is a token that holds
    nothing but the space before one (as before a year): the model must write it, too."""
    # A part at a time, as millions of questions take much more memory than their tokens.
    parts = [_asked(words, facts[at : at + PART], tokenizer) for at in range(0, len(facts), PART)]
    if not parts:
        return Sequences.of([])
    ends = np.cumsum([0, *(len(part.ids) for part in parts)])
    offsets = [part.offsets[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    ids, marks = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "marks"))
    return Sequences(ids, np.concatenate([*offsets, ends[-1:]]), marks)


def _asked(words: Divided | DocumentWords, facts: Sequence[Fact], tokenizer: Any) -> Sequences:
    """Some of these rows."""
    asked = [
        Query(prompt, fact.object, id=f"{fact.subject}/{fact.relation}")
        for fact in facts
        for prompt in words.questions(fact.relation, fact.subject, "trained")
    ]
    made = encode_queries(tokenizer, asked, end=True).sequences
    # Rows get their start and end tokens where they are batched, like all others.
    first, edges = len(tokens.start_tokens(tokenizer)), made.offsets.tolist()
    bare = [slice(start + first, stop - 1) for start, stop in pairwise(edges)]
    return Sequences.of([made.ids[part].tolist() for part in bare], [made.marks[part].tolist() for part in bare])


def as_read(texts: Sequence[str], tokenizer: Any, most: int) -> list[str]:
    """Running texts as far as rows of so many tokens have them; "" for one of fewer than two tokens, which is no row."""
    of = zip(texts, tokens.encode(tokenizer, list(texts))[1], strict=True)
    return [(text[: spans[most - 1][1]] if len(spans) > most else text) if len(spans) > 1 else "" for text, spans in of]


def texts_as_rows(texts: Sequence[str], tokenizer: Any, most: int) -> Sequences:
    """Running texts as rows, each cut to so many tokens; empty ones left out."""
    rows = [row[:most] for row in tokens.encode(tokenizer, list(texts))[0]]
    return Sequences.of([row for row in rows if len(row) > 1])
