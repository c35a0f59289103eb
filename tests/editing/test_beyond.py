"""What is measured beside answers: fluency, perplexity of text, divergence, the third protocol, general ability."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, quick
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.editing import method
from engramlab.editing.judge import abilities, beyond, evaluation, metrics, rivals

TEXTS = ("The sun is yellow and the moon is white.", "She was born in Washington, on October 2.")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).eval()


@pytest.fixture(scope="module")
def made(model: nn.Module, tokenizer: Any) -> list[Delta]:
    cases = [[edit] for edit in EDITS[:2]]
    return [
        d
        for d in method.make_each(model, tokenizer, cases, method="ft-m", config=quick("ft-m"))
        if isinstance(d, Delta)
    ]


CASES = [Case(str(i), (edit,)) for i, edit in enumerate(EDITS[:2])]


def test_under_many_edits_as_under_one(model: nn.Module, tokenizer: Any, made: list[Delta]) -> None:
    together = beyond.nats_under(model, tokenizer, TEXTS, made)
    fluent = beyond.fluencies(model, tokenizer, CASES, 8, made)
    for i, delta in enumerate(made):
        with deltas.active(model, delta):
            assert beyond.nats(model, tokenizer, TEXTS) == pytest.approx(together[i], abs=1e-4)
            assert beyond.fluencies(model, tokenizer, CASES[i : i + 1], 8) == pytest.approx(fluent[i : i + 1])
    assert all(value is not None and value > 0 for value in fluent)
    assert beyond.fluencies(model, tokenizer, CASES, 255) == [None, None]  # no room


def test_nats_against_a_loop(model: nn.Module, tokenizer: Any) -> None:
    values = []
    for text in TEXTS:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        logits = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        values += [-float(logits[i, ids[i + 1]].detach()) for i in range(len(ids) - 1)]
    assert beyond.nats(model, tokenizer, TEXTS) == pytest.approx(np.mean(values), abs=1e-4)
    assert beyond.nats(model, tokenizer, []) is None


@pytest.mark.parametrize("name", ["ike", "p-tuning"])
def test_what_stands_before_a_prompt_stands_before_text_too(model: nn.Module, tokenizer: Any, name: str) -> None:
    cases = [[edit] for edit in EDITS[:2]]
    made = method.make_each(model, tokenizer, cases, method=name, config=quick(name))
    under = beyond.nats_under(model, tokenizer, TEXTS, [one for one in made if isinstance(one, Delta)])
    bare = beyond.nats(model, tokenizer, TEXTS)
    for delta, value in zip(made, under, strict=True):
        assert isinstance(delta, Delta)
        with deltas.active(model, delta):
            values = []
            for text in TEXTS:
                read = delta.context(text)
                whole = tokenizer(read, return_offsets_mapping=True)
                ids = torch.tensor(whole["input_ids"])
                logits = model(input_ids=ids[None]).logits[0].log_softmax(-1)
                own = [i for i, (a, b) in enumerate(whole["offset_mapping"]) if b > a >= len(read) - len(text)]
                values += [-float(logits[i - 1, ids[i]].detach()) for i in own]
            assert len(read) > len(text)
            assert value == pytest.approx(np.mean(values), abs=1e-4)
            assert beyond.nats(model, tokenizer, TEXTS) == pytest.approx(value, abs=1e-4)
        assert abs((value or 0) - (bare or 0)) > 1e-3


def test_the_divergence(model: nn.Module, tokenizer: Any, made: list[Delta]) -> None:
    """Of no edit it is 0; of one it is what a plain loop over the two models says."""
    stays = Query("The old name of Japan was", "the Seine", role="locality")
    case = Case("a", (Edit(EDITS[0].query, EDITS[0].target, judges=(stays,)),))
    before = evaluation.before(model, tokenizer, [case])
    nothing = deltas.WeightDelta(made[0].model, {})
    assert beyond.divergence(model, tokenizer, case, before, nothing) == pytest.approx(0.0, abs=1e-6)
    found = beyond.divergence(model, tokenizer, case, before, made[0])
    front, whole = (tokenizer(text)["input_ids"] for text in (stays.prompt, f"{stays.prompt} {stays.target}"))
    ids, start = torch.tensor(whole)[None], len(front)
    was = model(input_ids=ids).logits[0].log_softmax(-1).detach()
    with deltas.active(model, made[0]):
        now = model(input_ids=ids).logits[0].log_softmax(-1).detach()
    by_hand = [(was[i].exp() * (was[i] - now[i])).sum() for i in range(start - 1, len(whole) - 1)]
    assert found == pytest.approx(float(torch.stack(by_hand).mean()), rel=1e-3)
    assert beyond.divergence(model, tokenizer, CASES[0], evaluation.before(model, tokenizer, CASES), made[0]) is None


def test_what_a_row_of_a_case_is_told(model: nn.Module, tokenizer: Any, made: list[Delta]) -> None:
    before = evaluation.before(model, tokenizer, CASES)
    measured = beyond.Beyond.of(model, tokenizer, CASES, 6, TEXTS)
    rows = evaluation.judge(model, tokenizer, CASES, before, deltas=made)
    measured.told(model, tokenizer, CASES, rows, before, made)
    first = [row for row in rows if row["query"] == 0]
    assert [row["fluency"] for row in first] == beyond.fluencies(model, tokenizer, CASES, 6, made)
    assert [row["nats"] for row in first] == beyond.nats_under(model, tokenizer, TEXTS, made)
    assert {row["nats_before"] for row in first} == {beyond.nats(model, tokenizer, TEXTS)}
    found = metrics.metrics(rows)["beyond"]
    assert found["fluency"] == pytest.approx(np.mean([row["fluency"] for row in first]))
    assert found["kl"] is None


def test_portability_over_queries_and_over_kinds() -> None:
    """Three questions of one kind and one of another: 1/4 over queries, 1/2 over kinds."""
    asked = [("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 1.0)]
    rows = [
        {"case": "1", "role": "portability", "group": group, "teacher_forced": value, "generated": None}
        for group, value in asked
    ]
    found = metrics.metrics(rows)
    assert found["teacher_forced"]["portability"] == 0.25
    assert found["portability_by_kind"] == {"teacher_forced": 0.5, "generated": None}


def test_the_third_protocol() -> None:
    """Unedited: the second factor is 1 and the divergence 0; the wanted sentiment turned round maps σ to 1 − σ."""

    def row(role: str, logprob: float, **more: Any) -> dict[str, Any]:
        return {"case": "1", "role": role, "logprobs_before": [logprob], "logprobs_after": [logprob], **more}

    rows = [row("wanted", -1.0, kl=0.0), row("rival", -2.0)]
    found = rivals.likelihood(rows, 0)
    assert found is not None
    share = 1 / (1 + math.exp(-1))
    assert found["success"] == found["success_before"] == pytest.approx(share)
    assert (found["kl"], found["cases"]) == (0.0, 1)
    turned = rivals.likelihood([row("wanted", -2.0), row("rival", -1.0)], 0)
    assert turned is not None
    assert turned["success"] == pytest.approx(1 - share)
    assert rivals.likelihood([], 0) is None


def test_what_moved(model: nn.Module, tokenizer: Any, made: list[Delta]) -> None:
    before = abilities.Ability.of(model, tokenizer, beyond.ORDINARY, "", None)
    with deltas.active(model, made[0]):
        ((name, was, now),) = before.moved(model, tokenizer)
        assert now == pytest.approx(math.exp(beyond.nats(model, tokenizer, before.texts) or 0.0))
    assert name == "Perplexity of ordinary text"
    assert was != now
    assert abilities.Ability.of(model, tokenizer, "", "", None).moved(model, tokenizer) == []
    with pytest.raises(UserError, match="nowhere"):
        abilities.check("nowhere.txt", "")
