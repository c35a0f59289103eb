"""Tokens drawn at random, each text's from random numbers of its own.

A token is drawn by inverting the cumulative distribution at a uniform number, a function of (seed of the text, position). A
text's randomness therefore never depends on which other texts are in its batch or were written before it. The *probabilities*
can: a batch of another shape or padding may round differently in their last bits. So the same prompts with the same seeds in
the same batches give the same texts, bit for bit on one machine; callers who want that after an interruption cut their batches
by item number, not by what is left to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engramlab.base.errors import UserError
from engramlab.core.forward.decoding import DecoderLogits, Decoding

_HEAD = 256  # tokens looked at before the whole vocabulary is sorted


@dataclass(frozen=True)
class Config(Decoding):
    """Draws tokens at random."""

    temperature: float = 1.0
    """Divides the logits; 0 always takes the likeliest token."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability (nucleus sampling, arXiv 1904.09751)."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature: must be at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: must be above 0 and at most 1, not {self.top_p}")

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        if not self.temperature:
            return seen.logits
        likeliest, tokens, _, inside = self._nucleus(seen.logits)
        nowhere = torch.full_like(seen.logits, -torch.inf, dtype=torch.float32)
        return nowhere.scatter(-1, tokens, likeliest.log().masked_fill(~inside, -torch.inf))

    def choose(self, seen: DecoderLogits, uniform: torch.Tensor | None) -> torch.Tensor:
        if not self.temperature:
            return seen.logits.argmax(-1)
        if uniform is None:
            raise UserError("sampling needs random numbers; give a seed for each prompt")
        likeliest, tokens, total, inside = self._nucleus(seen.logits)
        mass = torch.where(inside, likeliest, 0).sum(-1)
        at = (total <= (uniform * mass)[:, None]).sum(-1).minimum(inside.sum(-1) - 1)
        return tokens.gather(-1, at[:, None]).squeeze(-1)

    def _nucleus(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``[n, k]``: falling probabilities, their tokens, their running total, and which of them are in the nucleus."""
        probabilities = (logits.float() / self.temperature).softmax(-1)
        # Sorting the whole vocabulary costs as much as a small model's step, and the head nearly always holds the nucleus.
        likeliest, tokens = probabilities.topk(min(_HEAD, probabilities.shape[-1]))
        if bool((likeliest.sum(-1) < self.top_p).any()):
            likeliest, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        total = likeliest.cumsum(-1)
        return likeliest, tokens, total, (total - likeliest) < self.top_p
