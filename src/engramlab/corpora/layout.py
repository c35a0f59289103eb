"""Text as pieces: a corpus is a finite table of strings and, for every entry, which of them to join.

The table is tokenised once; entries are then gathered as arrays instead of being formatted and tokenised one
by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers, brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Fact, Passage, Span

Pieces = npt.NDArray[np.int32]
Marks = npt.NDArray[np.int8]

NAME = -1  # the mark of a piece of the subject's name
MAX_ATTRIBUTES = 126  # marks are int8: attribute a is marked a + 1
CHUNK = 4096  # rows of a coverage layout


@dataclass(frozen=True)
class Layout:
    """n rows of k pieces: the text of a row is its pieces joined, with nothing between.

    pieces: int32[n, k], indices into the corpus's table; 0 is the empty piece and may stand anywhere.
    marks: int8[n, k]: 0 plain, a + 1 where a piece states attribute a, -1 where it is part of the name.
    """

    pieces: Pieces
    marks: Marks

    def __len__(self) -> int:
        return len(self.pieces)


class Corpus(Protocol):
    """Entries by index, in any order, each without the others; the same on every worker and in every run."""

    @property
    def pieces(self) -> Sequence[str]:
        """The table of pieces. The first is empty; words carry their leading space."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that marks and spans speak of."""

    def __len__(self) -> int:
        """Number of entries."""

    def layout(self, entries: npt.ArrayLike) -> Layout:
        """The entries at these indices (int64[n]), one a row. Raises IndexError outside [0, len)."""

    def coverage(self) -> Iterator[Layout]:
        """Layouts that show every piece at least once, with every kind of neighbour it can have."""

    def passage(self, entry: int) -> Passage:
        """One entry as text, with a span for every value stated and every mention of the name."""


class Population(Protocol):
    """Subjects with a name and attributes, all written with pieces: what entries and questions are made from.

    Names and values are given "led", their first piece starting with a space. Every subject's name has the
    same number of pieces, and so has every value of one attribute. Where subjects may lack attributes there is
    also `holes`, bool[subjects, attributes] (see `holes_of`), and the value is the empty piece.
    """

    @property
    def pieces(self) -> Sequence[str]:
        """Pieces of names and values; the first is empty."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    @property
    def pronouns(self) -> tuple[str, ...]:
        """The pronouns subjects go by ("he", "she", "they", "it"); none when sentences repeat the name."""

    def __len__(self) -> int: ...

    def pronoun(self, subjects: Integers) -> Integers:
        """Index into `pronouns` of each subject; zeros when there are none."""

    def name_pieces(self, subjects: Integers) -> Pieces:
        """int32[n, w] with the same w for every subject."""

    def value_pieces(self, attribute: int, subjects: Integers) -> Pieces:
        """int32[n, w] with w depending on the attribute only."""

    def name_examples(self) -> Pieces:
        """int32[m, w]: names that between them show every piece of a name."""

    def value_examples(self, attribute: int) -> Pieces:
        """int32[m, w]: values that between them show every piece of a value of this attribute."""

    def name(self, subject: int) -> str: ...

    def value(self, subject: int, attribute: int) -> str: ...


class PeopledCorpus(Corpus, Protocol):
    """A corpus that knows whom its entries are about."""

    @property
    def population(self) -> Population: ...

    @property
    def subjects(self) -> range:
        """Those that are asked about, as indices into the population."""

    def subject(self, entries: npt.ArrayLike) -> Integers:
        """Whom entries are about: int64[n], indices into the population."""

    def first_entry(self, subjects: npt.ArrayLike) -> Integers:
        """The first entry about each of these subjects, given as indices into the population: int64[n]."""


def holes_of(population: Population) -> npt.NDArray[np.bool_] | None:
    """Which attributes each subject lacks, bool[subjects, attributes]; None where no subject lacks any."""
    found: npt.NDArray[np.bool_] | None = getattr(population, "holes", None)
    return found


def check_attributes(attributes: Sequence[str]) -> None:
    """Refuse more attributes than marks can tell apart."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise UserError(f"{len(attributes)} attributes are too many: at most {MAX_ATTRIBUTES} can be told apart")


def facts_of(population: Population, subject: int) -> tuple[Fact, ...]:
    """What a population says about one subject, one fact an attribute."""
    name = population.name(subject)
    return tuple(Fact(name, relation, population.value(subject, a)) for a, relation in enumerate(population.attributes))


