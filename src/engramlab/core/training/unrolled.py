"""Gradient steps that can be differentiated through: what a model would be, had it read something, as a function of what it is.

Source: RECKONING (arXiv 2305.06349, NeurIPS 2023): theta_{n+1} = theta_n - alpha_n * U(gradient of the facts' loss), and the
loss behind the last step goes back through all of them, to theta and to the rates alpha. Several episodes are computed in one
batch, each under weights of its own. The matrices inside the layers are what steps change, so that the change is a
``WeightDelta``; embeddings, norms and biases are learnt by the outer loop alone (that is ours: the paper changes all).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from engramlab.base.errors import UserError
from engramlab.core.deltas import Dense, OwnRows, WeightDelta, fingerprint
from engramlab.core.forward.passes import target_seen
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import weight_of
from engramlab.core.models.paths import matrix
from engramlab.core.text.batches import IGNORE, Batch

Rule = Literal["adam", "sgd"]
Weights = dict[str, torch.Tensor]
BETAS, EPS = (0.9, 0.95), 1e-8


def matrices(model: nn.Module) -> list[str]:
    """Paths of the modules inside the layers that hold a matrix: what steps change.

    Raises:
        UserError: there are none, or the layers hold experts, which are no modules of their own.
    """
    inside = f"{module_paths(model).layers}."
    found = [name for name, m in model.named_modules() if name.startswith(inside) and matrix(m) is not None]
    if not found or any(p.dim() > 2 for p in model.get_submodule(inside[:-1]).parameters()):
        raise UserError("the layers of this model hold experts, not matrices that could be changed; take a dense model")
    return found


def beginning(model: nn.Module, paths: Sequence[str], episodes: int) -> Weights:
    """The model's own weights at these paths, ``[episodes, out, in]``: views, through which gradients reach the model."""
    return {path: weight_of(model.get_submodule(path)).expand(episodes, -1, -1) for path in paths}


class Rates(nn.Module):
    """Rates of the steps, one a step and layer: ``first * exp(pace * s)``, where ``s`` is learnt and begins at 0.

    A rate thus stays above 0, and one that begins at 0 stays there.

    Args:
        paths: of what is changed.
        steps: how many steps there are.
        first: the rate that all begin with.
        pace: how many times faster than the model's parameters they are learnt.
        each: one rate a layer, or one a matrix (the released code).
    """

    def __init__(
        self,
        paths: Sequence[str],
        steps: int,
        first: float,
        *,
        pace: float = 1.0,
        each: Literal["layer", "matrix"] = "layer",
    ) -> None:
        super().__init__()
        names = [_layer(path) if each == "layer" else path for path in paths]
        self.groups = list(dict.fromkeys(names))
        self.of = {path: self.groups.index(name) for path, name in zip(paths, names, strict=True)}
        self.steps, self.first, self.pace = steps, first, pace
        self.learnt = nn.Parameter(torch.zeros(steps * len(self.groups)))  # a vector, which no weight decay pulls at

    @classmethod
    def given(
        cls, paths: Sequence[str], table: Sequence[Sequence[float]], each: Literal["layer", "matrix"] = "layer"
    ) -> Rates:
        """Rates that were learnt before: ``table[steps][groups]``, as ``table()`` gave it."""
        made = cls(paths, len(table), 1.0, each=each)
        with torch.no_grad():
            made.learnt.copy_(torch.tensor(table).log().flatten())
        return made

    def table(self) -> torch.Tensor:
        """``[steps, groups]``."""
        return (self.first * (self.pace * self.learnt).exp()).view(self.steps, -1)

    def at(self, step: int) -> dict[str, torch.Tensor]:
        """The rate of each path in this step, a scalar."""
        row = self.table()[step]
        return {path: row[group] for path, group in self.of.items()}


def _layer(path: str) -> str:
    found = re.search(r"(?:^|\.)(\d+)\.", path)
    return found[1] if found else path


