"""FT-L: fine-tunes one MLP down-projection with the loss at the prompt's last position only: the constrained fine-tuning that
ROME is compared with (arXiv 2202.05262, section 3.4 and appendix E)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.core.training.losses import Loss
from engramlab.editing.method import Cases, Made, Watch
from engramlab.editing.solve.descent import Projections, edit_down_projections

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, True, True


@dataclass(frozen=True)
class Config(Projections):
    """All target tokens are made likely right after the prompt, so a target of several tokens is not learnt in order: that is
    the method as published, and why FT-M exists."""

    norm_constraint: float | None = None
    """No weight moves further than this (FT+L: 5e-5 to 5e-4); None for no bound."""


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A change of its own for each case, all in one batch."""
    bound = config.norm_constraint
    return edit_down_projections(model, tokenizer, cases, config, loss, watch, at_prompt_end=True, bound=bound)