class PieceTable:
    """A population's pieces, and behind them those a corpus adds."""

    def __init__(self, base: Sequence[str]) -> None:
        self._texts = list(base)
        self._added: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        """The index of a piece; the same text is added once."""
        if text not in self._added:
            self._added[text] = len(self._texts)
            self._texts.append(text)
        return self._added[text]

    def bare(self, led: Pieces) -> Pieces:
        """Add the pieces `led` without their leading space. Returns the map from led pieces."""
        ids = np.unique(led)
        to = np.zeros(len(self._texts), np.int32)
        # Not through `add`: a table's names can be millions, all different, and need no second dictionary.
        start = len(self._texts)
        self._texts.extend(self._texts[i].removeprefix(" ") for i in ids.tolist())
        to[ids] = np.arange(start, start + len(ids))
        to[0] = 0
        return to

    def texts(self) -> list[str]:
        return self._texts


def chunks(*columns: Pieces) -> Iterator[tuple[Pieces, ...]]:
    """Arrays with equally many rows, cut together into parts of at most CHUNK rows."""
    for start in range(0, len(columns[0]), CHUNK):
        yield tuple(column[start : start + CHUNK] for column in columns)


def repeat(row: npt.ArrayLike, n: int) -> Pieces:
    """One row of pieces n times: int32[n, k]."""
    return np.broadcast_to(np.asarray(row, np.int32), (n, len(np.asarray(row))))


def entry_indices(entries: npt.ArrayLike, size: int) -> Integers:
    """Entry indices as int64[n]; raises IndexError when one lies outside [0, size)."""
    indices = np.atleast_1d(np.asarray(entries, np.int64))
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise IndexError(f"entries must lie in [0, {size}), got {indices.min()} to {indices.max()}")
    return indices


@dataclass(frozen=True)
class Statements:
    """The rows of a layout as texts, and what they state where: m spans, row by row, in the order of the
    text.

    texts: n strings. rows, starts, ends, marks: int64[m]: the text, its characters (end exclusive), and the
    mark.
    """

    __repr__ = brief

    texts: list[str]
    rows: Integers
    starts: Integers
    ends: Integers
    marks: Integers


def read_out(layout: Layout, pieces: Sequence[str]) -> Statements:
    """Join the pieces of a layout; runs of pieces with one mark are spans, without their leading space.

    A run ends where a column with another mark lies between two pieces, even an empty one: of two names that touch, as at the
    end of a sentence without a full stop and the beginning of the next, each is a span.
    """
    words = [[pieces[piece] for piece in row] for row in layout.pieces.tolist()]
    texts = ["".join(row) for row in words]
    lengths = np.array([list(map(len, row)) for row in words], np.int64).reshape(layout.pieces.shape)
    ends = np.cumsum(lengths, axis=1)
    rows, columns = np.nonzero(lengths)  # the pieces that are not empty
    marks = layout.marks[rows, columns].astype(np.int64)
    parted = (np.diff(rows) != 0) | (np.diff(marks) != 0)
    if (apart := ~parted & (marks[1:] != 0) & (np.diff(columns) > 1)).any():
        run = np.cumsum(np.diff(layout.marks, axis=1, prepend=0) != 0, axis=1)[rows, columns]
        parted |= apart & (np.diff(run) != 0)
    breaks = np.flatnonzero(parted)
    first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(rows) - 1]])
    stated = np.flatnonzero(marks[first]) if len(rows) else np.zeros(0, np.int64)
    first, last = first[stated], last[stated]
    rows, marks = rows[first], marks[first]
    starts = (ends - lengths)[rows, columns[first]]
    starts += np.array(
        [texts[row][start] == " " for row, start in zip(rows.tolist(), starts.tolist(), strict=True)], int
    )
    return Statements(texts, rows, starts, ends[rows, columns[last]], marks)


def as_passages(layout: Layout, pieces: Sequence[str], attributes: Sequence[str], ids: Iterable[str]) -> list[Passage]:
    """The rows of a layout as texts with spans."""
    said = read_out(layout, pieces)
    spans: list[list[Span]] = [[] for _ in said.texts]
    columns = (said.rows, said.starts, said.ends, said.marks)
    for row, start, end, mark in zip(*(column.tolist() for column in columns), strict=True):
        span = Span(start, end, "", "subject") if mark == NAME else Span(start, end, attributes[mark - 1])
        spans[row].append(span)
    return [Passage(text, tuple(s), id) for text, s, id in zip(said.texts, spans, ids, strict=True)]
