"""Entries as token arrays, without tokenising any text twice.

A corpus is text made from a finite table of string pieces (``PieceCorpus``). ``TokenTable`` tokenises texts that show every
piece among its possible neighbours, reads off which tokens each piece became, and from then on builds any entry by gathering
arrays. That is exact only if a piece always becomes the same tokens and no token crosses the border of two pieces. Both are
checked on the coverage texts, and the result on entries spread over the corpus; where a tokenizer breaks either, every entry
is tokenised as text instead, and ``TokenTable.fallback`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from engramlab.core.text import tokens
from engramlab.core.text.tokens import GAP, Sequences

CHECKED = 256  # entries compared with their text at the start


class PieceLayout(Protocol):
    """Which pieces make up each of ``n`` entries: ``pieces`` int32 ``[n, k]``, ``marks`` int8 ``[n, k]``."""

    @property
    def pieces(self) -> np.ndarray: ...
    @property
    def marks(self) -> np.ndarray: ...


class PieceCorpus(Protocol):
    """Text from pieces; see ``engramlab.corpora.layout`` for the meaning of marks."""

    @property
    def pieces(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def layout(self, entries: np.ndarray) -> PieceLayout: ...
    def coverage(self) -> Iterator[PieceLayout]: ...


def gather(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices ``[starts[0], …, starts[0] + lengths[0] - 1, starts[1], …]``: the ranges laid end to end."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


class TokenTable:
    """The tokens of a corpus's entries, by entry number.

    Attributes:
        corpus: the corpus.
        fallback: ``None`` if entries are assembled from piece tokens, else the reason why they are tokenised as text.
    """

    def __init__(self, corpus: PieceCorpus, tokenizer: Any) -> None:
        tokens.require_offsets(tokenizer)
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.fallback: str | None = None
        self._learn()
        if self.fallback is None and len(corpus):
            self._check()

    def __len__(self) -> int:
        return len(self.corpus)

    def _learn(self) -> None:
        """Reads off the coverage texts which tokens each piece becomes; sets ``fallback`` where that is not always the same."""
        names = self.corpus.pieces
        characters = np.array([len(name) for name in names], dtype=np.int64)
        self._starts = np.zeros(len(names), dtype=np.int64)
        # A piece that coverage never shows (a first name inside a sentence, where no variant puts it) is never to be used.
        self._lengths = np.where(characters == 0, 0, -1).astype(np.int32)
        self._gaps = np.zeros(len(names), dtype=bool)  # pieces whose first token is a space and nothing else
        store = [np.empty(0, dtype=np.int32)]
        stored = 0
        for layout in self.corpus.coverage():
            slots = layout.pieces.ravel()
            texts = ["".join([names[p] for p in row]) for row in layout.pieces.tolist()]
            encoded, offsets = tokens.encode(self.tokenizer, texts)
            counts = np.fromiter(map(len, encoded), dtype=np.int64, count=len(texts))
            ids = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(counts.sum()))
            spans = np.array(list(chain.from_iterable(offsets)), dtype=np.int64).reshape(-1, 2)
            # Characters are numbered through all texts: one search then finds the slot that each token lies in.
            row = np.repeat(np.arange(len(texts)), counts)
            base = np.concatenate([[0], np.cumsum([len(text) for text in texts])])[:-1]
            ends = np.cumsum(characters[slots])
            first = np.searchsorted(ends, base[row] + spans[:, 0], side="right")
            last = np.searchsorted(ends, base[row] + np.maximum(spans[:, 1] - 1, spans[:, 0]), side="right")
            crossing = np.flatnonzero((first != last) | (first // layout.pieces.shape[1] != row))
            if len(crossing):
                self.fallback = f"a token crosses from one piece into the next in {texts[row[crossing[0]]][:80]!r}"
                return
            shown = np.flatnonzero(slots)
            pieces, lengths = slots[shown], np.bincount(first, minlength=len(slots))[shown]
            begins = np.cumsum(lengths) - lengths  # tokens come slot by slot
            new, at = np.unique(pieces, return_index=True)
            new, at = new[self._lengths[new] < 0], at[self._lengths[new] < 0]
            self._lengths[new] = lengths[at]
            self._starts[new] = stored + np.cumsum(lengths[at]) - lengths[at]
            store.append(ids[gather(begins[at], lengths[at])])
            stored += len(store[-1])
            for piece, token in zip(new[lengths[at] > 0], begins[at][lengths[at] > 0], strict=True):
                self._gaps[piece] = not texts[row[token]][slice(*spans[token])].strip()
            self._ids = np.concatenate(store)
            store = [self._ids]
            wrong = np.flatnonzero(self._lengths[pieces] != lengths)
            if not len(wrong):
                differ = np.flatnonzero(self._ids[gather(self._starts[pieces], lengths)] != ids)
                wrong = np.searchsorted(begins + lengths, differ, side="right")
            if len(wrong):
                self.fallback = f"{names[pieces[wrong[0]]]!r} becomes different tokens next to different neighbours"
                return

    def _check(self) -> None:
        """Compares entries spread over the corpus with their text: coverage may have missed how some pieces meet."""
        layout = self.corpus.layout(np.unique(np.linspace(0, len(self) - 1, CHECKED).astype(np.int64)))
        made, true = self._gathered(layout), self._as_text(layout)
        for i, row in enumerate(layout.pieces):
            if not np.array_equal(made.row(i), true.row(i)):
                text = "".join(self.corpus.pieces[p] for p in row)
                self.fallback = f"pieces together become other tokens than alone in {text[:80]!r}"
                return

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Tokens of the entries with these numbers (int64 ``[n]``), in this order.

        Marks are those of the corpus's layout: a token has the mark of the value (else the name) that it holds a character
        of, and ``GAP`` where it holds nothing but the space before a value.
        """
        layout = self.corpus.layout(np.asarray(entries, dtype=np.int64))
        return self._gathered(layout) if self.fallback is None else self._as_text(layout)

    def _gathered(self, layout: PieceLayout) -> Sequences:
        lengths = self._lengths[layout.pieces]
        if lengths.size and lengths.min() < 0:
            unseen = layout.pieces[lengths < 0][0]
            raise AssertionError(
                f"coverage() of the corpus never shows piece {self.corpus.pieces[unseen]!r}, but an entry has it"
            )
        offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1, dtype=np.int64))])
        flat = lengths.ravel()
        used = np.flatnonzero(flat)  # most slots of a layout may be empty
        pieces, flat = layout.pieces.ravel()[used], flat[used]
        ids = self._ids[gather(self._starts[pieces], flat)]
        slots = layout.marks.ravel()[used]
        marks = np.repeat(slots, flat)
        if self._gaps.any():
            led = np.flatnonzero(self._gaps[pieces] & (slots > 0))
            # Inside a value of several pieces the space is the value's own.
            row = used // layout.pieces.shape[1]
            inside = (led > 0) & (slots[led - 1] == slots[led]) & (row[led - 1] == row[led])
            marks[(np.cumsum(flat) - flat)[led[~inside]]] = GAP
        return Sequences(ids, offsets, marks)

    def _as_text(self, layout: PieceLayout) -> Sequences:
        names = self.corpus.pieces
        texts = ["".join([names[p] for p in row]) for row in layout.pieces.tolist()]
        ids, offsets = tokens.encode(self.tokenizer, texts)
        marks: list[Sequence[int]] = []
        for slots, pieces, text, spans in zip(layout.marks, layout.pieces.tolist(), texts, offsets, strict=True):
            characters = np.repeat(slots, [len(names[p]) for p in pieces])
            marks.append(_token_marks(text, characters, np.asarray(spans, dtype=np.int64).reshape(-1, 2)).tolist())
        return Sequences.of(ids, marks)


def _token_marks(text: str, marks: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The mark of each token, from the marks of the characters ``[len(text)]`` and the tokens' character spans ``[n, 2]``."""
    space = np.fromiter(map(str.isspace, text), dtype=bool, count=len(text))
    gap = space & (marks > 0) & (np.append(0, marks[:-1]) != marks)
    # A token has the mark of the strongest of its characters: value, name, other text, space before a value, space.
    strength = np.where(marks > 0, marks.astype(np.int16) + 3, np.where(marks < 0, 3, np.where(space, 0, 2)))
    strength = np.append(np.where(gap, 1, strength), 0)
    # Some tokenizers give a lone space the empty span behind it.
    start = spans[:, 0] - (spans[:, 0] == spans[:, 1])
    best = np.maximum.reduceat(strength, np.stack([np.maximum(start, 0), spans[:, 1]], axis=1).ravel())[::2]
    return np.select([best > 3, best == 3, best == 1], [best - 3, -1, GAP], 0)
