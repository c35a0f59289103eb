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

# Tokens looked at before the whole vocabulary is sorted, which costs as much as a small model's step.
_HEADS = (256, 8192)


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
        scores = (seen.logits.float() / self.temperature).log_softmax(-1)
        if self.top_p == 1:
            return scores
        likeliest, tokens = scores.exp().sort(dim=-1, descending=True, stable=True)
        _, inside = self._nucleus(likeliest)
        return scores.masked_fill(~torch.zeros_like(inside).scatter(-1, tokens, inside), -torch.inf)

    def choose(self, seen: DecoderLogits, uniform: torch.Tensor | None) -> torch.Tensor:
        if not self.temperature:
            return seen.logits.argmax(-1)
        if uniform is None:
            raise UserError("sampling needs random numbers; give a seed for each prompt")
        probabilities = (seen.logits.float() / self.temperature).softmax(-1)
        chosen = torch.empty(len(probabilities), dtype=torch.long, device=probabilities.device)
        rows = torch.arange(len(probabilities), device=probabilities.device)
        for size in (*_HEADS, probabilities.shape[-1]):
            left = probabilities[rows]
            if size < left.shape[-1]:
                likeliest, tokens = left.topk(size)
                # What is to be drawn is among them: the whole nucleus, or, of the whole vocabulary, the place that is drawn.
                mass = likeliest.sum(-1)
                enough = mass > uniform[rows] if self.top_p == 1 else mass >= self.top_p
            else:
                likeliest, tokens = left.sort(dim=-1, descending=True, stable=True)
                enough = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
            found = self._drawn(likeliest, uniform[rows])
            chosen[rows[enough]] = tokens.gather(-1, found[:, None]).squeeze(-1)[enough]
            rows = rows[~enough]
            if not len(rows):
                break
        return chosen

    def _drawn(self, likeliest: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """int64 ``[n]``: which of falling probabilities ``[n, k]`` is drawn."""
        total, inside = self._nucleus(likeliest)
        if self.top_p < 1:
            uniform = uniform * torch.where(inside, likeliest, 0).sum(-1)
        return (total <= uniform[:, None]).sum(-1).minimum(inside.sum(-1) - 1)

    def _nucleus(self, likeliest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``[n, k]``: the running total of falling probabilities, and which of them are in the nucleus."""
        total = likeliest.cumsum(-1)
        return total, (total - likeliest) < self.top_p
