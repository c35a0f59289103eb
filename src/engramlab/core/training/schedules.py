"""Learning-rate schedules by name: what part of the highest learning rate is left, once the warm-up is over.

A schedule takes the steps made since the warm-up, the steps there are behind it and the recipe's ``final``, and returns the
factor of the highest learning rate for the next update. A new one is one entry of ``SCHEDULES``; one that has settings is a
dataclass, written as in ``halving:every=20``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from engramlab.base import named
from engramlab.base.errors import UserError

Schedule = Callable[[int, int, float], float]


def _done(step: int, steps: int) -> float:
    return min(1.0, step / max(1, steps))


def cosine(step: int, steps: int, final: float) -> float:
    """Half a cosine from 1 to ``final``."""
    return final + (1 - final) * ((1 + math.cos(math.pi * _done(step, steps))) / 2)


def linear(step: int, steps: int, final: float) -> float:
    """A straight line from 1 to ``final``."""
    return final + (1 - final) * (1 - _done(step, steps))


def constant(step: int, steps: int, final: float) -> float:
    """Always 1."""
    return 1.0


@dataclass(frozen=True)
class Halving:
    """Halved again and again."""

    every: float = 20
    """Steps after which the learning rate is halved."""

    def __post_init__(self) -> None:
        if not self.every >= 1:
            raise UserError(f"schedule 'halving': every must be at least 1, not {self.every:g}")

    def __call__(self, step: int, steps: int, final: float) -> float:
        return float(0.5 ** (step // self.every))


@dataclass(frozen=True)
class Plateau:
    """1, and in the end a straight line to ``final``."""

    fall: float = 0.25
    """Share of the steps in which it falls, the last ones."""

    def __post_init__(self) -> None:
        if not 0 < self.fall <= 1:
            raise UserError(f"schedule 'plateau': fall must be above 0 and at most 1, not {self.fall:g}")

    def __call__(self, step: int, steps: int, final: float) -> float:
        falling = self.fall * steps
        return linear(max(0, math.ceil(step - (steps - falling))), math.ceil(falling), final)


#: Each schedule with its default settings.
SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "halving": Halving(),
    "plateau": Plateau(),
}


def parse(text: str) -> Schedule:
    """A schedule as a recipe writes it; raises UserError for an unknown name or setting."""
    return named.parse(SCHEDULES, "schedule", text)
