"""Edits by gradient descent on changes of weights: many independent edits in one batch, each under a change of its own.

The layers below the first one that changes are computed once; an edit that is done leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from engramlab.base.options import check_rules, meant
from engramlab.base.random_access import key, permute
from engramlab.core.deltas import Change, Delta, Dense, LowRank, OwnRows, WeightDelta, fingerprint, routing
from engramlab.core.forward.hooks import Graft, frozen, grafting
from engramlab.core.forward.tails import Tail, Whole
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import down_projection, layer_at, matrix_shape
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.losses import Loss
from engramlab.core.training.problems import solve
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import Requests, encode_edits
from engramlab.measuring.scoring import evidence


class Update(Protocol):
    """Trainable changes of one module, one a problem: row ``b`` of every parameter belongs to problem ``b``."""

    def parameters(self) -> list[nn.Parameter]: ...

    def apply(self, x: torch.Tensor, rows: OwnRows) -> torch.Tensor: ...

    def change(self, b: int) -> Change: ...


class DenseUpdates:
    """``count`` dense changes of a matrix ``[out, in]``, from zero."""

    def __init__(self, count: int, shape: tuple[int, int], device: torch.device) -> None:
        self.update = nn.Parameter(torch.zeros(count, *shape, device=device))

    def parameters(self) -> list[nn.Parameter]:
        return [self.update]

    def apply(self, x: torch.Tensor, rows: OwnRows) -> torch.Tensor:
        return rows.matmul(x, self.update.to(x.dtype))

    def change(self, b: int) -> Change:
        return Dense(self.update.detach()[b].cpu().clone())


class LowRankUpdates:
    """``count`` changes ``scale * left[out, r] @ right[r, in]``; right starts at random (alike for all), left at zero.

    Args:
        frozen_rows: bool ``[out]``: output rows that never change.
    """

    def __init__(
        self,
        count: int,
        shape: tuple[int, int],
        rank: int,
        scale: float,
        generator: torch.Generator,
        device: torch.device,
        frozen_rows: torch.Tensor | None = None,
    ) -> None:
        # The uniform initialisation of LoRA's factor A in its authors' and peft's code (Kaiming with a = sqrt 5).
        right = (torch.rand(rank, shape[1], generator=generator) * 2 - 1) / shape[1] ** 0.5
        self.right = nn.Parameter(right.to(device).expand(count, -1, -1).clone())
        self.left = nn.Parameter(torch.zeros(count, shape[0], rank, device=device))
        self.scale = scale
        if frozen_rows is not None:
            moving = (~frozen_rows).to(device, torch.float32)[None, :, None]
            self.left.register_hook(lambda gradient: gradient * moving)

    def parameters(self) -> list[nn.Parameter]:
        return [self.left, self.right]

    def apply(self, x: torch.Tensor, rows: OwnRows) -> torch.Tensor:
        return rows.matmul(rows.matmul(x, self.right.to(x.dtype)), self.left.to(x.dtype)) * self.scale

    def change(self, b: int) -> Change:
        return LowRank(self.left.detach()[b].cpu() * self.scale, self.right.detach()[b].cpu().clone())


def descend(
    model: nn.Module,
    requests: Requests,
    start: int | None,
    updates: Mapping[str, Update],
    recipe: Recipe,
    loss: Loss,
    watch: Watch = None,
    stop_below: float = 0.0,
    *,
    at_prompt_end: bool = False,
    batches: Minibatches | None = None,
    finish: Callable[[int], Delta] | None = None,
    constrain: Callable[[], None] | None = None,
) -> list[Any]:
    """Minimises each group's loss of its target tokens over its own changes; the model is left as it was.

    A group is done when its loss is below ``stop_below`` or its gradient is exactly zero (a loss that clips every token): it
    ends with the changes that this was seen under. It leaves the batch when a quarter of it is done.

    Args:
        requests: rows of ``G`` groups.
        start: the first layer that changes; None where the embedding does.
        updates: by module path, changes of ``G`` problems.
        loss: of each target token; the mean over a row, then over a group's rows, is minimised.
        at_prompt_end: every target token is predicted from the prompt's last position (the loss of FT-L), not each from the
            one before it.
        batches: which rows of a group a step takes; None for all. A group is then done when all batches of an epoch were.
        finish: the delta of a problem, by its row; None for the changes of weights.
        constrain: called after every step, to put the changes back into bounds.

    Returns:
        A delta a group; None for a group whose loss or gradient became non-finite.
    """
    parameters = [p for update in updates.values() for p in update.parameters()]
    state = TrainState(nn.ParameterList(parameters), recipe, local=True)
    name = fingerprint(model)
    found: list[Any] = [None] * requests.groups
    now, alive = (
        requests,
        torch.arange(requests.groups, device=requests.ids.device),
    )  # numbers of the groups in the batch
    rows = OwnRows(now.owner, len(alive))
    with routing(model, requests.prompt_ends):
        tail: Tail | Whole = (
            Whole(model, requests.ids)
            if start is None
            else Tail(model, start, requests.ids, first=_first(model, start, updates))
        )

    def objective() -> torch.Tensor:
        taken, part, own = now, tail, rows
        some = None if batches is None else batches.rows(now, state.step)
        if some is not None:
            taken, part = now.only(some), tail.only(some)
            own = OwnRows(taken.owner, len(alive))
        keep = taken.keep
        if at_prompt_end:
            keep = torch.zeros_like(keep).scatter(1, taken.prompt_ends[:, None], True)
        with (
            grafting(model, grafts_of(updates, own)),
            routing(model, taken.prompt_ends),
        ):  # anew: what is trained may lie below what decides
            logits = part.logits(keep)
        if at_prompt_end:
            logits = logits[taken.target_rows]
        if watch is not None:
            with torch.no_grad():
                watch(state.step, alive, *evidence(logits, taken.targets)[:2], taken)
        losses = taken.mean(loss(logits, taken.targets))
        return losses if batches is None else losses + batches.waiting(losses, alive, now, stop_below)

    def over(losses: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
        if constrain is not None:
            constrain()
        return torch.zeros_like(idle)  # whoever is done has been seen to be before the step

    def leave(left: torch.Tensor) -> None:
        nonlocal tail, now, alive, rows
        tail = tail.only(torch.isin(now.owner, left).nonzero().flatten())
        now, alive = now.select(left, crop=False), alive[left]
        rows = OwnRows(now.owner, len(alive))

    with frozen(model):
        for end in solve(state, objective, over, leave, share=0.25, enough=stop_below):
            if not end.failed:
                if finish is not None:
                    found[end.problem] = finish(end.row)
                    continue
                changes = {path: update.change(end.row) for path, update in updates.items()}
                found[end.problem] = WeightDelta(name, changes)
    return found


class Minibatches:
    """Which rows of each group a step of ``descend`` takes: at most ``size``, every row once an epoch, in orders of ``seed``.

    What is taken of a group depends on the seed, the step and how many rows it has alone.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.low: dict[int, int] = {}  # by problem, how many steps in a row were below

    def rows(self, requests: Requests, step: int) -> torch.Tensor | None:
        """int64, ascending; None for all."""
        counts = torch.bincount(requests.owner, minlength=requests.groups).tolist()
        if max(counts) <= self.size:
            return None
        taken, start = [], 0
        for count in counts:  # rows of a group stand together
            epoch, place = divmod(step, -(-count // self.size))
            order = permute(key(self.seed, "minibatch", epoch, count), range(count), count)
            taken.append(torch.as_tensor(sorted(order[place * self.size : (place + 1) * self.size].tolist())) + start)
            start += count
        return torch.cat(taken).to(requests.ids.device)

    def waiting(self, losses: torch.Tensor, alive: torch.Tensor, requests: Requests, enough: float) -> torch.Tensor:
        """``[B]``, to be added to losses: so much that a group which has not been below ``enough`` for an epoch is not done."""
        counts = torch.bincount(requests.owner, minlength=requests.groups).tolist()
        more = torch.zeros_like(losses)
        for row, (problem, count, now) in enumerate(zip(alive.tolist(), counts, losses.tolist(), strict=True)):
            self.low[problem] = self.low.get(problem, 0) + 1 if now < enough else 0
            if self.low[problem] < -(-count // self.size):
                more[row] = enough
        return more


def grafts_of(updates: Mapping[str, Update], rows: OwnRows) -> dict[str, Graft]:
    """What puts updates on the modules of a pass, by path: each of the batch's ``rows`` under its own."""

    def graft(update: Update) -> Graft:
        return lambda x, y: (y + update.apply(x, rows)).to(y.dtype)

    return {path: graft(update) for path, update in updates.items()}


def _first(model: nn.Module, start: int, updates: Mapping[str, Update]) -> str | None:
    """The one module of layer ``start`` that changes, if it is but one; several are not put in the order they are called in."""
    layer = f"{module_paths(model).layers}.{start}."
    inside = [path for path in updates if path.startswith(layer)]
    return inside[0] if len(inside) == 1 else None


@dataclass(frozen=True)
class Projections:
    """Settings of a descent on MLP down-projections; the methods' configurations add theirs."""

    layers: tuple[int, ...] | None = None
    """Layers whose down-projection changes; None for the one at 21/32 of the depth."""
    steps: int = 25
    """Optimizer steps at most."""
    learning_rate: float = 5e-4
    """Of Adam."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""

    def __post_init__(self) -> None:
        meant(self)
        check_rules(
            self,
            (("steps", self.steps >= 1, "at least 1"), ("learning_rate", self.learning_rate > 0, "above 0")),
        )


def edit_down_projections(
    model: nn.Module,
    tokenizer: Any,
    cases: Cases,
    config: Projections,
    loss: Loss,
    watch: Watch,
    *,
    at_prompt_end: bool = False,
    bound: float | None = None,
    requests: Requests | None = None,
) -> Made:
    """A dense change of the MLP down-projections of some layers for each case, all cases in one batch (FT-L, FT-M).

    Args:
        bound: no weight moves further than this.
        requests: rows of the cases, where they are not just their edits; a group a case.
    """
    layers = [layer_at(model, layer, 21 / 32) for layer in config.layers or (None,)]
    paths = [down_projection(model, layer) for layer in layers]
    device = next(model.parameters()).device
    updates = {path: DenseUpdates(len(cases), matrix_shape(model, path), device) for path in paths}

    def constrain() -> None:
        if bound is not None:
            for update in updates.values():
                update.update.clamp_(-bound, bound)

    requests = encode_edits(tokenizer, cases, device=device) if requests is None else requests
    plan = recipe(config.steps, config.learning_rate)
    stop, end = config.stop_below, at_prompt_end
    found = descend(
        model, requests, min(layers), updates, plan, loss, watch, stop, at_prompt_end=end, constrain=constrain
    )
    return [delta or failed(edits) for delta, edits in zip(found, cases, strict=True)]
