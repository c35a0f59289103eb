"""Edits by descent end as a plain loop over the whole model does, with its numbers and after its number of steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support import zoo
from torch import nn

from engramlab.base.facts import Edit, Query
from engramlab.core.models.geometry import down_projection
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.training.losses import cross_entropy
from engramlab.editing.methods import ft_l, ft_m, wise
from engramlab.editing.requests import encode_edits

TEXTS = ["The capital of France is Rome.", "Anna Lee was born in Oslo.", "The sky over Lima is very grey today."]
CASES = [
    [Edit(Query("The capital of France is", "", subject="France", id="a"), "Oslo")],
    [Edit(Query("Anna Lee was born in", "", subject="Anna Lee", id="b"), "very grey Lima")],
    [Edit(Query("The sky over Lima is", "", subject="Lima", id="c"), "Rome")],
]
LAYER = 0


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_compact_tokenizer(TEXTS, 300)


def plain(model: nn.Module, tokenizer: Any, case: list[Edit], config: Any, *, at_prompt_end: bool) -> tuple[Any, int]:
    """The change of the weight, in place and with all logits, and how many steps it took: looked at before each step."""
    weight = model.get_parameter(f"{down_projection(model, LAYER)}.weight")
    before = weight.detach().clone()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is weight)
    adam = torch.optim.Adam([weight], lr=config.learning_rate)
    rows = encode_edits(tokenizer, [case])
    taken = 0
    for _ in range(config.steps):
        logits = model(input_ids=rows.ids).logits[0]
        at = rows.prompt_ends.expand(len(rows.targets)) if at_prompt_end else rows.keep[0].nonzero().squeeze(1)
        loss = nn.functional.cross_entropy(logits[at], rows.targets)
        if loss < config.stop_below:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        taken += 1
    change = weight.detach() - before
    with torch.no_grad():
        weight.copy_(before)
    return change, taken


@pytest.mark.parametrize("method", [ft_m, ft_l], ids=["ft-m", "ft-l"])
def test_fine_tuning_stops_where_a_plain_loop_does(method: Any, tokenizer: Any) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer)).eval()
    config = method.Config(layers=(LAYER,), learning_rate=0.02, steps=40, stop_below=0.5)
    made = method.edit_each(model, tokenizer, CASES, config, cross_entropy)
    path, counts = down_projection(model, LAYER), []
    for case, delta in zip(CASES, made, strict=True):
        change, taken = plain(model, tokenizer, case, config, at_prompt_end=method is ft_l)
        got = delta.changes[path].update
        assert 0.999 < float(got.norm() / change.norm()) < 1.001
        assert float(nn.functional.cosine_similarity(got.flatten(), change.flatten(), dim=0)) > 0.9999
        counts.append(taken)
    assert min(counts) < 40  # the rule was met


def test_a_fact_that_is_known_already_changes_nothing(tokenizer: Any) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer)).eval()
    config = ft_m.Config(layers=(LAYER,), stop_below=100.0)
    for delta in ft_m.edit_each(model, tokenizer, CASES, config, cross_entropy):
        assert not delta.changes[down_projection(model, LAYER)].update.any()


def test_margins_of_side_memories_are_those_of_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(3, 5, 7, generator=generator)
    read, apart = torch.randn(6, 7, generator=generator), torch.randn(4, 7, generator=generator)
    owner = torch.tensor([0, 0, 1, 1, 2, 2])
    config = wise.Config(alpha=2.0, beta=6.0, gamma=3.0)
    got = wise.margins(config, updates, read, owner, apart)
    for g, update in enumerate(updates):
        own, far = (torch.linalg.vector_norm(x @ update.T, dim=1) for x in (read[owner == g], apart))
        parts = [far - 2.0, 6.0 - own, (far[None] - own[:, None] + 3.0).flatten()]
        expected = sum(float(part[part > 0].mean()) if bool((part > 0).any()) else 0.0 for part in parts)
        assert float(got[g]) == pytest.approx(expected, rel=1e-5)
