"""All identifiers scored at once: against one row an identifier, whatever the network; search; what cannot be a tree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward import branches, tries
from engramlab.core.forward.tries import Trie

ROWS = [[5, 6], [5, 7], [5, 8, 9, 11], [5, 8, 9, 12], [5, 8, 10], [13], [14, 5, 6]]
PROMPTS = [[3, 4, 7, 9, 2], [8], [2, 2, 40, 41, 42, 43, 7]]


def names(rows: list[list[int]]) -> list[str]:
    return [f"d{i}" for i in range(len(rows))]


def naive(model: nn.Module, prompt: list[int], row: list[int]) -> float:
    """One row, one token after another."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *row]])).logits[0].double().log_softmax(-1)
    return float(sum(logits[len(prompt) - 1 + k, token] for k, token in enumerate(row)))


@pytest.fixture(scope="module", params=["llama", "gpt2", "bloom"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Bloom's attention biases take no tree: it is read path by path."""
    return zoo.model(request.param, vocabulary=50, max_position_embeddings=64).eval()


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]])
def test_scores_are_those_of_a_row_each(
    model: nn.Module, rows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trie = Trie.of(rows, names(rows))
    expected = [[naive(model, prompt, row) for row in rows] for prompt in PROMPTS]
    np.testing.assert_allclose(tries.log_scores(model, PROMPTS, trie), expected, atol=1e-4)
    np.testing.assert_allclose(tries.log_scores(model, PROMPTS, trie, budget=1), expected, atol=1e-4)
    monkeypatch.setattr(tries, "LONGEST", 2)  # in parts
    np.testing.assert_allclose(tries.log_scores(model, PROMPTS, trie), expected, atol=1e-4)
    monkeypatch.setattr(branches, "takes_branches", lambda *given: False)
    np.testing.assert_allclose(tries.log_scores(model, PROMPTS, trie), expected, atol=1e-4)


@pytest.mark.parametrize("long", [768, 2])
def test_leaves_add_up_to_one_when_constrained(model: nn.Module, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each is the product of its shares among what is allowed at each place."""
    monkeypatch.setattr(tries, "LONGEST", long)
    found = tries.log_scores(model, PROMPTS, Trie.of(ROWS, names(ROWS)), constrained=True)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-12)
    for prompt, scores in zip(PROMPTS, found, strict=True):
        for row, score in zip(ROWS, scores, strict=True):
            expected = 0.0
            for k in range(len(row)):
                allowed = sorted({other[k] for other in ROWS if len(other) > k and other[:k] == row[:k]})
                with torch.no_grad():
                    logits = model(torch.tensor([[*prompt, *row[:k]]])).logits[0, -1].double()
                expected += float(logits[allowed].log_softmax(-1)[allowed.index(row[k])])
            assert score == pytest.approx(expected, abs=1e-4)


def test_a_wide_beam_is_the_exact_order_and_a_narrow_one_never_leaves_the_tree(model: nn.Module) -> None:
    trie = Trie.of(ROWS, names(ROWS))
    for prompt in PROMPTS:
        exact = tries.log_scores(model, [prompt], trie)[0]
        wide = tries.beam(model, prompt, trie, len(ROWS))
        assert [i for i, _ in wide] == np.argsort(-exact, kind="stable").tolist()
        np.testing.assert_allclose([p for _, p in wide], exact[[i for i, _ in wide]], atol=1e-4)
        for width in (1, 3, 50):
            found = tries.beam(model, prompt, trie, width)
            assert len(found) == min(width, len(ROWS))
            assert all(math.isfinite(p) for _, p in found)
            np.testing.assert_allclose([p for _, p in found], exact[[i for i, _ in found]], atol=1e-4)


def test_where_one_token_decides_greedy_is_the_likeliest(model: nn.Module) -> None:
    """Of identifiers of one token each a beam of one, the greedy choice among those allowed, is the best by exact scores; of
    longer ones it is what taking the likeliest allowed token at each place writes."""
    single = [[token] for token in (5, 9, 13, 20, 31)]
    trie = Trie.of(single, names(single))
    for prompt, scores in zip(PROMPTS, tries.log_scores(model, PROMPTS, trie), strict=True):
        assert tries.beam(model, prompt, trie, 1)[0][0] == int(scores.argmax())
    for prompt in PROMPTS:
        written: list[int] = []
        while written not in ROWS:
            allowed = [row[len(written)] for row in ROWS if row[: len(written)] == written]
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *written]])).logits[0, -1]
            written = [*written, max(allowed, key=lambda token: float(logits[token]))]
        assert ROWS[tries.beam(model, prompt, Trie.of(ROWS, names(ROWS)), 1)[0][0]] == written


def test_each_node_is_read_once() -> None:
    rows = [list(pair) for pair in itertools.product(range(20), range(20, 40))]
    trie = Trie.of(rows, names(rows), close=41)
    assert len(trie.tokens) == 20 + 400 + 400
    assert tries.tokens_read(trie, 25) == 25 + 20 + 400  # nobody reads the closing tokens
    assert tries.tokens_read(trie, 25, constrained=True) == 25 + 20  # nor a token behind which nothing is open
    assert len(rows) * (25 + 3) >= 8 * tries.tokens_read(trie, 25)


def test_nothing_of_the_model_changes(model: nn.Module) -> None:
    model.train()
    tries.log_scores(model, PROMPTS, Trie.of(ROWS, names(ROWS)))
    assert model.training
    model.eval()
    alone = tries.log_scores(model, PROMPTS[:1], Trie.of(ROWS, names(ROWS)))
    again = tries.log_scores(model, PROMPTS[::-1], Trie.of(ROWS[::-1], names(ROWS)))
    np.testing.assert_allclose(again[-1][::-1], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "there are none"),
        ([[1], []], "'d1': has no token"),
        ([[1, 2], [3], [1, 2]], "identifier 'd2': has the tokens of 'd0'"),
        ([[1, 2, 3], [4], [1, 2]], "identifier 'd2' begins 'd0', and no closing token"),
    ],
)
def test_what_is_no_tree(rows: list[list[int]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Trie.of(rows, names(rows))


def test_a_closing_token_tells_them_apart() -> None:
    rows = [[1, 2, 3], [4], [1, 2]]
    model = zoo.model("llama", vocabulary=50).eval()
    trie = Trie.of(rows, names(rows), close=9)
    found = tries.log_scores(model, PROMPTS, trie)
    np.testing.assert_allclose(found, [[naive(model, p, [*row, 9]) for row in rows] for p in PROMPTS], atol=1e-4)
    with pytest.raises(UserError, match="has the tokens of"):
        Trie.of([[1], [1]], ["a", "b"], close=9)


def test_prompts_that_do_not_fit() -> None:
    model, trie = zoo.model("llama", vocabulary=50, max_position_embeddings=16), Trie.of(ROWS, names(ROWS))
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        tries.log_scores(model, [[1], []], trie)
    with pytest.raises(UserError, match="prompt 0 has 13 tokens; with an identifier of 4"):
        tries.beam(model, [1] * 13, trie, 2)