class _Adam(torch.autograd.Function):
    """Adam's direction and moments behind one more gradient: ``(gradient, mean, square, steps) -> (way, mean, square)``.

    By hand, because every pass over all weights counts; epsilon stands under the root, so that a gradient of zero has a slope.
    """

    @staticmethod
    def forward(
        ctx: Any, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, steps: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first, second = BETAS
        left = 1 - second**steps
        mean = torch.lerp(mean, gradient, 1 - first)
        square = (square * second).addcmul_(gradient, gradient, value=1 - second)
        root = torch.add(square, left * EPS**2).rsqrt_()
        ctx.scale = math.sqrt(left) / (1 - first**steps)
        ctx.save_for_backward(gradient, mean, root)
        return torch.mul(mean, root).mul_(ctx.scale), mean, square

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        gradient, mean, root = ctx.saved_tensors
        way, of_mean, of_square = upstream
        first, second = BETAS
        of_mean = torch.addcmul(of_mean, way, root, value=ctx.scale)
        of_square = torch.addcmul(of_square, way * mean, root**3, value=-ctx.scale / 2)
        back = (of_mean * (1 - first)).addcmul_(gradient, of_square, value=2 * (1 - second))
        return back, of_mean.mul_(first), of_square.mul_(second), None


def unroll(
    start: Mapping[str, torch.Tensor],
    loss: Callable[[Weights], torch.Tensor],
    rates: Callable[[int], Mapping[str, torch.Tensor]],
    steps: int,
    *,
    rule: Rule = "adam",
    first_order: bool = False,
) -> Weights:
    """The weights behind ``steps`` steps, as a function of ``start`` and the rates.

    Args:
        start: tensors by name; of several independent episodes, stacked along the first dimension.
        loss: of weights: a number, or one for each episode.
        rates: of a step's number: by name, a number or what multiplies a weight.
        rule: ``adam`` (betas 0.9 and 0.95 as in the released code, no decay), or ``sgd``.
        first_order: take the steps' gradients for constants: cheaper, and nothing is known of how a step would change.
    """
    weights = dict(start)
    mean: Sequence[torch.Tensor] = [torch.zeros_like(weight) for weight in weights.values()]
    square, found = mean, mean
    for step in range(steps):
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
            here = {name: w.detach().requires_grad_() for name, w in weights.items()} if first_order else weights
            found = torch.autograd.grad(loss(here).sum(), list(here.values()), create_graph=not first_order)
        if rule == "adam":
            every = [_Adam.apply(*of, step + 1) for of in zip(found, mean, square, strict=True)]
            found, mean, square = zip(*every, strict=True)
        rate = rates(step)
        weights = {
            name: torch.addcmul(w, rate[name], way, value=-1)
            for (name, w), way in zip(weights.items(), found, strict=True)
        }
    return weights


class _Seen(nn.Module):
    """The model, asked for its logits at the targets alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return target_seen(self.model, batch.input_ids, batch.targets != IGNORE).logits


@contextmanager
def _each_its_own(model: nn.Module, paths: Sequence[str], rows: OwnRows) -> Iterator[None]:
    """Inside the block the modules at ``paths``, whose weights are ``[episodes, out, in]``, multiply each row by its own."""

    def product(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            by_row = x.reshape(len(rows.owner), -1, x.shape[-1])  # some layers flatten rows and positions
            y = rows.matmul(by_row, module.weight).reshape(*x.shape[:-1], -1)  # type: ignore[arg-type]
            bias = getattr(module, "bias", None)
            return y if bias is None else y + bias

        return forward

    modules = [model.get_submodule(path) for path in paths]
    before = [module.__dict__.get("forward") for module in modules]
    try:
        for module in modules:
            module.forward = product(module)
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if own is not None:
                module.forward = own


def losses_under(model: nn.Module, weights: Weights, batch: Batch, owner: torch.Tensor) -> torch.Tensor:
    """``[episodes]``: the mean loss of the target tokens in each episode's rows, under its own weights; the model's mode and
    its parameters are left as they are.

    Args:
        weights: ``[episodes, out, in]`` by module path.
        owner: int64 ``[rows]``: the episode of each row.
    """
    count = len(next(iter(weights.values())))
    rows = OwnRows(owner, count)
    named = {f"model.{path}.weight": weight for path, weight in weights.items()}
    with _each_its_own(model, list(weights), rows):
        logits = functional_call(_Seen(model), named, (batch,)).squeeze(0)
    keep = batch.targets != IGNORE
    each = F.cross_entropy(logits, batch.targets[keep], reduction="none")
    of = owner[:, None].expand_as(keep)[keep]
    sizes = torch.bincount(of, minlength=count).clamp(min=1)
    return torch.zeros(count, dtype=each.dtype, device=each.device).index_add(0, of, each) / sizes


def folded(
    model: nn.Module, rates: Rates, batch: Batch, owner: torch.Tensor, *, rule: Rule = "adam", first_order: bool = False
) -> Weights:
    """The weights of each episode, ``[episodes, out, in]``, behind the steps on its rows."""
    start = beginning(model, list(rates.of), int(owner.max()) + 1)
    return unroll(
        start,
        lambda weights: losses_under(model, weights, batch, owner),
        rates.at,
        rates.steps,
        rule=rule,
        first_order=first_order,
    )


@torch.no_grad()
def fold(
    model: nn.Module, rates: Rates, batch: Batch, owner: torch.Tensor, *, rule: Rule = "adam"
) -> list[WeightDelta]:
    """What each episode's rows change of the model, as deltas on the CPU: to put on, to take off, or many ``together``.

    Raises:
        UserError: the steps led to numbers that are not finite.
    """
    weights = folded(model, rates, batch, owner, rule=rule, first_order=True)
    begun = beginning(model, list(weights), 1)
    changes = {path: (w - begun[path]).float().cpu() for path, w in weights.items()}
    if not math.isfinite(sum(float(change.sum()) for change in changes.values())):
        raise UserError("folding: the steps led to weights that are no numbers; take lower rates or fewer steps")
    name = fingerprint(model)
    return [
        WeightDelta(name, {path: Dense(change[e]) for path, change in changes.items()})
        for e in range(int(owner.max()) + 1)
    ]
