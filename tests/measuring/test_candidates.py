"""Choosing among options: against one plain pass an option, whatever is shared; ties, priors and what cannot be chosen from."""

import numpy as np
import pytest
import torch
from tests.core.test_decoding import model_of
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core.forward import branches
from engramlab.core.forward.decoding import dola, greedy
from engramlab.core.text.tokens import Sequences, encode_queries, join
from engramlab.measuring.candidates import Choices, choose

SHOTS = "Edo : Japan , Rome : Italy , "
CONTEXTS = [SHOTS + name + " :" for name in ("A", "Japan", "He", "Zoë")]
OPTIONS = [
    ["Japan", "Utrecht", "the city of Edo", "1996", "capital", "born"],
    ["Edo", "Rome or Edo"],
    ["A", "No", "Zoë"] * 1,
    ["Japan", "He"],
]


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.ZOO["gpt2"](zoo.SENTENCES)


def naive(model, tokenizer, contexts, options):
    """A pass an option: the sum over the tokens that hold one of its characters (or the space before it)."""
    found = []
    for context, listed in zip(contexts, options, strict=True):
        for option in listed:
            text, start, _ = join(context, option)
            out = tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
            with torch.no_grad():
                logprobs = model(out["input_ids"]).logits[0].log_softmax(-1)
            ids, spans = out["input_ids"][0].tolist(), out["offset_mapping"][0].tolist()
            first = next(i for i, (a, b) in enumerate(spans) if b > len(context) and b > a)
            assert spans[first][1] > len(context)
            assert start >= len(context)
            found.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(first, len(ids))))
    return np.array(found)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2", "mistral"])
@pytest.mark.parametrize("budget", [16_384, 120])
def test_a_tree_scores_as_a_pass_an_option(family, tokenizer, budget):
    model = zoo.model(family, vocabulary=len(tokenizer), seed=3).eval()
    encoded = encode_queries(
        tokenizer, [Query(c, o) for c, listed in zip(CONTEXTS, OPTIONS, strict=True) for o in listed]
    ).sequences
    of = np.repeat(np.arange(len(OPTIONS)), [len(listed) for listed in OPTIONS])
    trees = branches.trees(encoded, of)
    assert 2 * branches.tokens_read(trees) < len(encoded.ids)
    assert branches.takes_branches(model, encoded, trees, greedy.Config())  # or the shared road is not tested
    got = choose(model, tokenizer, CONTEXTS, OPTIONS, budget=budget)
    np.testing.assert_allclose(got.scores, naive(model, tokenizer, CONTEXTS, OPTIONS), rtol=0, atol=1e-3)


def test_what_options_begin_with_is_read_once_and_no_last_token():
    rows = [[1, 2, 3, 4, 5], [1, 2, 3, 6, 5], [1, 2, 7], [1, 2, 3, 4, 8, 9], [1, 2, 3]]
    marks = [[0, 0, *[1] * (len(row) - 2)] for row in rows]
    (tree,) = branches.trees(Sequences.of(rows, marks), np.zeros(5, dtype=np.int64))
    assert (tree.trunk, list(tree.ids), list(tree.before)) == (2, [3, 4, 6, 8], [-1, 0, 0, 1])
    assert [list(path) for path in tree.paths] == [[0, 1], [0, 2], [], [0, 1, 3], []]
    assert (tree.sees().sum(1) - 1).tolist() == [0, 1, 1, 2]
    assert tree.tokens == 6


def test_a_network_that_takes_no_tree_is_read_row_by_row(tokenizer, monkeypatch):
    model = model_of("llama", tokenizer)
    expected = choose(model, tokenizer, CONTEXTS, OPTIONS).scores
    forward = model.forward

    def deaf(input_ids=None, attention_mask=None, position_ids=None, **more):
        if attention_mask is not None and attention_mask.dim() == 4:
            attention_mask = None
        return forward(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **more)

    monkeypatch.setattr(model, "forward", deaf)
    np.testing.assert_allclose(choose(model, tokenizer, CONTEXTS, OPTIONS).scores, expected, rtol=0, atol=1e-3)


def test_many_ends_are_cut_into_several_rows(tokenizer, monkeypatch):
    monkeypatch.setattr(branches, "LONGEST", 12)
    model = model_of("llama", tokenizer)
    options = [[f"{a} {b}" for a in ("Japan", "Edo", "No") for b in ("1996", "A", "city")]]
    got = choose(model, tokenizer, CONTEXTS[:1], options)
    np.testing.assert_allclose(got.scores, naive(model, tokenizer, CONTEXTS[:1], options), rtol=0, atol=1e-3)


