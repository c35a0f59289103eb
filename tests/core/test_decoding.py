"""Decoders: greedy as transformers' generate, drawn texts by their seeds, and one from outside used for writing and scoring."""

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.fakes import Leaning

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core import deltas
from engramlab.core.forward import decoding
from engramlab.core.forward.decoding import beam, sampling
from engramlab.core.forward.generation import generate
from engramlab.core.text.tokens import encode_queries
from engramlab.measuring import estimators
from engramlab.measuring.scoring import score

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen2"]
PROMPTS = ["What is", "The capital of Japan", "Zoë lives in the city", "He", "A"]


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.ZOO["gpt2"](zoo.SENTENCES)


def model_of(family, tokenizer):
    model = zoo.model(family, vocabulary=len(tokenizer), seed=3).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(8)  # decided enough that rounding changes no token
    return model


def written_by_transformers(model, tokenizer, prompts, **options):
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.eos_token
    inputs = tokenizer(prompts, padding=True, return_tensors="pt", return_token_type_ids=False)
    end = tokenizer.eos_token_id
    out = model.generate(**inputs, do_sample=False, pad_token_id=end, eos_token_id=end, **options)
    texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_and_beams_are_transformers(family, tokenizer):
    """Rows of different lengths, padded at the left, and rows without any padding."""
    model = model_of(family, tokenizer)
    for prompts in (PROMPTS, ["The capital"] * 2):
        expected = written_by_transformers(model, tokenizer, prompts, max_new_tokens=12)
        assert generate(model, tokenizer, prompts, max_new_tokens=12) == expected
        expected = written_by_transformers(model, tokenizer, prompts, max_new_tokens=12, num_beams=3)
        assert generate(model, tokenizer, prompts, decoding=beam.Config(3), max_new_tokens=12) == expected


def test_drawn_texts_go_by_their_seeds(tokenizer):
    model = zoo.model("llama", vocabulary=len(tokenizer), seed=3)
    draw = sampling.Config(0.9, 0.95)
    texts = generate(model, tokenizer, PROMPTS, decoding=draw, seeds=[1, 2, 3, 4, 5], max_new_tokens=8)
    assert texts == generate(model, tokenizer, PROMPTS, decoding=draw, seeds=[1, 2, 3, 4, 5], max_new_tokens=8, batch=2)
    turned = generate(model, tokenizer, PROMPTS[::-1], decoding=draw, seeds=[5, 4, 3, 2, 1], max_new_tokens=8)
    assert turned == texts[::-1]
    assert texts != generate(model, tokenizer, PROMPTS, decoding=draw, seeds=[6, 7, 8, 9, 10], max_new_tokens=8)
    with pytest.raises(UserError, match="give a seed for each prompt"):
        generate(model, tokenizer, PROMPTS, decoding=draw)


@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.4])
def test_tokens_are_drawn_where_the_cumulative_distribution_reaches_the_number(top_p):
    """By hand, in double precision: sharp rows, rows of which thousands of tokens count, and nearly flat ones, together."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 20_000)) * np.repeat([6.0, 2.5, 0.2], 20)[:, None]
    uniform = np.concatenate([rng.random(57), [0.0, 0.5, 0.999999]])
    got = sampling.Config(0.8, top_p).choose(
        decoding.DecoderLogits(torch.tensor(logits, dtype=torch.float32)), torch.tensor(uniform, dtype=torch.float32)
    )
    for row, number, token in zip(logits / 0.8, uniform, got.tolist(), strict=True):
        likely = np.exp(row - row.max())
        likely /= likely.sum()
        order = np.argsort(-likely, kind="stable")
        total = likely[order].cumsum()
        kept = 1 + int((total < top_p).sum()) if top_p < 1 else len(total)
        at, place = number * total[min(kept, len(total)) - 1], int(np.flatnonzero(order == token)[0])
        assert place < kept
        assert total[place] - likely[token] - 1e-4 <= at <= total[place] + 1e-4  # single precision adds 20,000 numbers


def test_a_nucleus_holds_all_the_probability(tokenizer):
    """Scores under sampling, against the definition: what is outside cannot be drawn, the rest makes one."""
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 3
    probabilities = (logits / 0.7).softmax(-1)
    got = sampling.Config(0.7, 0.8).scores(decoding.DecoderLogits(logits)).softmax(-1)
    for row, expected in zip(got, probabilities, strict=True):
        order = expected.argsort(descending=True)
        kept = order[: int((expected[order].cumsum(0) < 0.8).sum()) + 1]
        assert set(row.nonzero().flatten().tolist()) == set(kept.tolist())
        assert row[kept].tolist() == pytest.approx((expected[kept] / expected[kept].sum()).tolist(), rel=1e-5)
    assert torch.equal(sampling.Config(0.0).scores(decoding.DecoderLogits(logits)), logits)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sampling", {"temperature": -1}, "temperature: must be at least 0"),
        ("sampling", {"top_p": 0}, "top_p: must be above 0"),
        ("beam", {"beams": 0}, "beams: must be at least 1"),
        ("greedi", {}, "decoder 'greedi' is unknown; did you mean 'greedy'"),
    ],
)
def test_decoders_that_cannot_be(name, options, words):
    with pytest.raises(UserError, match=words):
        decoding.load(name, **options)


TOY = '''
"""Twice the model's logits, less those of an early layer and of the second context."""
from dataclasses import dataclass
from typing import ClassVar
from engramlab.core.forward.decoding import Decoding

