"""Knowledge extraction as small as it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.config import Finetune


def smallest(*, pretrain_steps: int, finetune_batch: int, **more: Any) -> extraction.Config:
    """The tiny preset with few steps, two templates at first and one evaluation; ``more`` are other options."""
    tiny = extraction.PRESETS["tiny"]
    return replace(
        tiny,
        first_templates=2,
        pretrain=replace(tiny.pretrain, steps=pretrain_steps, batch=8, warmup=2),
        finetune=Finetune(replace(tiny.finetune.recipe, steps=4, batch=finetune_batch)),
        evaluations=1,
        **more,
    )
