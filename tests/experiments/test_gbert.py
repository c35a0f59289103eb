"""Masked language models (GBERT) through the whole experiment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.extraction import smallest

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text.tokens import join
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.config import Finetune
from engramlab.report.page import write_report

SMALLEST = smallest(
    variants=("multi2+permute",),
    people=6,
    model=extraction.Model(objective="masked"),
    pretrain_steps=12,
    finetune_batch=12,
)


def test_what_is_reported_is_what_the_saved_model_names(tmp_path: Path) -> None:
    """The questions again, one at a time, with as many mask tokens as the answer has."""
    recipe = replace(SMALLEST.finetune.recipe, steps=150, learning_rate=5e-3)
    summary = extraction.run(replace(SMALLEST, people=4, finetune=Finetune(recipe)), tmp_path / "run")
    folder = tmp_path / "run" / "multi2+permute"
    model, tokenizer = models.load(str(folder / "finetune" / "model"))
    assert models.mask_token(model) == tokenizer.mask_token_id is not None
    answers = json.loads((folder / "examples.json").read_text())["answers"]
    for a in answers:
        prompt = tokenizer(a["prompt"])["input_ids"]
        whole = tokenizer(join(a["prompt"], a["gold"])[0])["input_ids"]
        hidden = prompt + [tokenizer.mask_token_id] * (len(whole) - len(prompt)) + [tokenizer.eos_token_id]
        with torch.no_grad():
            said = model(input_ids=torch.tensor([hidden])).logits[0].argmax(-1)[len(prompt) : len(whole)].tolist()
        assert tokenizer.decode(said).strip() == a["answer"]
        assert a["correct"] == (said == whole[len(prompt) :])
    assert any(a["correct"] for a in answers if a["group"] == "train"), "the test wants some right answers"
    for group in ("train", "test"):
        mean = next(r for r in summary["rows"] if (r["group"], r["attribute"]) == (group, "mean"))
        right = [a["correct"] for a in answers if a["group"] == group]  # two people a group: all are examples
        assert mean["exact_match"] == pytest.approx(sum(right) / len(right))
        assert mean["mode"] == "masked finetune"
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "masked finetune" in page
    assert "masked models answer well about birth date and major" in page


def test_mixed_training_and_a_model_of_the_other_kind(tmp_path: Path) -> None:
    config = replace(SMALLEST, mode="mixed", layout="packed", model=replace(SMALLEST.model, context=96))
    summary = extraction.run(config, tmp_path / "run")
    assert {r["mode"] for r in summary["rows"]} == {"masked mixed"}
    saved = str(tmp_path / "run" / "multi2+permute" / "mixed" / "model")
    with pytest.raises(UserError, match="is a masked language model; give --model.objective masked"):
        extraction.run(replace(SMALLEST, model=extraction.Model(saved)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_words_by_beam_search_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="beams: a masked model"):
        extraction.run(replace(SMALLEST, beams=4), tmp_path / "run")
    with pytest.raises(UserError, match=r"model\.masked_words must be between 0 and 1"):
        extraction.run(replace(SMALLEST, model=replace(SMALLEST.model, masked_words=0.0)), tmp_path / "run")


def test_the_paper_s_recipe() -> None:
    """arXiv 2309.14316: GBERT is pretrained for 150,000 steps at 3e-4 and finetuned with LoRA, linearly to zero."""
    preset = extraction.PRESETS["paper-gbert"]
    assert (preset.pretrain.steps, preset.pretrain.batch, preset.pretrain.learning_rate) == (150_000, 96, 3e-4)
    assert {(r.learning_rate, r.weight_decay, r.schedule, r.final) for r, *_ in preset.finetune.attempts()} == {
        (3e-4, 0.01, "linear", 0.0)
    }
    assert [ranks for _, *ranks in preset.finetune.attempts()] == [[8, 128], [8, "full"], [32, 128], [32, "full"]]
    assert (preset.model.objective, preset.model.masked_words) == ("masked", 0.15)
