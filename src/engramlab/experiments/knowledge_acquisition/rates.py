"""The recipe a checkpoint is trained on with: its own one continued, or AdamW with a constant learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engramlab.core.training.loop import Recipe
from engramlab.experiments.knowledge_acquisition.config import Optimizer


def recipe_of(optimizer: Optimizer, batch: int, steps: int, learning_rate: float, warmup: int = 0) -> Recipe:
    """A constant learning rate, risen to in ``warmup`` steps."""
    return Recipe(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=optimizer.weight_decay,
        eps=optimizer.eps,
        beta1=optimizer.beta1,
        beta2=optimizer.beta2,
        clip=optimizer.clip,
        schedule="constant",
        warmup=warmup,
    )


@dataclass(frozen=True)
class Continued(Recipe):
    """A recipe that goes on with another one's learning rates from its state ``offset``, or holds that one's.

    Attributes:
        origin: the recipe the checkpoint was made with.
        offset: updates it had made.
        hold: keep the learning rate of state ``offset``.
    """

    origin: Recipe = field(default_factory=Recipe)
    offset: int = 0
    hold: bool = False

    def rate(self, step: int) -> float:
        """Learning rate of the update from state ``step`` to ``step + 1`` of the run."""
        return self.origin.rate(self.offset if self.hold else self.offset + step)


def continued(origin: Recipe, offset: int, *, steps: int, batch: int, hold: bool, micro_batch: int | None) -> Continued:
    """``origin`` from ``offset`` on, with a batch of its own."""
    shared = {name: getattr(origin, name) for name in Recipe.__dataclass_fields__}
    shared |= {"steps": steps, "batch": batch, "micro_batch": micro_batch}
    return Continued(**shared, origin=replace(origin), offset=offset, hold=hold)
