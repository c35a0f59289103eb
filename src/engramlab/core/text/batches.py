"""Endless, shuffled, resumable batches of token rows.

Entries are shuffled at the level of entries, anew every epoch, *before* packing: entries of one person that sat in one
window would be copied within the window instead of stored (the classic failed replication of arXiv 2309.14316). The order of
epoch ``e`` is a keyed bijection, so any position of any epoch is found without producing the others, on any worker.

Every stream has ``state()`` (plain JSON) and ``restore(state)``: restoring and going on gives the same batches as never
having stopped. Several processes have one stream, which each deals out whole and of which each makes its own rows
(``take(rows, own)``): what they read together, and where the stream stands, is what one process alone would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from engramlab.base import random_access
from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.core.text.tokens import Sequences

IGNORE = -100
ALL = slice(None)


@dataclass(frozen=True)
class Batch:
    """One batch of rows.

    Attributes:
        input_ids: int64 ``[B, T]``, padded at the right.
        targets: int64 ``[B, T]``: the token to predict at each position (the next one; the hidden one after masking),
            ``IGNORE`` where none counts.
        tokens: how many input tokens are not padding.
        source: uint8 ``[B]``: which of the mixed streams a row came from (zeros for a single stream).
        inside: bool ``[B, T]``: which input tokens are not padding; None where all are.
    """

    __repr__ = brief

    input_ids: torch.Tensor
    targets: torch.Tensor
    tokens: int
    source: np.ndarray
    inside: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        inside = None if self.inside is None else moved(self.inside, device)
        return Batch(moved(self.input_ids, device), moved(self.targets, device), self.tokens, self.source, inside)


def moved(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on a device, for which nothing waits."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class Entries(Protocol):
    """Token rows by number: a token table, or rows held in memory."""

    def __len__(self) -> int: ...
    def tokens(self, entries: np.ndarray) -> Sequences: ...


class TokenRows:
    """Entries held in memory."""

    def __init__(self, sequences: Sequences) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def tokens(self, entries: np.ndarray) -> Sequences:
        """Rows with these numbers, in this order."""
        lengths = self.sequences.lengths[entries]
        starts = self.sequences.offsets[:-1][entries]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(int(offsets[-1])) + np.repeat(starts - offsets[:-1], lengths)
        return Sequences(self.sequences.ids[at], offsets, self.sequences.marks[at])


class Resumable(Protocol):
    """Where something that goes on for ever has come to, as explicit state."""

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Stream(Resumable, Protocol):
    """Endless batches with explicit state.

    ``take`` goes on by ``rows`` rows and makes a batch of those numbered ``own``, a contiguous part that may be empty.
    """

    def take(self, rows: int, own: slice = ALL) -> Batch: ...


class Order:
    """Entry numbers in a new order every epoch.

    Args:
        count: number of entries.
        seed: key of the orders.
        subset: int64 entry numbers to use instead of ``0 … count - 1``.
    """

    def __init__(self, count: int, seed: int, *, subset: np.ndarray | None = None) -> None:
        self.count = count if subset is None else len(subset)
        self.subset, self.seed = subset, seed
        if not self.count:
            raise UserError("there are no entries to be put in order")
        self.epoch = self.position = 0

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Entry numbers at these positions of an epoch's order."""
        shuffled = random_access.permute(
            random_access.key(self.seed, "order", epoch), np.asarray(positions, dtype=np.uint64), self.count
        )
        picked = shuffled.astype(np.int64)
        return picked if self.subset is None else self.subset[picked]

    def next(self, n: int) -> np.ndarray:
        """The next ``n`` entry numbers."""
        parts: list[np.ndarray] = []
        while n > 0:
            if self.position == self.count:
                self.epoch, self.position = self.epoch + 1, 0
            k = min(n, self.count - self.position)
            parts.append(self.at(self.epoch, self.position + np.arange(k)))
            self.position += k
            n -= k
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """Epoch and position of the next entry."""
        return {"epoch": self.epoch, "position": self.position, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a saved place; raises UserError if it is of another number of entries, or of a share of them."""
        if state["count"] != self.count:
            raise UserError(f"checkpoint of a stream with count={state['count']} cannot go on with count={self.count}")
        if state.get("world", 1) != 1:  # until 0.5 each of several processes had an order of its own
            raise UserError(
                f"checkpoint of {state['world']} processes by an older version, which read other rows: go on with that "
                "version, or remove the checkpoint"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


class OneEntryARow:
    """Each row holds one entry: start tokens, entry, end token; padded to the longest of the batch.

    Args:
        entries: where token rows come from.
        order: which entry comes next.
        start, end: token ids put before and after each entry; ``end`` also pads.
        length: longest row allowed.
        answers_only: count only tokens whose mark is positive, and the end token (loss of question answering); otherwise
            every token counts.
    """

    def __init__(
        self,
        entries: Entries,
        order: Order,
        *,
        start: list[int],
        end: int,
        length: int,
        answers_only: bool = False,
    ) -> None:
        self.entries, self.order = entries, order
        self.start, self.end, self.length, self.answers_only = start, end, length, answers_only

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The next ``rows`` entries, those numbered ``own`` as a batch."""
        sequences = self.entries.tokens(self.order.next(rows)[own]).wrapped(self.start, [self.end], suffix_mark=1)
        return self.batch(sequences)

    def batch(self, sequences: Sequences) -> Batch:
        """Pads rows that already carry start and end tokens."""
        lengths = sequences.lengths
        width = int(lengths.max(initial=1))
        if width > self.length:
            raise UserError(f"an entry of {width} tokens does not fit the context of {self.length} tokens; raise it")
        rows = len(sequences)
        inside = np.arange(width) < lengths[:, None]
        ids = np.full((rows, width), self.end, dtype=np.int64)
        ids[inside] = sequences.ids
        counts = inside.copy()
        if self.answers_only:
            counts[inside] = sequences.marks > 0
        targets = np.full((rows, width), IGNORE, dtype=np.int64)
        targets[:, :-1] = np.where(counts[:, 1:], ids[:, 1:], IGNORE)
        # The last input token predicts nothing: the rows are one token shorter than they could be.
        return Batch(
            torch.from_numpy(ids[:, :-1].copy()),
            torch.from_numpy(targets[:, :-1].copy()),
            int(lengths.sum() - rows),
            np.zeros(rows, dtype=np.uint8),
            torch.from_numpy(inside[:, :-1].copy()),
        )

    def state(self) -> dict[str, Any]:
        """State of the order."""
        return self.order.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the order."""
        self.order.restore(state)


class Packed:
    """Entries laid end to end, each followed by the end token, cut into rows of exactly ``length`` tokens.

    Entries may be cut by the window's edge and go on in the next row, as in the paper. Every token of a row but the first is
    a target (with ``answers_only``, those that carry a positive mark).
    """

    def __init__(self, entries: Entries, order: Order, *, end: int, length: int, answers_only: bool = False) -> None:
        self.entries, self.order = entries, order
        self.end, self.length, self.answers_only = end, length, answers_only
        self._clear()
        self._mean = 64.0  # running guess of an entry's length: how many entries to fetch at once

    def _clear(self) -> None:
        self._chunks: list[tuple[dict[str, Any], Sequences]] = []
        self._offset = 0  # tokens of the first chunk that are used up

    def _available(self) -> int:
        return sum(len(chunk.ids) for _, chunk in self._chunks) - self._offset

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The next ``rows`` windows, those numbered ``own`` as a batch."""
        need = rows * self.length
        while (missing := need - self._available()) > 0:
            before = self.order.state()
            count = max(1, int(missing / self._mean))
            chunk = self.entries.tokens(self.order.next(count)).wrapped([], [self.end], suffix_mark=1)
            self._mean = max(1.0, len(chunk.ids) / count)
            self._chunks.append((before, chunk))
        ids = np.concatenate([chunk.ids for _, chunk in self._chunks])[self._offset : self._offset + need]
        window = ids.reshape(rows, self.length)[own].astype(np.int64)
        targets = np.full(window.shape, IGNORE, dtype=np.int64)
        targets[:, :-1] = window[:, 1:]
        if self.answers_only:
            marks = np.concatenate([chunk.marks for _, chunk in self._chunks])[self._offset : self._offset + need]
            targets[:, :-1][marks.reshape(rows, self.length)[own][:, 1:] <= 0] = IGNORE
        self._offset += need
        while self._chunks and self._offset >= len(self._chunks[0][1].ids):
            self._offset -= len(self._chunks[0][1].ids)
            self._chunks.pop(0)
        source = np.zeros(len(window), dtype=np.uint8)
        return Batch(torch.from_numpy(window), torch.from_numpy(targets), window.size, source)

    def state(self) -> dict[str, Any]:
        """Place of the first token not yet given out: where its chunk began in the order, and the tokens since."""
        if not self._chunks:
            return {"order": self.order.state(), "skip": 0, "count": 0}
        return {
            "order": self._chunks[0][0],
            "skip": self._offset,
            "count": sum(len(chunk) for _, chunk in self._chunks),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a saved place by making the chunk there again."""
        self._clear()
        self.order.restore(state["order"])
        if state["count"]:
            before = self.order.state()
            chunk = self.entries.tokens(self.order.next(int(state["count"])))
            self._chunks.append((before, chunk.wrapped([], [self.end], suffix_mark=1)))
            self._offset = int(state["skip"])


def laid_out(
    layout: Literal["packed", "entries"],
    source: Entries,
    order: Order,
    *,
    start: list[int],
    end: int,
    length: int,
) -> Stream:
    """Rows of training texts: ``packed``, see ``Packed``; or ``entries``, one a row, see ``OneEntryARow``."""
    if layout == "entries":
        return OneEntryARow(source, order, start=start, end=end, length=length)
    return Packed(source, order, end=end, length=length)


class Mixed:
    """Two streams: each row comes whole from the second with probability ``ratio`` (the paper's QA_r, or celebrities).

    Which rows do is a keyed hash of the row's number, so it needs no generator state. Rows of the narrower part are padded with
    ``end``.
    """

    def __init__(self, first: Stream, second: Stream, *, ratio: float, end: int, seed: int) -> None:
        self.first, self.second, self.ratio, self.end = first, second, ratio, end
        self._key = random_access.key(seed, "mix", 0)
        self.row = 0

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The next ``rows`` rows, those numbered ``own`` as a batch."""
        numbers = np.arange(self.row, self.row + rows, dtype=np.uint64)
        second = random_access.draw(self._key, numbers, 1 << 30) < self.ratio * (1 << 30)
        self.row += rows
        start, stop, _ = own.indices(rows)
        parts = []
        for chosen, stream in ((~second, self.first), (second, self.second)):
            if chosen.any():
                mine = slice(int(chosen[:start].sum()), int(chosen[:stop].sum()))
                parts.append((torch.from_numpy(np.flatnonzero(chosen[own])), stream.take(int(chosen.sum()), mine)))
        parts = [(where, part) for where, part in parts if len(where)]
        second = second[own]
        width = max((part.input_ids.shape[1] for _, part in parts), default=0)
        input_ids = torch.full((len(second), width), self.end, dtype=torch.int64)
        targets = torch.full_like(input_ids, IGNORE)
        inside = torch.zeros((len(second), width), dtype=torch.bool)
        for where, part in parts:
            one = part.input_ids.shape[1]
            input_ids[where, :one], targets[where, :one] = part.input_ids, part.targets
            inside[where, :one] = True if part.inside is None else part.inside
        tokens = sum(part.tokens for _, part in parts)
        return Batch(input_ids, targets, tokens, second.astype(np.uint8), None if inside.all() else inside)

    def state(self) -> dict[str, Any]:
        """Row number and the state of both streams."""
        return {"row": self.row, "first": self.first.state(), "second": self.second.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores row number and both streams."""
        self.row = int(state["row"])
        self.first.restore(state["first"])
        self.second.restore(state["second"])


def batches(stream: Stream, rows: int) -> Iterator[Batch]:
    """Endless batches of ``rows`` rows."""
    while True:
        yield stream.take(rows)
