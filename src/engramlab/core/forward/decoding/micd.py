"""MICD: what the model says by itself, and what a relevant passage adds over an irrelevant one.

Source: arXiv 2405.02750 and its released code. The chosen token continues all three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from engramlab.base.errors import UserError
from engramlab.core.forward.decoding import IMPLAUSIBLE, DecoderLogits, Decoding, plausible


@dataclass(frozen=True)
class Config(Decoding):
    """Weighs a passage against one that does not help."""

    alpha: float = 1.0
    """Weight of the contrast; 0 is the model without any passage."""
    dynamic: bool = False
    """Set the weight by confidence, token by token, in place of alpha (our formula; theirs is not public): one less the
    likeliest token's probability without a passage where that is the higher, else the likeliest's with the passage."""
    plausible: float = 0.0
    """Tokens less likely behind the passage than this share of the likeliest are out; 0 leaves all in."""
    beside: ClassVar[tuple[str, ...]] = ("bare", "irrelevant")

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise UserError(f"alpha: must be a finite number, not {self.alpha}")

        if not 0 <= self.plausible <= 1:
            raise UserError(f"plausible: must be from 0 to 1, not {self.plausible}")

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        read, (bare, irrelevant) = seen.logits.float(), (logits.float() for logits in seen.beside)
        alpha: float | torch.Tensor = self.alpha
        if self.dynamic:
            alone, helped = (x.softmax(-1).amax(-1, keepdim=True) for x in (bare, read))
            alpha = torch.where(alone > helped, 1 - alone, helped)
        contrast = bare + alpha * (read - irrelevant)
        return torch.where(plausible(read, self.plausible), contrast, IMPLAUSIBLE) if self.plausible else contrast
