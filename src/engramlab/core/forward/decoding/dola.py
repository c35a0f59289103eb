"""DoLa: what the last layer says, less what an earlier one said already.

Source: arXiv 2309.03883, section 2 (equations 1 to 5) and the authors' code. The earlier layer is chosen anew for every token
of every text: the candidate whose distribution is farthest from the last layer's. Early distributions are taken without the
final norm, as in the authors' code. Texts are written with a repetition penalty behind the contrast, likelihoods have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import draw, key
from engramlab.core.forward.decoding import IMPLAUSIBLE, DecoderLogits, Decoding, check_penalty, plausible

Divergence = Literal["jensen-shannon", "released"]
_AT_ONCE = 1 << 17  # numbers looked at at a time, so that what is made of them stays in the processor's cache
_LEAST = -80.0


@dataclass(frozen=True)
class Config(Decoding):
    """Contrasts the last layer with an earlier one."""

    bucket: Literal["low", "high"] = "high"
    """Candidate layers: every other one of the lower or the upper half (of more than 40 layers: of the outer 20). The paper
    takes a high bucket for short factual answers and a low one for longer texts."""
    candidates: tuple[int, ...] = ()
    """Candidate layers by number, in place of a bucket; 0 is the embedding. One number: always that one (static)."""
    pick: Literal["farthest", "random"] = "farthest"
    """Which candidate: the one farthest from the last layer, or, as a control, any, drawn anew for every token."""
    plausible: float = 0.1
    """Tokens less likely than this share of the likeliest are out; 0 with likelihood none alone (the authors' TruthfulQA)."""
    divergence: Divergence = "jensen-shannon"
    """How far apart two distributions are; "released" is the authors' code's formula, whose two divergences are reversed."""
    early_norm: bool = False
    """Take early distributions behind the model's final norm."""
    penalty: float = 1.2
    """Repetition penalty of what is written, behind the contrast; 1 is none. Likelihoods have none."""
    likelihood: Literal["all", "head", "none"] = "all"
    """Likelihoods are made to add up to one over all tokens, before those that are out are (the authors' code for FACTOR), over
    those left in (what tokens are drawn from), or not at all (theirs for TruthfulQA: no probabilities)."""
    seed: int = 0
    """Of random picks."""

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        if not (0 < self.plausible <= 1 or (self.plausible == 0 and self.likelihood == "none")):
            raise UserError(f"plausible: must be above 0 and at most 1, not {self.plausible}")

    @property
    def by_text(self) -> bool:  # type: ignore[override]
        """Random picks go by their place."""
        return self.pick == "random"

    def layers(self, model: nn.Module) -> tuple[int, ...]:
        config = model.config.get_text_config()  # type: ignore[union-attr, operator]
        depth = int(config.num_hidden_layers)
        for layer in self.candidates:
            if not 0 <= layer < depth:
                raise UserError(
                    f"candidates: layer {layer} is not below the model's last; choose from 0 to {depth - 1}"
                )
        if self.candidates:
            return tuple(dict.fromkeys(self.candidates))
        # With tied embeddings the lowest states echo the token just read (transformers' rule).
        first = min(2, depth - 1) if config.tie_word_embeddings else 0
        half = 20 if depth > 40 else depth // 2
        if self.bucket == "low":
            return tuple(range(first, max(half, first + 1), 2))
        return tuple(range(depth - 20 if depth > 40 else half, depth, 2))

    def scores(self, seen: DecoderLogits) -> torch.Tensor:
        rows = max(1, _AT_ONCE // seen.logits.shape[-1])
        picked = self._drawn(seen) if self.pick == "random" and len(seen.early) > 1 else None
        parts = []
        for start in range(0, len(seen.logits), rows):
            part = slice(start, start + rows)
            early = [logits[part].float() for logits in seen.early.values()]
            parts.append(self._contrast(seen.logits[part].float(), early, None if picked is None else picked[part]))
        return torch.cat(parts) if parts else seen.logits.float()

    def mass(self, scores: torch.Tensor) -> torch.Tensor:
        return super().mass(scores) if self.likelihood == "head" else scores.new_zeros(len(scores))

    def _contrast(self, logits: torch.Tensor, early: list[torch.Tensor], picked: torch.Tensor | None) -> torch.Tensor:
        last, likely = both(logits)
        if picked is None:
            picked = torch.zeros(len(last), dtype=torch.int64)
            if len(early) > 1:
                far = [_apart(last, likely, *both(other), self.divergence) for other in early]
                picked = torch.stack(far).argmax(0)
        contrast = last - both(torch.stack([early[k][row] for row, k in enumerate(picked.tolist())]))[0]
        if self.likelihood == "all":
            contrast = contrast.log_softmax(-1)
        return torch.where(plausible(last, self.plausible), contrast, IMPLAUSIBLE)

    def _drawn(self, seen: DecoderLogits) -> torch.Tensor:
        """int64 ``[n]``: a candidate for each place, by the seed, how many tokens stand before it and the last of them."""
        assert seen.before is not None
        before = seen.before.cpu()
        place = (before >= 0).sum(-1) * (1 << 32) + before[:, -1]
        return torch.from_numpy(draw(key(self.seed, "layer"), place.numpy(), len(seen.early)))


def both(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and probabilities of logits ``[n, V]``, for one exponential an element.

    Probabilities below 1e-35 of the likeliest's count as that: processors take a hundred times as long for what is smaller.
    """
    below = logits - logits.amax(-1, keepdim=True)
    parts = below.clamp(min=_LEAST).exp_()
    total = parts.sum(-1, keepdim=True)
    return below.sub_(total.log()), parts.div_(total)


def apart(one: torch.Tensor, other: torch.Tensor, divergence: Divergence = "jensen-shannon") -> torch.Tensor:
    """``[n]``: divergence in nats of the distributions that two rows of logits ``[n, V]`` give."""
    return _apart(*both(one), *both(other), divergence)


def _apart(
    log_p: torch.Tensor, p: torch.Tensor, log_q: torch.Tensor, q: torch.Tensor, divergence: Divergence
) -> torch.Tensor:
    middle = (p + q).mul_(0.5)
    between = middle.log()
    if divergence == "released":
        return (middle * (between - (log_p + log_q) / 2)).sum(-1)
    # One logarithm an element: of what is between; each difference is small where the two are alike, so nothing cancels.
    return ((log_p - between).mul_(p).sum(-1) + (log_q - between).mul_(q).sum(-1)).clamp_(0, 2 * math.log(2)) / 2
