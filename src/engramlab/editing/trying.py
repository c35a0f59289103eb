"""Several methods on the same edits, each by itself, and which of them did best: what ``engramlab edit --try`` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engramlab.base.errors import UserError
from engramlab.core.training.losses import Loss
from engramlab.editing.changing import Changed, Work
from engramlab.editing.judge import preview


@dataclass(frozen=True)
class Tried:
    """A method on some edits.

    Attributes:
        changed: what became of them; its delta is not on the model. None where no edit could be made.
        reason: why not.
        seconds: to make the edits and to ask about them.
    """

    method: str
    changed: Changed | None
    reason: str
    seconds: float

    @property
    def scores(self) -> preview.Scores | None:
        """What the rows say."""
        return None if self.changed is None else preview.scores(self.changed.rows)

    @property
    def _merit(self) -> tuple[float, ...]:
        """More edits hold; then more other wordings and unrelated answers kept, added up; then less damage."""
        found = self.scores
        if found is None:
            return (-1.0,)
        held, reworded, kept = (share if share is not None else 0.0 for share in found.shares)
        return held, reworded + kept, kept, -found.drift


def try_each(work: Work, methods: Sequence[str], loss: str | Loss) -> list[Tried]:
    """Makes the edits by each method, from the model as it is, and takes them off again.

    Returns:
        One a method, in the order given.
    """
    work.ask()
    found = []
    for name in methods:
        started, changed, reason = time.monotonic(), None, ""
        try:
            work.check(name, loss, None)
            changed = work.make(name, loss)
            changed.entry.remove()
        except UserError as error:
            reason = str(error)
        found.append(Tried(name, changed, reason, time.monotonic() - started))
    return found


def best(work: Work, tried: Sequence[Tried]) -> Changed:
    """Puts the edits of the method that did best on the model; of equals the first one's.

    Raises:
        UserError: no method made any edit.
    """
    winner = max(tried, key=lambda one: one._merit)
    if winner.changed is None:
        reasons = "; ".join(f"{one.method}: {one.reason}" for one in tried)
        raise UserError(f"none of the methods made the edit ({reasons})")
    changed = winner.changed
    for delta, *_ in changed.parts:
        work.put(delta)
    return changed
