"""FT-M: fine-tunes one MLP down-projection on the target tokens, with the prompt masked (arXiv 2401.01286, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.base.facts import Edit
from engramlab.core.deltas import Delta
from engramlab.core.training.losses import Loss
from engramlab.editing import method
from engramlab.editing.solve.descent import Watch, edit_down_projections

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER = True, False, True


@dataclass(frozen=True)
class Config:
    """Layer 21 of a 32-layer model and 25 steps: the field's comparison for LLaMA-2-7B (arXiv 2401.01286, appendix)."""

    layers: tuple[int, ...] | None = None
    """Layers whose down-projection changes; None for the one at 21/32 of the depth."""
    steps: int = 25
    """Optimizer steps at most."""
    learning_rate: float = 5e-4
    """Of Adam."""
    stop_below: float = 1e-2
    """An edit is done when its mean loss over target tokens is below this; 0 for never."""


def edit(
    model: nn.Module, tokenizer: Any, edits: Sequence[Edit], config: Config, loss: Loss, watch: Watch | None = None
) -> Delta:
    """One change of the chosen matrices for all ``edits`` jointly. Raises UserError; EditFailed for non-finite values."""
    return method.only(edit_each(model, tokenizer, [edits], config, loss, watch))


def edit_each(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[Sequence[Edit]],
    config: Config,
    loss: Loss,
    watch: Watch | None = None,
) -> list[Delta | method.EditFailed]:
    """A change of its own for each case, all in one batch."""
    return edit_down_projections(
        model,
        tokenizer,
        cases,
        config.layers,
        method.recipe(config.steps, config.learning_rate),
        loss,
        stop_below=config.stop_below,
        watch=watch,
    )
