"""FT-M: fine-tunes one MLP down-projection on the target tokens, with the prompt masked (arXiv 2401.01286, section 4)."""

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
    """Layer 21 of a 32-layer model and 25 steps: the field's comparison for LLaMA-2-7B (arXiv 2401.01286, appendix)."""


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """A change of its own for each case, all in one batch."""
    return edit_down_projections(model, tokenizer, cases, config, loss, watch)
