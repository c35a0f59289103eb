"""Context-aware decoding: what the model says with a passage, less what it says without.

Source: arXiv 2305.14739, equation 2. The chosen token continues both.
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
    """Trusts a passage more than what the model holds by itself."""

    alpha: float = 0.5
    """Weight of the contrast; 0 is plain reading. The authors take 1 where passages contradict what the model knows."""
    plausible: float = 0.0
    """Tokens less likely than this share of the likeliest are out (`filter_p` in the authors' files); 0 leaves all in."""
    beside: ClassVar[tuple[str, ...]] = ("bare",)

    def __post_init__(self) -> None:
        if not math.isfinite(self.alpha):
            raise UserError(f"alpha: must be a finite number, not {self.alpha}")
        if not 0 <= self.plausible <= 1:
            raise UserError(f"plausible: must be from 0 to 1, not {self.plausible}")

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        read, (bare,) = seen.logits.float(), seen.beside
        contrast = (1 + self.alpha) * read - self.alpha * bare.float()
        return torch.where(plausible(read, self.plausible), contrast, IMPLAUSIBLE) if self.plausible else contrast
