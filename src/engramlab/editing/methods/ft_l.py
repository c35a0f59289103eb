"""FT-L: fine-tunes one MLP down-projection with the loss at the prompt's last position only: the constrained fine-tuning that
ROME is compared with (arXiv 2202.05262, section 3.4 and appendix E)."""

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
    """All target tokens are made likely right after the prompt, so a target of several tokens is not learnt in order: that is
    the method as published, and why FT-M exists."""

    layers: tuple[int, ...] | None = None
    """Layers whose down-projection changes; None for the one at 21/32 of the depth."""
    steps: int = 25
    """Optimizer steps at most."""
    learning_rate: float = 5e-4
    """Of Adam."""
    norm_constraint: float | None = None
    """No weight moves further than this (FT+L: 5e-5 to 5e-4); None for no bound."""
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
        at_prompt_end=True,
        bound=config.norm_constraint,
        watch=watch,
    )
