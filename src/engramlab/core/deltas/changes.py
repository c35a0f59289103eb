"""Changes of one weight matrix, dense or low-rank, and the arithmetic of many at once: each row under its own change.

Everything here is written out x in, whatever a module stores: GPT-2's ``Conv1D`` keeps its weight in x out, and nobody else
has to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engramlab.base.arrays import brief


@dataclass(frozen=True)
class Dense:
    """A change of a whole matrix: ``update[out, in]``, float32."""

    __repr__ = brief

    update: torch.Tensor

    def matrix(self) -> torch.Tensor:
        """``[out, in]``."""
        return self.update

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """What the change adds to the module's output: ``x[..., in] -> [..., out]``."""
        return x @ self.update.to(x.device, x.dtype).T

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.update.shape[0], self.update.shape[1]


@dataclass(frozen=True)
class LowRank:
    """A change of low rank: ``left[out, r] @ right[r, in]``, float32."""

    __repr__ = brief

    left: torch.Tensor
    right: torch.Tensor

    def matrix(self) -> torch.Tensor:
        """``[out, in]``."""
        return self.left @ self.right

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """What the change adds to the module's output: ``x[..., in] -> [..., out]``."""
        return (x @ self.right.to(x.device, x.dtype).T) @ self.left.to(x.device, x.dtype).T

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.left.shape[0], self.right.shape[1]


Change = Dense | LowRank


def add(changes: Sequence[Change]) -> Change:
    """The sum of changes of one matrix; low-rank ones stay low-rank while their ranks together stay below half of the full."""
    if len(changes) == 1:
        return changes[0]
    factors = [c for c in changes if isinstance(c, LowRank)]
    if len(factors) == len(changes) and sum(c.left.shape[1] for c in factors) * 2 <= min(factors[0].shape):
        return LowRank(torch.cat([c.left for c in factors], 1), torch.cat([c.right for c in factors], 0))
    total = changes[0].matrix().clone()
    for change in changes[1:]:
        total += change.matrix()
    return Dense(total)


class OwnRows:
    """Which rows of a batch belong to which of ``count`` independent changes, and products under that assignment.

    Args:
        owner: int64 ``[R]``: the change each row is under.
        count: how many changes there are.
    """

    def __init__(self, owner: torch.Tensor, count: int) -> None:
        self.owner, self.count = owner, count
        self.one_each = len(owner) == count and bool((owner == torch.arange(count, device=owner.device)).all())
        self.present: torch.Tensor | None = None  # the changes that have rows, where some have none
        self.parts = count
        if not self.one_each:
            present, own = owner.unique(return_inverse=True)
            if len(present) < count:
                self.present, self.parts = present, len(present)
            sizes = torch.bincount(own, minlength=self.parts)
            self.order = own.argsort(stable=True)
            start = sizes.cumsum(0) - sizes
            slot = torch.arange(len(own), device=own.device) - start[own[self.order]]
            self.width = max(1, int(sizes.max())) if len(own) else 1
            place = own[self.order] * self.width + slot  # of row order[i] in the padded [parts * width] table
            self.place = place
            self.back = torch.empty_like(place).index_copy(0, self.order, place)

    def matmul(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """``x[R, T, in]`` times each row's own ``weights[count, out, in]`` -> ``[R, T, out]``; one batched product."""
        # Weights first: their gradient then comes out as they lie, and is not copied once more.
        if self.one_each:
            return torch.bmm(weights, x.transpose(1, 2)).transpose(1, 2)
        if self.present is not None:
            weights = weights.index_select(0, self.present)
        rows, length, width = x.shape
        if self.parts == 1:
            return (x.reshape(rows * length, width) @ weights.squeeze(0).T).view(rows, length, -1)
        table = x.new_zeros(self.parts * self.width, length, width).index_copy(0, self.place, x[self.order])
        out = torch.bmm(weights, table.view(self.parts, self.width * length, width).transpose(1, 2)).transpose(1, 2)
        return out.reshape(self.parts * self.width, length, -1).index_select(0, self.back)


class Together:
    """The changes that several independent deltas make to one module, computed for all rows of a batch at once.

    Args:
        changes: one a delta; None where a delta leaves this module alone.
    """

    def __init__(self, changes: Sequence[Change | None]) -> None:
        self.changes = list(changes)
        there = [c for c in self.changes if c is not None]
        self.stacked: tuple[torch.Tensor, torch.Tensor] | None = None
        if all(isinstance(c, LowRank) for c in there):
            out, into = there[0].shape
            rank = max(c.left.shape[1] for c in there if isinstance(c, LowRank))
            left = torch.zeros(len(self.changes), out, rank)
            right = torch.zeros(len(self.changes), rank, into)
            for i, change in enumerate(self.changes):
                if isinstance(change, LowRank):
                    left[i, :, : change.left.shape[1]] = change.left
                    right[i, : change.right.shape[0]] = change.right
            self.stacked = left, right

    def apply(self, x: torch.Tensor, y: torch.Tensor, rows: OwnRows) -> torch.Tensor:
        """``y[R, T, out]`` with each row's own change of ``x[R, T, in]`` added."""
        if self.stacked is not None:
            left, right = (t.to(x.device, x.dtype) for t in self.stacked)
            self.stacked = left, right
            return y + rows.matmul(rows.matmul(x, right), left)
        out = y.clone()
        for d in rows.owner.unique().tolist():
            change = self.changes[d]
            if change is not None:
                mine = (rows.owner == d).nonzero().squeeze(1)
                out[mine] = y[mine] + change.apply(x[mine])
        return out
