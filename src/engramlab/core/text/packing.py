"""Short rows side by side in one: a pass then reads hardly any padding.

A batch that mixes questions of twenty tokens with texts of a hundred is mostly padding. Here whole rows stand behind each other
in rows as long as the longest, their positions beginning anew, which is how transformers is told that none looks at another
(packed sequences). Each is read as if it stood alone; the paper's windows of several entries are another thing, see
``batches.Packed``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engramlab.base.arrays import brief
from engramlab.core.text.batches import IGNORE, Batch, moved

WORTH = 0.8  # of a batch's cells, at most, that it must come down to


@dataclass(frozen=True)
class Beside:
    """A batch's rows side by side.

    Attributes:
        input_ids, targets: int64 ``[b, T]`` with ``b`` below the batch's, as there.
        positions: int64 ``[b, T]``: 0 where a row begins; behind the last one of each they go on over the padding, which
            nothing looks at.
        places: int64 ``[b, T]``: where in the batch, row by row, each token stands; 0 for padding.
    """

    __repr__ = brief

    input_ids: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    places: torch.Tensor

    def to(self, device: torch.device) -> Beside:
        """The same rows on a device, where nobody asks for their places."""
        ids, targets, positions = (moved(part, device) for part in (self.input_ids, self.targets, self.positions))
        return Beside(ids, targets, positions, self.places)


def side_by_side(batch: Batch, worth: float = WORTH) -> Beside | None:
    """The batch's rows side by side; None where it has no padding to speak of, or padding anywhere but behind its rows.

    Args:
        worth: most cells that must be left, as a share of the batch's.
    """
    if batch.inside is None:
        return None
    inside = batch.inside.cpu().numpy()
    lengths, (rows, width) = inside.sum(1), inside.shape
    if lengths.sum() > worth * inside.size or (inside != (np.arange(width) < lengths[:, None])).any():
        return None
    shelves = _shelves(lengths, width)
    if len(shelves) > worth * rows:
        return None
    cells = np.zeros((len(shelves), width), dtype=np.int64)  # where in the batch, flat, each cell's token stands
    filled = np.zeros(cells.shape, dtype=bool)
    positions = np.empty_like(cells)
    for k, shelf in enumerate(shelves):
        at = 0
        for row in shelf:
            stop = at + int(lengths[row])
            cells[k, at:stop] = row * width + np.arange(stop - at)
            filled[k, at:stop] = True
            positions[k, at:] = np.arange(width - at)
            at = stop
    index, real = (torch.from_numpy(part).to(batch.input_ids.device) for part in (cells, filled))
    return Beside(
        batch.input_ids.flatten()[index],
        torch.where(real, batch.targets.flatten()[index], IGNORE),
        torch.from_numpy(positions).to(batch.input_ids.device),
        index,
    )


def _shelves(lengths: np.ndarray, width: int) -> list[list[int]]:
    """Rows that stand in one, longest first, each where it fits first."""
    shelves: list[list[int]] = []
    room: list[int] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        size = int(lengths[row])
        k = next((k for k, left in enumerate(room) if left >= size), len(shelves))
        if k == len(shelves):
            shelves.append([])
            room.append(width)
        shelves[k].append(row)
        room[k] -= size
    return shelves
