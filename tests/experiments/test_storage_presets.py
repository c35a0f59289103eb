"""The presets of knowledge extraction: the paper's recipes, and that each of them can run as it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engramlab.core.models import sizes
from engramlab.experiments import _run
from engramlab.experiments import knowledge_extraction as extraction

PRESETS = extraction.PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_dry_run_of_every_preset(name: str, tmp_path: Path) -> None:
    """With few people and a tokenizer of its own: the rest, the network among it, is the preset's."""
    config = replace(PRESETS[name], people=20, tokenizer="compact")
    run = _run.tried(lambda: extraction.run(config, tmp_path / "run", preset=name))
    assert run.stages[0].steps == config.pretrain.steps
    assert not (tmp_path / "run").exists()


def test_the_paper_s_recipes() -> None:
    """arXiv 2309.14316v3, section 2 and appendix."""
    lora = PRESETS["paper-lora"]
    assert [
        (a.recipe.learning_rate, a.recipe.weight_decay, a.rank, a.embedding_rank) for a in lora.finetune.attempts()
    ] == [
        (3e-4, 0.01, 8, 128),
        (3e-4, 0.01, 16, 128),
    ]
    assert (lora.finetune.recipe.steps, lora.finetune.recipe.batch) == (50_000, 48)
    assert lora.pretrain == PRESETS["paper"].pretrain
    bior, negative = PRESETS["paper-bior"], PRESETS["paper-negative"]
    assert (bior.pretrain.steps, negative.pretrain.steps) == (150_000, 200_000)
    assert [(one.layers, one.heads, one.width) for one in map(sizes.shape, (bior.model.name, negative.model.name))] == [
        (12, 20, 1280),
        (12, 32, 2048),
    ]
    recipe = negative.pretrain  # about 73 tokens an entry, 512 a row: 1,350 times
    assert recipe.steps * recipe.batch * 512 / negative.people / 73 == pytest.approx(1350, rel=0.01)
    assert PRESETS["paper-llama"].model.family == "llama"
    mixed = [PRESETS[name] for name in ("paper-gbert-mixed", "paper-gbert-mixed-0.2")]
    assert [(one.mode, one.qa_ratio, one.model.objective) for one in mixed] == [
        ("mixed", 0.8, "masked"),
        ("mixed", 0.2, "masked"),
    ]
