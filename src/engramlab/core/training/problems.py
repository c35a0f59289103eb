"""Many independent problems trained in one batch: each ends when it is solved or has failed, and then leaves the batch.

The searches behind edits are small and alike: every problem owns one leading row of each trained parameter, and nothing that
becomes of one is seen by another. The batch is narrowed as problems end, so that nobody pays for those that are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from engramlab.core.training.loop import Objective, TrainState, train
from engramlab.core.training.step import NonFiniteLoss


@dataclass(frozen=True)
class Ended:
    """A problem that has ended; ``row`` of every trained parameter is, now, what was found.

    Attributes:
        problem: its number, 0 for the first row at the start.
        row: its row in the batch as it now is.
        failed: its loss or gradient became non-finite.
    """

    problem: int
    row: int
    failed: bool


def solve(
    state: TrainState,
    objective: Objective,
    over: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None,
    leave: Callable[[torch.Tensor], None],
    *,
    share: float,
    enough: float | None = None,
) -> Iterator[Ended]:
    """Trains until every problem has ended or the recipe's steps are taken, yielding each problem as it ends.

    One that has ended may stay in the batch for a while and its row go on changing: take what was found at once.
    One that has ended by ``enough`` is as it was when its loss was seen.

    Args:
        state: local; row ``b`` of every trained parameter belongs to problem ``b``.
        objective: the loss of each problem in the batch, ``[B]``.
        over: called after each step with the losses before it and whether each gradient was exactly zero; bool ``[B]``, which
            problems need no further one. It may put parameters back into bounds: gradients are off. None: ``enough`` says all.
        leave: called with the rows (int64, ascending) that alone go on; their parameters are narrowed already, and whatever
            else the objective reads must follow.
        share: of the batch; so much of it must have ended before it is narrowed, which costs something too. 0 for at once.
        enough: a problem whose loss is below this, or whose gradient is exactly zero, ends as it stands, without a step.
    """
    device = state.trained[0].device
    alive = torch.arange(len(state.trained[0]))  # numbers of the problems in the batch
    done = torch.zeros_like(alive, dtype=torch.bool)

    def ended(rows: torch.Tensor, failed: bool = False) -> Iterator[Ended]:
        for row in rows.nonzero().flatten().tolist():
            yield Ended(int(alive[row]), row, failed or row in state.failed)

    try:
        for step in train(state, objective=objective, enough=enough):
            assert step.losses is not None
            assert step.idle is not None
            assert step.settled is not None
            with torch.no_grad():
                now = step.settled.cpu() if over is None else (over(step.losses, step.idle) | step.settled).cpu()
            now[list(state.failed)] = True
            yield from ended(now & ~done)
            done |= now
            left = (~done).nonzero().flatten()
            if not len(left):
                return
            gone = len(done) - len(left)
            if gone and gone >= share * len(done) and state.step < state.recipe.steps:
                state.keep_rows(left.to(device))
                leave(left.to(device))
                alive, done = alive[left], done[left]
    except NonFiniteLoss:  # no single one is to blame: their sum is too large
        yield from ended(~done, failed=True)
    else:
        yield from ended(~done)
