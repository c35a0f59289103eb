"""Options in the gap of a statement: every score against a naive loop over the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text.tokenizers import train_compact_tokenizer, with_mask
from engramlab.corpora.cloze import Cloze, bare
from engramlab.measuring import cloze

CLOZES = [Cloze("The capital of France is ", "."), Cloze("", " is the capital of Japan."), bare("What is the Seine?")]
OPTIONS = [["Paris", "October 2"], ["Edo", "Washington", "Edo"], ["the Seine", "Answer"]]


@pytest.fixture(scope="module")
def masked() -> tuple[Any, Any]:
    tokenizer = with_mask(train_compact_tokenizer(zoo.SENTENCES, 400))
    return models.build("2x32", tokenizer, family="gpt-neox", masked=True, context=64, seed=1), tokenizer


@pytest.fixture(scope="module")
def causal() -> tuple[Any, Any]:
    tokenizer = zoo.ZOO["gpt2"](zoo.SENTENCES)
    return zoo.model("gpt2", vocabulary=len(tokenizer), max_position_embeddings=64), tokenizer


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(torch.tensor([ids])).logits[0].float()
    return out


def texts() -> list[tuple[str, int, int]]:
    return [c.filled(o) for c, listed in zip(CLOZES, OPTIONS, strict=True) for o in listed]


def test_masked_scores_by_hand(masked: tuple[Any, Any]) -> None:
    model, tokenizer = masked
    found = cloze.score_options(model, tokenizer, CLOZES, OPTIONS, ["raw", "pll", "answer"])
    hidden = models.mask_token(model)
    rows = {"raw": 0, "pll": 0, "answer": 0}
    for k, (text, start, end) in enumerate(texts()):
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        inner = range(1, len(ids))
        option = [i for i in inner if spans[i][0] < end and spans[i][1] > start]
        free = logits_of(model, ids)
        raw = float(np.mean([free[i, ids[i]].item() for i in inner]))
        pll = 0.0
        for i in inner:
            hiding = [hidden if j == i else t for j, t in enumerate(ids)]
            pll += logits_of(model, hiding)[i].log_softmax(-1)[ids[i]].item()  # type: ignore[arg-type]
        hiding = [hidden if j in option else t for j, t in enumerate(ids)]
        at = logits_of(model, hiding).log_softmax(-1)  # type: ignore[arg-type]
        answer = sum(at[i, ids[i]].item() for i in option)
        for name, value in (("raw", raw), ("pll", pll), ("answer", answer)):
            assert found[name][0].scores[k] == pytest.approx(value, abs=1e-4), name
        if k != 4:  # "Edo" again
            rows = {"raw": rows["raw"] + 1, "pll": rows["pll"] + len(inner), "answer": rows["answer"] + 1}
    assert {name: read for name, (_, read) in found.items()} == rows
    assert rows["pll"] >= 5 * rows["answer"]


def test_causal_scores_by_hand(causal: tuple[Any, Any]) -> None:
    model, tokenizer = causal
    found = cloze.score_options(model, tokenizer, CLOZES, OPTIONS, ["sum", "mean"])
    first = tokenizer.eos_token
    for k, (text, start, end) in enumerate(texts()):
        cl = CLOZES[(0, 0, 1, 1, 1, 2, 2)[k]]
        whole = text[: len(text) if cl.after.strip(" .") else end]
        lead = f"{first} " if not start else ""
        ids = tokenizer(lead + whole)["input_ids"]
        begin = len(tokenizer((lead + whole[:start]).rstrip() if start else first)["input_ids"])
        at = logits_of(model, ids).log_softmax(-1)
        each = [at[i - 1, ids[i]].item() for i in range(begin, len(ids))]
        assert found["sum"][0].scores[k] == pytest.approx(sum(each), abs=1e-4)
        assert found["mean"][0].scores[k] == pytest.approx(np.mean(each), abs=1e-4)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_training_reads_the_same_scores(kind: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer = request.getfixturevalue(kind)
    options = [listed[:2] for listed in OPTIONS]
    for by in sorted(cloze.TRAINED & set(cloze.fitting(model))):
        rows = cloze.training_rows(model, tokenizer, CLOZES, options, by)
        trained = cloze.values(model, rows, np.arange(len(rows)), by)
        asked, _ = cloze.score_options(model, tokenizer, CLOZES, options, [by])[by]
        np.testing.assert_allclose(trained.detach().numpy(), asked.scores, atol=1e-4)
        assert trained.requires_grad
        of = np.repeat(np.arange(len(CLOZES)), 2)
        together = cloze.read(model, rows, cloze.read_once(model, rows, of), by)
        np.testing.assert_allclose(together.detach().numpy(), asked.scores, atol=1e-4)


def test_options_share_what_stands_before_them(causal: tuple[Any, Any]) -> None:
    model, tokenizer = causal
    rows = cloze.training_rows(model, tokenizer, CLOZES[:1], OPTIONS[:1], "sum")
    (tree,) = cloze.read_once(model, rows, np.zeros(2, dtype=np.int64))
    assert tree.trunk > 3
    naive, shared = (
        torch.autograd.grad(act(), next(model.parameters()))[0]
        for act in (
            lambda: cloze.values(model, rows, np.arange(2), "sum").softmax(0)[0],
            lambda: cloze.read(model, rows, [tree], "sum").softmax(0)[0],
        )
    )
    torch.testing.assert_close(naive, shared, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_the_order_of_options_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer = request.getfixturevalue(kind)
    scores = cloze.fitting(model)
    forth = cloze.score_options(model, tokenizer, CLOZES, OPTIONS, scores)
    back = cloze.score_options(model, tokenizer, CLOZES, [listed[::-1] for listed in OPTIONS], scores)
    for by in scores:
        for k in range(len(CLOZES)):
            np.testing.assert_allclose(forth[by][0].of(k), back[by][0].of(k)[::-1], atol=1e-4)
    assert forth[scores[0]][0].ties()[1] >= 1
    twice = forth[scores[0]][0].of(1)
    assert twice[0] == twice[2]


def test_scores_of_the_other_kind_are_refused(masked: tuple[Any, Any], causal: tuple[Any, Any]) -> None:
    for (model, tokenizer), by in ((masked, "sum"), (causal, "pll")):
        with pytest.raises(UserError, match=f"score '{by}' is not for this model; choose of"):
            cloze.score_options(model, tokenizer, CLOZES, OPTIONS, [by])
