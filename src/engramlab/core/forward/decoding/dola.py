"""DoLa: what the last layer says, less what an earlier one said already.

Source: arXiv 2309.03883, section 2 (equations 1 to 5). The earlier layer is chosen anew for every token of every text: the
candidate whose distribution is farthest from the last layer's. Early distributions are taken without the final norm, as in the
authors' code. No repetition penalty: the paper's 1.2 for texts is no part of the contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.decoding import IMPLAUSIBLE, DecoderLogits, Decoding, plausible


@dataclass(frozen=True)
class Config(Decoding):
    """Contrasts the last layer with an earlier one."""

    bucket: Literal["low", "high"] = "high"
    """Candidate layers: every other one of the lower or the upper half (of more than 40 layers: of the outer 20). The paper
    takes a high bucket for short factual answers and a low one for longer texts."""
    candidates: tuple[int, ...] = ()
    """Candidate layers by number, in place of a bucket; 0 is the embedding. One number: always that one."""
    plausible: float = 0.1
    """Tokens less likely than this share of the likeliest are out."""
    divergence: Literal["jensen-shannon", "released"] = "jensen-shannon"
    """How far apart two distributions are; "released" is the authors' code's formula, whose two divergences are reversed."""
    early_norm: bool = False
    """Take early distributions behind the model's final norm."""

    def __post_init__(self) -> None:
        if not 0 < self.plausible <= 1:
            raise UserError(f"plausible: must be above 0 and at most 1, not {self.plausible}")

    def layers(self, model: nn.Module) -> tuple[int, ...]:
        config = model.config.get_text_config()  # type: ignore[union-attr, operator]
        depth = int(config.num_hidden_layers)
        for layer in self.candidates:
            if not 0 <= layer < depth:
                raise UserError(
                    f"candidates: layer {layer} is not below the model's last; choose from 0 to {depth - 1}"
                )
        if self.candidates:
            return self.candidates
        # With tied embeddings the lowest states echo the token just read (transformers' rule).
        first = min(2, depth - 1) if config.tie_word_embeddings else 0
        half = 20 if depth > 40 else depth // 2
        if self.bucket == "low":
            return tuple(range(first, max(half, first + 1), 2))
        return tuple(range(depth - 20 if depth > 40 else half, depth, 2))

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        last = seen.logits.float().log_softmax(-1)
        farthest, early = None, last
        for logits in seen.early.values():
            other = logits.float().log_softmax(-1)
            apart = self._apart(last, other)
            if farthest is None:
                farthest, early = apart, other
            else:
                early = torch.where((apart > farthest)[:, None], other, early)
                farthest = farthest.maximum(apart)
        return torch.where(plausible(last, self.plausible), last - early, IMPLAUSIBLE)

    def _apart(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``[n]``: divergence in nats of two rows of log-probabilities ``[n, V]``."""
        middle = torch.logaddexp(one, other) - math.log(2)
        if self.divergence == "released":
            return (middle.exp() * (middle - (one + other) / 2)).sum(-1)
        return (one.exp() * (one - middle) + other.exp() * (other - middle)).sum(-1) / 2
