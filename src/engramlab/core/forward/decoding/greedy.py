"""The likeliest token (of several the one with the lowest id)."""

from __future__ import annotations

from dataclasses import dataclass

from engramlab.core.forward.decoding import Decoding, check_penalty


@dataclass(frozen=True)
class Config(Decoding):
    """Takes the likeliest token."""

    penalty: float = 1.0
    """Repetition penalty of what is written (arXiv 1909.05858); 1 is none. Likelihoods have none."""

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
