"""LoRA: low-rank changes of the query and value projections of every layer, trained on the target tokens (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.options import check_rules, meant
from engramlab.core.models import key_rows, module_paths
from engramlab.core.models.geometry import depth, down_projection, layer_at, matrix_shape
from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.solve.descent import LowRankUpdates, Update, descend

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, True
TOUCHES = "layers"


@dataclass(frozen=True)
class Config:
    """Rank 8, scale 32 / 8, 70 steps, as the field's comparison has them for LLaMA-2-7B (arXiv 2401.01286, appendix); without
    dropout, which only makes an edit of one example noisier."""

    layers: tuple[int, ...] | None = None
    """Layers that change; None for all."""
    projections: tuple[Literal["query", "value", "mlp_down"], ...] = ("query", "value")
    """Which projections change. Where query, key and value are one projection, query and value share a factor."""
    rank: int = 8
    """r."""
    alpha: float = 32.0
    """The change is scaled by alpha / r."""
    steps: int = 70
    """Optimizer steps at most."""
    learning_rate: float = 5e-3
    """Of Adam."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""
    seed: int = 0
    """Of the factor that starts at random."""

    def __post_init__(self) -> None:
        meant(self)
        above = ("alpha", "learning_rate")
        check_rules(
            self,
            [(name, getattr(self, name) >= 1, "at least 1") for name in ("rank", "steps")]
            + [(name, getattr(self, name) > 0, "above 0") for name in above],
        )


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A change of its own for each case, all in one batch."""
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, cases, device=device)
    layers = [layer_at(model, layer, 0) for layer in config.layers or range(depth(model))]
    updates = _updates(model, layers, config, len(cases), device)
    plan = recipe(config.steps, config.learning_rate)
    found = descend(model, requests, min(layers), updates, plan, loss, watch, config.stop_below)
    return [delta or failed(edits) for delta, edits in zip(found, cases, strict=True)]


def _updates(
    model: nn.Module, layers: Sequence[int], config: Config, count: int, device: torch.device
) -> dict[str, Update]:
    paths = module_paths(model)
    if "mlp_down" in config.projections:
        [down_projection(model, layer) for layer in layers]  # refuses where there is none
    changed = list(dict.fromkeys(getattr(paths, projection) for projection in config.projections))
    held = {relative: key_rows(model, f"{paths.layers}.0.{relative}") for relative in changed}
    generator = torch.Generator().manual_seed(config.seed)
    found: dict[str, Update] = {}
    for layer in layers:
        for relative in changed:
            path = f"{paths.layers}.{layer}.{relative}"
            shape = matrix_shape(model, path)
            found[path] = LowRankUpdates(
                count, shape, config.rank, config.alpha / config.rank, generator, device, frozen_rows=held[relative]
            )
    return found