@dataclass(frozen=True)
class Config(Decoding):
    weight: float = 0.5
    beside: ClassVar[tuple] = ("bare",)

    def layers(self, model):
        return (0, 1)

    def scores(self, seen):
        return 2 * seen.logits - self.weight * (seen.early[0] + seen.early[1]) - seen.beside[0]
'''


def said(model, ids):
    """Logits ``[T, V]`` and those of hidden states 0 and 1, the plain way."""
    out = model(torch.tensor([ids]), output_hidden_states=True)
    base = model.base_model
    norm = next(m for name, m in base.named_children() if name in ("norm", "ln_f", "final_layer_norm"))
    head = model.get_output_embeddings()
    return out.logits[0], head(norm(out.hidden_states[0][0])), head(norm(out.hidden_states[1][0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_from_outside_writes_and_scores(family, tokenizer, tmp_path):
    """Against a token-by-token loop that computes everything anew."""
    (tmp_path / "toy.py").write_text(TOY)
    model = model_of(family, tokenizer)
    seconds = ["In 1996", "Yes. The capital of Japan", "Zoë", "He", "No and A"]

    with registry.added(decoding, tmp_path):
        assert "toy" in decoding.names()
        toy = decoding.load("toy")
        texts = generate(model, tokenizer, PROMPTS, decoding=toy, beside=[seconds], max_new_tokens=6)
        naive = []
        for prompt, second in zip(PROMPTS, seconds, strict=True):
            first, other, written = tokenizer(prompt)["input_ids"], tokenizer(second)["input_ids"], []
            with torch.no_grad():
                while len(written) < 6 and tokenizer.eos_token_id not in written:
                    plain, zero, one = (logits[-1] for logits in said(model, first + written))
                    contrast = said(model, other + written)[0][-1]
                    written.append(int((2 * plain - 0.5 * (zero + one) - contrast).argmax()))
            naive.append(tokenizer.decode(written, skip_special_tokens=True).strip())
        assert texts == naive
        assert texts != generate(model, tokenizer, PROMPTS, max_new_tokens=6)

        rows = encode_queries(tokenizer, [Query(p, "capital of Edo") for p in PROMPTS]).sequences
        others = encode_queries(tokenizer, [Query(p, "capital of Edo") for p in seconds]).sequences
        got = score(model, rows, decoding=toy, beside=[others])
        expected = []
        for r in range(len(rows)):
            count = int(got.offsets[r + 1] - got.offsets[r])
            with torch.no_grad():
                plain, zero, one = (logits[-count - 1 : -1] for logits in said(model, rows.row(r).tolist()))
                contrast = said(model, others.row(r).tolist())[0][-count - 1 : -1]
            wanted = torch.from_numpy(rows.row(r)[-count:]).long()
            logprobs = (2 * plain - 0.5 * (zero + one) - contrast).log_softmax(-1)
            expected += logprobs.gather(-1, wanted[:, None]).flatten().tolist()
        assert got.logprobs == pytest.approx(expected, abs=2e-4)
        with pytest.raises(UserError, match="decoder 'toy' compares with what the model says in other contexts"):
            generate(model, tokenizer, PROMPTS, decoding=toy)
        with pytest.raises(UserError, match="decoder 'toy' compares with what the model says in other contexts"):
            score(model, rows, decoding=toy)
        with pytest.raises(ValueError, match="other tokens"):
            score(
                model,
                rows,
                decoding=toy,
                beside=[encode_queries(tokenizer, [Query(p, "Edo") for p in PROMPTS]).sequences],
            )
    with pytest.raises(UserError, match="decoder 'greedy' compares with nothing"):
        generate(model, tokenizer, PROMPTS, beside=[seconds])


def test_estimators_take_a_decoder(tokenizer):
    """A colder distribution is surer of what it holds likeliest; and a token outside the nucleus is impossible."""
    model = model_of("llama", tokenizer)
    queries = [Query(p, "capital") for p in PROMPTS]
    estimator = estimators.load("log-probability")
    own, cold, narrow = (
        estimator.estimate(model, tokenizer, queries, estimator.Config(), decoding=d)
        for d in (None, sampling.Config(0.5), sampling.Config(1.0, 0.01))
    )
    assert not np.allclose(own, cold)
    assert np.isinf(narrow).any()
    assert not np.isnan(narrow).any()


def test_a_routed_delta_decides_at_the_first_context(tokenizer, tmp_path):
    """What it decided there holds behind the second context too."""
    (tmp_path / "plain.py").write_text(
        TOY.replace("- self.weight * (seen.early[0] + seen.early[1])", "").replace("(0, 1)", "()")
    )
    model = model_of("llama", tokenizer)
    one = Leaning(model)
    with registry.added(decoding, tmp_path), deltas.active(model, one):
        one.decisions.clear()
        generate(
            model, tokenizer, ["He"], decoding=decoding.load("plain"), beside=[["The capital of"]], max_new_tokens=4
        )
        assert len(one.decisions) == 1
