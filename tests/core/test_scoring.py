"""Scores against one token at a time, and exact match against what a trained model really writes."""

import numpy as np
import pytest
import torch
import zoo
from transformers import GenerationConfig

from engramlab.core.adapters import add_lora
from engramlab.core.batches import OneEntryARow, Order, Rows
from engramlab.core.errors import UserError
from engramlab.core.facts import Query
from engramlab.core.scoring import Scores, generate, score, score_queries
from engramlab.core.tokens import GAP, Sequences, encode_queries, train_compact_tokenizer
from engramlab.core.training import Recipe, TrainState, train

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen2"]


def random_rows(alike: int = 0) -> Sequences:
    """Rows of 1 to 20 tokens with some to be scored, and ``alike`` rows that begin with the same ten tokens."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(64, size=n).tolist() for n in (1, 5, 20, 2, 13, 13, 7)]
    marks = [[0, *(rng.random(len(row) - 1) < 0.4).tolist()] for row in rows]
    marks[1] = [0] * 5
    rows += [[*range(10), *rng.integers(64, size=3 + k % 3).tolist()] for k in range(alike)]
    marks += [[0] * 11 + [1] * (2 + k % 3) for k in range(alike)]
    return Sequences.of(rows, [[int(m) for m in row] for row in marks])


def one_by_one(model, sequences: Sequences) -> list[tuple[float, int, bool]]:
    """The naive way: for each scored token, a forward pass over what stands before it."""
    found = []
    with torch.no_grad():
        for i in range(len(sequences)):
            row = torch.from_numpy(sequences.row(i)).long()
            for k in np.flatnonzero(sequences.marks[sequences.offsets[i] : sequences.offsets[i + 1]] > 0):
                logits = model(row[None, :k]).logits[0, -1].double()
                rank = int((logits > logits[row[k]]).sum())
                found.append((logits.log_softmax(-1)[row[k]].item(), rank, rank == 0))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alike", [0, 60])
def test_equals_one_token_at_a_time(family, alike):
    model, rows = zoo.model(family).eval(), random_rows(alike)
    naive = one_by_one(model, rows)
    for budget in (1, 50, 16_384):
        scores = score(model, rows, budget=budget)
        assert scores.logprobs == pytest.approx([logprob for logprob, _, _ in naive], abs=2e-5)
        assert scores.ranks.tolist() == [rank for _, rank, _ in naive]
        assert scores.greedy.tolist() == [greedy for _, _, greedy in naive]
    assert scores.marks.tolist() == [1] * len(naive)
    scored = [(rows.marks[a:b] > 0).sum() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)]
    assert np.diff(scores.offsets).tolist() == scored


def test_the_model_comes_back_as_it_was():
    model = zoo.model("gpt_neox", hidden_dropout=0.5).train()
    model.gpt_neox.layers[0].eval()
    before = [module.training for module in model.modules()]
    first, second = score(model, random_rows()), score(model, random_rows())
    assert np.array_equal(first.logprobs, second.logprobs)  # no dropout
    assert [module.training for module in model.modules()] == before
    done = []
    score(model, random_rows(), budget=30, progress=lambda n, of: done.append((n, of)))
    assert done[-1] == (7, 7)
    assert len(done) > 1
    with pytest.raises(RuntimeError, match="stop"):
        score(model, random_rows(), progress=lambda n, of: (_ for _ in ()).throw(RuntimeError("stop")))
    assert [module.training for module in model.modules()] == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_scored():
    model = zoo.model("llama")
    with pytest.raises(UserError, match="the first token of a text cannot be scored"):
        score(model, Sequences.of([[1, 2]], [[1, 0]]))
    with pytest.raises(UserError, match="text 1 has 65 tokens; the model's context is 64"):
        score(model, Sequences.of([[1], [2] * 65]))
    empty = score(model, Sequences.of([]))
    assert (len(empty.logprobs), empty.exact().tolist(), empty.first().tolist()) == (0, [], [])


def test_small_functions_over_the_evidence():
    """Rows: right; wrong at the end; nothing scored; wrong at the start; a lone space before the value; nothing again."""
    greedy = np.array([1, 1, 1, 0, 0, 1, 0, 1, 1, 0], dtype=bool)
    marks = np.array([1, 1, 1, 1, 1, 1, GAP, 1, 1, GAP])
    logprobs = -np.arange(10, dtype=np.float32)
    scores = Scores(logprobs, (~greedy).astype(np.int32), greedy, np.array([0, 2, 4, 4, 6, 9, 10, 10]), marks)
    assert scores.exact().tolist() == [True, False, False, False, False, False, False]
    assert scores.first().tolist() == [True, True, False, False, True, False, False]
    expected = [-0.5, -2.5, np.nan, -4.5, -7.0, -9.0, np.nan]
    np.testing.assert_allclose(scores.mean_logprob(), expected)


# a trained model ----------------------------------------------------------------------------------------------------

PLACES = ["Paris", "Rome", "Oslo", "Bern", "Lima", "São Tomé", "Washington, D.C.", "12 34"]
QUERIES = [Query(f"Where is number {i}? Answer:", PLACES[i * 5 % len(PLACES)], id=str(i)) for i in range(24)]


@pytest.fixture(scope="module", params=["compact", "digits", "unigram-first"])
def trained(request):
    """A model that has learnt some answers and not others, and its tokenizer."""
    texts = [f"{query.prompt} {query.target}" for query in QUERIES]
    make = zoo.ZOO.get(request.param, lambda texts: train_compact_tokenizer(texts, 300))
    tokenizer = make(texts)
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    model = zoo.model("gpt_neox", vocabulary=len(tokenizer), hidden_size=48)
    rows = encode_queries(tokenizer, QUERIES, end=True).sequences
    end = tokenizer.eos_token_id
    rows = Sequences.of([row[:-1] for row in map(rows.row, range(24))])  # the stream puts the end token there
    stream = OneEntryARow(Rows(rows), Order(24, 0), start=[], end=end, length=64)
    for step in train(TrainState(model, Recipe(steps=400, batch=8, learning_rate=5e-3)), stream):
        if step.number % 10 == 0:
            share = score_queries(model, tokenizer, QUERIES, end=True)[0].exact().mean()
            if 0.3 < share < 0.9:
                break
    return model, tokenizer


def test_exact_is_what_the_model_writes(trained):
    model, tokenizer = trained
    exact = score_queries(model, tokenizer, QUERIES, end=True)[0].exact()
    assert 0 < exact.sum() < len(exact)
    written = generate(model, tokenizer, [query.prompt for query in QUERIES], max_new_tokens=20, batch=7)
    assert [answer == query.target for answer, query in zip(written, QUERIES, strict=True)] == exact.tolist()


def test_the_models_own_settings_do_not_change_what_it_writes(trained):
    model, tokenizer = trained
    prompts = [query.prompt for query in QUERIES]
    before = generate(model, tokenizer, prompts)
    own = model.generation_config
    model.generation_config = GenerationConfig(repetition_penalty=5.0, do_sample=True, max_length=3)
    try:
        assert generate(model, tokenizer, prompts) == before
        assert model.generation_config.repetition_penalty == 5.0
    finally:
        model.generation_config = own
    wrapped = add_lora(model, rank=2)
    assert generate(wrapped, tokenizer, prompts) == before
    wrapped.unload()


def test_beam_search_finds_answers_at_least_as_likely(trained):
    """By token: that is what transformers' beam search ranks finished answers by."""
    model, tokenizer = trained

    def likelihood(beams: int) -> float:
        answers = generate(model, tokenizer, [query.prompt for query in QUERIES], beams=beams, max_new_tokens=20)
        written = [Query(query.prompt, answer) for query, answer in zip(QUERIES, answers, strict=True)]
        return score_queries(model, tokenizer, written, end=True)[0].mean_logprob().mean()

    assert likelihood(4) >= likelihood(1) - 0.01