def test_the_order_of_options_and_contexts_changes_nothing(tokenizer):
    model = model_of("gpt2", tokenizer)
    there = choose(model, tokenizer, CONTEXTS, OPTIONS)
    back = choose(model, tokenizer, CONTEXTS[::-1], [listed[::-1] for listed in OPTIONS[::-1]])
    np.testing.assert_allclose(back.scores[::-1], there.scores, rtol=0, atol=1e-3)


def test_four_scores(tokenizer):
    model = model_of("llama", tokenizer)
    total, mean, character, prior = (
        choose(model, tokenizer, CONTEXTS, OPTIONS, by=by) for by in ("sum", "mean", "character", "prior")
    )
    np.testing.assert_allclose(mean.scores * total.tokens, total.scores)
    lengths = [len(option) for listed in OPTIONS for option in listed]
    np.testing.assert_allclose(character.scores * lengths, total.scores)
    flat = [option for listed in OPTIONS for option in listed]
    np.testing.assert_allclose(
        total.scores - prior.scores, naive(model, tokenizer, ["Answer:"] * len(flat), [[o] for o in flat]), atol=1e-3
    )


def test_options_of_one_token_are_the_softmax_of_one_row_of_logits(tokenizer):
    model = model_of("llama", tokenizer)
    single = [o for o in ("Japan", "He", "Italy", "capital", "No") if len(tokenizer(" " + o)["input_ids"]) == 1]
    assert len(single) > 1
    with torch.no_grad():
        logits = model(**tokenizer(CONTEXTS[0], return_tensors="pt")).logits[0, -1]
    expected = logits[[tokenizer(" " + o)["input_ids"][0] for o in single]].softmax(-1)
    found = choose(model, tokenizer, CONTEXTS[:1], [single])
    np.testing.assert_allclose(found.probabilities(), expected, rtol=1e-4)
    wide = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=1024)
    long = [" ".join([o] * 100) for o in ("Japan", "No A")]
    assert choose(wide, tokenizer, ["He"], [long]).tokens.max() >= 200
    assert choose(wide, tokenizer, ["He"], [long]).probabilities().sum() == pytest.approx(1, abs=1e-6)


def test_a_decoder_scores_options_too(tokenizer):
    model = model_of("llama", tokenizer)
    how = dola.Config(candidates=(0, 1))
    shared = choose(model, tokenizer, CONTEXTS, OPTIONS, decoding=how)
    single = np.concatenate(
        [
            choose(model, tokenizer, [c], [[o]], decoding=how).scores
            for c, listed in zip(CONTEXTS, OPTIONS, strict=True)
            for o in listed
        ]
    )
    np.testing.assert_allclose(shared.scores, single, rtol=0, atol=5e-3)
    assert not np.allclose(shared.scores, choose(model, tokenizer, CONTEXTS, OPTIONS).scores)


def test_probabilities_and_ties():
    found = Choices(np.array([-1.0, -1.0, -2.0, -900.0, -901.0]), np.array([0, 3, 5]), np.ones(5, dtype=np.int64))
    np.testing.assert_allclose(np.add.reduceat(found.probabilities(), [0, 3]), [1, 1])
    np.testing.assert_allclose(found.probabilities()[3:], [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    assert found.ties().tolist() == [2, 1]
    assert found.right([1, 1]).tolist() == [0.5, 0.0]
    assert found.right([2, 0]).tolist() == [0.0, 1.0]
    assert repr(found) == "Choices(2 contexts, 5 options)"


def test_a_model_that_knows_nothing_is_at_chance(tokenizer):
    model = model_of("llama", tokenizer)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    listed = ["Japan", "Edo", "No"]
    got = choose(model, tokenizer, CONTEXTS[:2], [listed] * 2, by="mean")
    np.testing.assert_allclose(got.probabilities(), np.full(6, 1 / 3), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([["A"]], "2 contexts, but options for 1"),
        ([["A"], []], "context 1 .* has no options"),
        ([["A", " "], ["B"]], "context 0 .*: option 1 is blank"),
        ([["A", " A"], ["B"]], "context 0 .* has option 'A' twice"),
    ],
)
def test_options_that_cannot_be(tokenizer, options, words):
    with pytest.raises(UserError, match=words):
        choose(model_of("llama", tokenizer), tokenizer, ["He", "No"], options)


def test_an_option_beyond_the_context_is_named(tokenizer):
    model = model_of("gpt2", tokenizer)
    long = " ".join(["Japan"] * model.config.max_position_embeddings)
    with pytest.raises(UserError, match="the model's context is"):
        choose(model, tokenizer, ["He", "No"], [["A", "B"], ["A", long]])
