"""LoRA: low-rank changes of projections of the layers, trained on the target tokens (arXiv 2106.09685).

By default query and value of every layer change; others, a window of layers and minibatches are for comparisons such as those
of arXiv 2406.04496 (time-sensitive editing), which finds updates of the MLP to keep most and middle layers to matter most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.options import check_rules, meant
from engramlab.core.models import key_rows, module_paths
from engramlab.core.models.geometry import depth, down_projection, layer_at, matrix_shape
from engramlab.core.models.paths import linear_maps, projection
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.descent import LowRankUpdates, Minibatches, Update, descend

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, True
TOUCHES = "layers"


@dataclass(frozen=True)
class Config:
    """Rank 8, scale 32 / 8, 70 steps, as the field's comparison has them for LLaMA-2-7B (arXiv 2401.01286, appendix); without
    dropout, which only makes an edit of one example noisier."""

    layers: tuple[int, ...] | None = None
    """Layers that change; None for all."""
    window: tuple[int, int] | None = None
    """First and last of the layers that change, in place of naming each."""
    projections: tuple[Literal["query", "key", "value", "output", "gate", "up", "mlp_down", "all"], ...] = (
        "query",
        "value",
    )
    """Which projections change: of the attention, of the MLP, or all linear maps of a layer. Where several are one projection
    they share a factor, and keys stay as they are unless they are asked for."""
    rank: int = 8
    """r. With equal rank more projections are more parameters."""
    alpha: float = 32.0
    """The change is scaled by alpha / r."""
    steps: int = 70
    """Optimizer steps at most."""
    learning_rate: float = 5e-3
    """Of Adam."""
    batch: int | None = None
    """Edits a step, of those made together; None for all of them."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""
    seed: int = 0
    """Of the factor that starts at random, and of minibatches."""

    def __post_init__(self) -> None:
        meant(self)
        above = ("alpha", "learning_rate")
        check_rules(
            self,
            [(name, getattr(self, name) >= 1, "at least 1") for name in ("rank", "steps")]
            + [(name, getattr(self, name) > 0, "above 0") for name in above]
            + [
                ("batch", self.batch is None or self.batch >= 1, "at least 1, or none"),
                ("projections", bool(self.projections), "one at least"),
                ("window", self.window is None or self.layers is None, "left out where layers are named"),
                ("window", self.window is None or self.window[0] <= self.window[1], "first and last, in this order"),
            ],
        )


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A change of its own for each case, all in one batch."""
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, cases, device=device)
    layers = layers_of(model, config)
    updates = _updates(model, layers, config, len(cases), device)
    plan = recipe(config.steps, config.learning_rate)
    batches = None if config.batch is None else Minibatches(config.batch, config.seed)
    found = descend(model, requests, min(layers), updates, plan, loss, watch, config.stop_below, batches=batches)
    return [delta or failed(edits) for delta, edits in zip(found, cases, strict=True)]


def layers_of(model: nn.Module, config: Config) -> list[int]:
    """The layers that change. Raises UserError for one that does not exist, such as the end of a window."""
    if config.window is not None:
        first, last = config.window
        if last >= depth(model):
            raise UserError(f"window: it ends at layer {last}, and this model has layers 0 to {depth(model) - 1}")
        return list(range(first, last + 1))
    return [layer_at(model, layer, 0) for layer in config.layers or range(depth(model))]


def changed_matrices(model: nn.Module, config: Config) -> list[str]:
    """Paths of all matrices that change. Raises UserError for a projection that the architecture does not have."""
    layers, paths = layers_of(model, config), module_paths(model)
    if "mlp_down" in config.projections:
        [down_projection(model, layer) for layer in layers]  # refuses where there is none
    every = "all" in config.projections
    found = []
    for layer in layers:
        inside = linear_maps(model, layer) if every else [projection(model, name) for name in config.projections]
        found += [f"{paths.layers}.{layer}.{relative}" for relative in dict.fromkeys(inside)]
    return found


def parameters(model: nn.Module, config: Config) -> int:
    """How many numbers an edit trains: the sum of r (in + out) over its matrices."""
    return sum(config.rank * sum(matrix_shape(model, path)) for path in changed_matrices(model, config))


def _updates(
    model: nn.Module, layers: Sequence[int], config: Config, count: int, device: torch.device
) -> dict[str, Update]:
    paths = module_paths(model)
    still = not {"key", "all"} & set(config.projections)
    held = {
        relative: key_rows(model, f"{paths.layers}.0.{relative}") for relative in {paths.query, paths.value} if still
    }
    generator = torch.Generator().manual_seed(config.seed)
    found: dict[str, Update] = {}
    for path in changed_matrices(model, config):
        relative = path.removeprefix(f"{paths.layers}.").partition(".")[2]
        found[path] = LowRankUpdates(
            count,
            matrix_shape(model, path),
            config.rank,
            config.alpha / config.rank,
            generator,
            device,
            frozen_rows=held.get(relative),
        )
    return found
