"""Entries as token arrays, without tokenising any text twice.

A corpus is text made from a finite table of string pieces (:class:`Corpus`). :func:`assemble` tokenises texts that show every
piece among its possible neighbours, reads off which tokens each piece became, and from then on builds any entry by gathering
arrays. That is exact only if a piece always becomes the same tokens and no token crosses the border of two pieces. Both are
checked on the coverage texts; where a tokenizer breaks either, every entry is tokenised as text instead, and
``TokenTable.fallback`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from engramlab.core import tokens
from engramlab.core.tokens import Sequences


class Layout(Protocol):
    """Which pieces make up each of ``n`` entries: ``pieces`` int32 ``[n, k]``, ``marks`` int8 ``[n, k]``."""

    @property
    def pieces(self) -> np.ndarray: ...
    @property
    def marks(self) -> np.ndarray: ...


class Corpus(Protocol):
    """Text from pieces; see ``engramlab.corpora.layout`` for the meaning of marks."""

    @property
    def pieces(self) -> Sequence[str]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def layout(self, entries: np.ndarray) -> Layout: ...
    def coverage(self) -> Iterator[Layout]: ...


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

    def __init__(self, corpus: Corpus, tokenizer: Any) -> None:
        tokens.require_offsets(tokenizer)
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.fallback: str | None = None
        self._learn()

    def __len__(self) -> int:
        return len(self.corpus)

    def _learn(self) -> None:
        known: dict[int, tuple[int, ...]] = {0: ()}
        for layout in self.corpus.coverage():
            for row, owners, ids in self._encode(layout):
                for column, piece in enumerate(row):
                    got = tuple(ids[owners == column].tolist())
                    if known.setdefault(piece, got) != got:
                        name = self.corpus.pieces[piece]
                        self.fallback = f"{name!r} becomes different tokens next to different neighbours"
                        return
                if (owners < 0).any():
                    self.fallback = "a token crosses from one piece into the next in " + repr(
                        "".join(self.corpus.pieces[p] for p in row)[:80]
                    )
                    return
        # A piece that coverage never shows (a first name inside a sentence, where no variant puts it) is never to be used.
        rows = [known.get(p, ()) for p in range(len(self.corpus.pieces))]
        table = Sequences.of(rows)
        self._ids, self._starts = table.ids, table.offsets[:-1]
        self._lengths = table.lengths.astype(np.int32)
        self._lengths[[p for p in range(len(rows)) if p not in known]] = -1

    def _encode(self, layout: Layout) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Per entry: its pieces, the column each token belongs to (-1 where it crosses a border), and the token ids."""
        names = self.corpus.pieces
        rows = [[names[p] for p in row] for row in layout.pieces]
        encoded, offsets = tokens.encode(self.tokenizer, ["".join(row) for row in rows])
        for pieces, row, ids, spans in zip(layout.pieces, rows, encoded, offsets, strict=True):
            ends = np.cumsum([len(piece) for piece in row])
            spans_array = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
            # Characters to pieces: the first piece that ends behind the character.
            first = np.searchsorted(ends, spans_array[:, 0], side="right")
            last = np.searchsorted(ends, np.maximum(spans_array[:, 1] - 1, spans_array[:, 0]), side="right")
            yield pieces.tolist(), np.where(first == last, first, -1), np.asarray(ids, dtype=np.int32)

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Tokens of the entries with these numbers (int64 ``[n]``), in this order; marks as the corpus's layout gives them."""
        layout = self.corpus.layout(np.asarray(entries, dtype=np.int64))
        if self.fallback is not None:
            return self._as_text(layout)
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
        return Sequences(ids, offsets, np.repeat(layout.marks.ravel()[used], flat))

    def _as_text(self, layout: Layout) -> Sequences:
        ids: list[Sequence[int]] = []
        marks: list[Sequence[int]] = []
        names = self.corpus.pieces
        rows = [[names[p] for p in row] for row in layout.pieces]
        encoded, offsets = tokens.encode(self.tokenizer, ["".join(row) for row in rows])
        for row_marks, row, row_ids, spans in zip(layout.marks, rows, encoded, offsets, strict=True):
            ends = np.cumsum([len(piece) for piece in row])
            # A token belongs to the piece of its last character: the one whose statement it completes.
            at = np.searchsorted(ends, np.asarray([max(b - 1, a) for a, b in spans], dtype=np.int64), side="right")
            ids.append(row_ids)
            marks.append(row_marks[np.minimum(at, len(row) - 1)].tolist())
        return Sequences.of(ids, marks)
