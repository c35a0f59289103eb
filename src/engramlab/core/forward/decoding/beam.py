"""Beam search, as transformers does it: the text of highest log-probability by token among several followed side by side.

It judges whole texts, so what it makes of single tokens is what the model says; scores under it are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.decoding import Decoding


@dataclass(frozen=True)
class Config(Decoding):
    """Follows several texts side by side."""

    beams: int = 4
    """How many."""

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise UserError(f"beams: must be at least 1, not {self.beams}")

    def search(self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, new: int, end: int) -> torch.Tensor:
        from transformers import GenerationConfig

        bare: Any = model
        # A model's own settings (a repetition penalty, say) fill what is not set here, and would answer another question.
        settings = GenerationConfig(
            max_new_tokens=new, num_beams=self.beams, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        own, bare.generation_config = bare.generation_config, settings
        try:
            found: torch.Tensor = bare.generate(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :]
        finally:
            bare.generation_config = own
        return found
