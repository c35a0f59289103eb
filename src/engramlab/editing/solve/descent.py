"""Edits by gradient descent on changes of weights: many independent edits in one batch, each under a change of its own.

The layers below the first one that changes are computed once; an edit that is done leaves the batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.core.deltas import Change, Delta, Dense, LowRank, OwnRows, WeightDelta, fingerprint, routing
from engramlab.core.forward.hooks import frozen
from engramlab.core.forward.tails import Tail
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.core.training.losses import Loss
from engramlab.editing import method
from engramlab.editing.requests import Requests, encode_edits
from engramlab.measuring.scoring import evidence

#: Called before every step with (steps done, numbers of the groups still in the batch ``[G]``, log-probabilities of the target
#: tokens ``[n]``, their ranks ``[n]``, the requests they belong to): the course of an edit, token by token.
Watch = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, Requests], None]


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
    start: int,
    updates: Mapping[str, Update],
    recipe: Recipe,
    loss: Loss,
    *,
    stop_below: float = 0.0,
    at_prompt_end: bool = False,
    constrain: Callable[[], None] | None = None,
    watch: Watch | None = None,
) -> list[WeightDelta | None]:
    """Minimises each group's loss of its target tokens over its own changes; the model is left as it was.

    A group is done when its loss is below ``stop_below`` or its gradient is exactly zero (a loss that clips every token), and
    leaves the batch when a quarter of it is done.

    Args:
        requests: rows of ``G`` groups.
        start: the first layer that changes.
        updates: by module path, changes of ``G`` problems.
        loss: of each target token; the mean over a row, then over a group's rows, is minimised.
        at_prompt_end: every target token is predicted from the prompt's last position (the loss of FT-L), not each from the
            one before it.
        constrain: called after every step, to put the changes back into bounds.
        watch: see ``Watch``.

    Returns:
        A delta a group; None for a group whose loss or gradient became non-finite.
    """
    parameters = [p for update in updates.values() for p in update.parameters()]
    state = TrainState(nn.ParameterList(parameters), recipe, local=True)
    name = fingerprint(model)
    found: list[WeightDelta | None] = [None] * requests.groups
    alive = torch.arange(requests.groups, device=requests.ids.device)  # original numbers of the groups in the batch
    done = torch.zeros(requests.groups, dtype=torch.bool)  # of the groups in the batch

    def finish(groups: list[int]) -> None:
        for b in groups:
            if b not in state.failed:
                found[int(alive[b])] = WeightDelta(name, {path: u.change(b) for path, u in updates.items()})

    with frozen(model):
        with routing(model, requests.prompt_ends):
            tail = Tail(model, start, requests.ids)
        now = requests
        while len(alive):
            done = torch.zeros(len(alive), dtype=torch.bool)
            rows = OwnRows(now.owner, len(alive))
            keep = now.keep
            if at_prompt_end:
                keep = torch.zeros_like(keep).scatter(1, now.prompt_ends[:, None], True)

            def objective(
                now: Requests = now, tail: Tail = tail, keep: torch.Tensor = keep, groups: torch.Tensor = alive
            ) -> torch.Tensor:
                with routing(model, now.prompt_ends):  # anew for every step: what is trained may lie below what decides
                    logits = tail.logits(keep)
                if at_prompt_end:
                    logits = logits[now.target_rows]
                if watch is not None:
                    with torch.no_grad():
                        watch(state.step, groups, *evidence(logits, now.targets)[:2], now)
                return now.mean(loss(logits, now.targets))

            with _hooked(model, updates, rows):
                for step in train(state, objective=objective):
                    if constrain is not None:
                        with torch.no_grad():
                            constrain()
                    assert step.losses is not None
                    assert step.idle is not None
                    over = ((step.losses < stop_below) | step.idle).cpu() & ~done
                    over[list(state.failed)] = True
                    finish((over & ~done).nonzero().flatten().tolist())
                    done |= over
                    if int(done.sum()) * 4 >= len(alive):
                        break
            if state.step >= recipe.steps:
                finish((~done).nonzero().flatten().tolist())
                break
            left = (~done).nonzero().flatten().to(alive.device)
            state.keep_rows(left)
            tail = tail.only(torch.isin(now.owner, left).nonzero().flatten())
            now, alive = now.select(left, crop=False), alive[left]
    return found


@contextlib.contextmanager
def _hooked(model: nn.Module, updates: Mapping[str, Update], rows: OwnRows) -> Iterator[None]:
    def of(update: Update) -> Any:
        return lambda module, args, output: output + update.apply(args[0], rows)

    handles = [model.get_submodule(path).register_forward_hook(of(update)) for path, update in updates.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def edit_down_projections(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[Sequence[Edit]],
    layers: Sequence[int] | None,
    recipe: Recipe,
    loss: Loss,
    *,
    stop_below: float,
    at_prompt_end: bool = False,
    bound: float | None = None,
    watch: Watch | None = None,
) -> list[Delta | method.EditFailed]:
    """A dense change of the MLP down-projections of some layers for each case, all cases in one batch (FT-L, FT-M).

    Args:
        layers: None for the one at 21/32 of the depth.
        bound: no weight moves further than this.
    """
    chosen = [method.layer_at(model, layer, 21 / 32) for layer in layers or (None,)]
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, cases, device=device)
    paths = [method.down_projection(model, layer) for layer in chosen]
    updates = {path: DenseUpdates(len(cases), method.matrix_shape(model, path), device) for path in paths}

    def constrain() -> None:
        if bound is not None:
            for update in updates.values():
                update.update.clamp_(-bound, bound)

    found = descend(
        model,
        requests,
        min(chosen),
        updates,
        recipe,
        loss,
        stop_below=stop_below,
        at_prompt_end=at_prompt_end,
        constrain=constrain,
        watch=watch,
    )
    return [delta or method.failed(edits) for delta, edits in zip(found, cases, strict=True)]
