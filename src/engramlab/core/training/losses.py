"""Losses by name: one loss a target token, chosen by the caller and unknown to whoever runs it.

A loss takes ``logits[..., V]`` and ``targets[...]`` (token ids) and returns ``loss[...]`` in float32: no reduction, no
ignore index. Which positions count, and how they are averaged, is decided by the training loop alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F

from engramlab.base import named
from engramlab.base.errors import UserError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-probability of each target token, in nats.

    Args:
        logits: ``[..., V]``, any floating dtype; computed in float32.
        targets: ``[...]`` token ids.

    Returns:
        ``[...]`` float32.
    """
    flat = F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


def distilled(logits: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """``T^2 KL(teacher || model)`` in nats, both distributions softened by ``T``; the square keeps gradients at one size
    (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        logits: ``[..., V]``, any floating dtype; computed in float32.
        teacher: logits of the distribution that is to be matched, ``[..., V]``; no gradient.

    Returns:
        ``[...]`` float32.
    """
    wanted = (teacher.detach().float() / temperature).log_softmax(-1)
    said = (logits.float() / temperature).log_softmax(-1)
    # A token that cannot occur (a logit of -inf) counts for nothing.
    apart = torch.where(wanted.isneginf(), 0.0, wanted - said)
    return temperature**2 * (wanted.exp() * apart).sum(-1)


class Teacher:
    """Distributions to be matched step after step: ``distilled`` with all that the teacher alone decides computed once.

    Of equal logits ``distilled`` is exactly 0; this takes sums from each other, and is 0 but for rounding.

    Args:
        logits: ``[n, V]``; a token that cannot occur (-inf) counts for nothing.
    """

    def __init__(self, logits: torch.Tensor, temperature: float = 1.0) -> None:
        found = (logits.detach().float() / temperature).log_softmax(-1)
        never = found.isneginf()
        self.temperature, self.never = temperature, never if bool(never.any()) else None
        self.shares = found.exp()
        """``[n, V]``, the softened distributions."""
        self.negative_entropy = (self.shares * found.masked_fill(never, 0.0)).sum(-1)

    def __call__(self, logits: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """``distilled`` (``[m]``, float32) of the model's logits ``[m, V]`` towards the distributions with the numbers
        ``which[m]``."""
        heat, shares = self.temperature, self.shares[which]
        logits = logits.float()
        seen = logits if self.never is None else logits.masked_fill(self.never[which], 0.0)
        # KL = sum p log p - sum p z / T + log sum exp(z / T): two passes over the vocabulary, and as many back.
        said = torch.linalg.vecdot(shares, seen) / heat - (logits / heat).logsumexp(-1)
        return heat**2 * (self.negative_entropy[which] - said)


@dataclass(frozen=True)
class Overtone:
    """The loss OVERTONE with its settings; called like any loss (see ``overtone``).

    Raises:
        UserError: a setting outside its range (names the setting).
    """

    mixing: float = 0.1
    """Weight (lambda) of the target token in the distribution learnt; the rest is what the model itself holds likely. 1 for
    cross-entropy."""
    n_sigma: float = 0.5
    """What the model holds likely: tokens whose logit is at most so many standard deviations below the highest. inf for no
    filter."""
    clip: float = 0.01
    """Divergence (epsilon, nats) below which a token counts as learnt and is no longer trained. 0 for no clip."""
    check: bool = True
    """Learn the target token alone wherever the mixture would make another token the likeliest."""

    def __post_init__(self) -> None:
        for name, fine, rule in (
            ("mixing", lambda x: 0 <= x <= 1, "between 0 and 1"),
            ("n_sigma", lambda x: x >= 0, "at least 0 (inf for no filter)"),
            ("clip", lambda x: 0 <= x < math.inf, "at least 0 and finite"),
        ):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not fine(value):
                raise UserError(f"loss 'overtone': {name} must be {rule}, not {value!r}")
        if not isinstance(self.check, bool):
            raise UserError(f"loss 'overtone': check must be true or false, not {self.check!r}")

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        flat: torch.Tensor = _Overtone.apply(logits.reshape(-1, logits.shape[-1]), targets.flatten(), self)
        return flat.view(targets.shape)


def overtone(
    logits: torch.Tensor,
    targets: torch.Tensor,
    mixing: float = 0.1,
    n_sigma: float = 0.5,
    clip: float = 0.01,
    check: bool = True,
) -> torch.Tensor:
    """OVERTONE (Liu et al., ICML 2025, arXiv 2502.00602): a smoothed target for each token, and each stops by itself.

    The target distribution of a token is ``mixing`` on the target plus the rest on the model's own top-n-sigma tokens
    (renormalised, no gradient); where its likeliest token is not the target, old and new knowledge conflict and it is the
    target alone. The loss is the forward divergence KL(target distribution || model), never below ``clip``. With
    ``mixing=1, clip=0`` it is cross-entropy. No second derivatives.

    Args:
        logits: ``[..., V]``, any floating dtype; computed in float32. Logits of -inf are tokens that cannot occur: they have
            no probability and do not count for the standard deviation.
        targets: ``[...]`` token ids.
        mixing: weight of the target token, 0 to 1.
        n_sigma: reach of the filter below the highest logit, in (population) standard deviations; inf keeps all tokens.
        clip: smallest loss, in nats; a token there has no gradient. 0 for no clip.
        check: fall back on the target alone where the mixture's likeliest token is another one.

    Returns:
        ``[...]`` float32.

    Raises:
        UserError: a setting outside its range.
    """
    return Overtone(mixing, n_sigma, clip, check)(logits, targets)


def _spread(logits: torch.Tensor, scratch: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the finite logits of each row, ``[n, 1]``; ``scratch`` is overwritten."""
    count = logits.shape[-1]
    torch.sub(logits, logits.mean(-1, keepdim=True), out=scratch)
    sigma = torch.linalg.vector_norm(scratch, dim=-1, keepdim=True) / math.sqrt(count)
    if torch.isfinite(sigma).all():
        return sigma
    finite = torch.isfinite(logits)
    counts = finite.sum(-1, keepdim=True)
    mean = logits.where(finite, 0).sum(-1, keepdim=True) / counts
    return ((logits - mean).where(finite, 0).square().sum(-1, keepdim=True) / counts).sqrt()


#: The largest number below 1 in float32: what is above it is at least 1.
_BELOW_ONE = 1 - 2**-24


class _Overtone(torch.autograd.Function):
    """``overtone`` on ``logits[n, V]``, ``targets[n]``.

    For every kept token but the target, log(mixture / model) is one and the same number, log((1 - mixing) / kept mass). So
    the divergence needs no sum over the vocabulary beyond that mass, no mixture is ever written out, and the gradient
    (model - mixture) is the model's distribution, scaled where kept. Tokens are weighed relative to the filter's edge, so
    that kept means a weight of 1 or more: a comparison with a constant, several times faster than one with a column.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, settings: Overtone) -> torch.Tensor:
        wide, at = logits.float(), targets[:, None]
        rest = 1 - settings.mixing
        weights = torch.empty_like(wide)
        edge = high = wide.amax(-1, keepdim=True)
        filtered = rest > 0 and settings.n_sigma < math.inf
        if filtered:  # beyond 60 nats a token weighs nothing in float32, and the largest weight must not overflow
            edge = high - (settings.n_sigma * _spread(wide, weights)).clamp(max=60)
        torch.sub(wide, edge, out=weights).exp_()
        total = weights.sum(-1, keepdim=True)
        logit = wide.gather(-1, at)
        log_p = logit - edge - total.log()
        loss, own, scale = -log_p, torch.ones_like(total), torch.zeros_like(total)  # the target alone
        if rest > 0:
            mass, share = total, rest * log_p.exp()
            if filtered:
                mass = F.threshold(weights, _BELOW_ONE, 0).sum(-1, keepdim=True)
                weight = weights.gather(-1, at)
                share = rest * torch.where(weight >= 1, weight / mass, 0)
            target = settings.mixing + share  # the mixture's probability of the target token
            others = (rest - share) * (math.log(rest) + total.log() - mass.log())
            mixed = others + torch.where(target == 0, 0, target * (target.log() - log_p))
            used = torch.ones_like(target, dtype=torch.bool)
            if settings.check:
                used = (logit == high) | (target >= rest * (high - edge).exp() / mass)
            loss = torch.where(used, mixed, loss)
            own = torch.where(used, settings.mixing, own)
            scale = torch.where(used, rest * total / mass, scale)
        active = torch.ones_like(loss, dtype=torch.bool)
        if settings.clip > 0:
            active = loss > settings.clip
            loss = loss.clamp(min=settings.clip)
        ctx.save_for_backward(weights, at, total, own, scale, active)
        ctx.dtype, ctx.mixes, ctx.filtered = logits.dtype, rest > 0, filtered
        return loss.squeeze(-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weights, at, total, own, scale, active = ctx.saved_tensors
        pull = torch.where(active, upstream[:, None], 0)
        unit = pull / total
        if ctx.filtered:
            gradient = F.threshold(weights, _BELOW_ONE, 0)
            torch.addcmul(weights, gradient, -scale, out=gradient).mul_(unit)
        else:
            gradient = weights * (unit * (1 - scale) if ctx.mixes else unit)
        gradient.scatter_add_(-1, at, -own * pull)
        return gradient.to(ctx.dtype), None, None


#: Each loss with its default settings; a loss that has settings is a dataclass.
LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "overtone": Overtone()}


def get(name: str, **settings: Any) -> Loss:
    """The loss of that name, with these settings in place of its defaults.

    Raises:
        UserError: no such loss, no such setting (with those there are), or a setting outside its range.
    """
    return named.get(LOSSES, "loss", name, **settings)


def parse(text: str) -> Loss:
    """A loss as the command line writes it: its name, then settings: ``overtone``, ``overtone:mixing=0.3:clip=0``.

    Raises:
        UserError: an unknown name or setting, or a value that is no number (names it).
    """
    return named.parse(LOSSES, "loss", text)
