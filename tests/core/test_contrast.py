"""DoLa, CAD and MICD against their definitions, against transformers, and where they must equal something simpler."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from tests.core.test_decoding import PROMPTS, model_of, written_by_transformers
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core.forward import decoding, prefixes
from engramlab.core.forward.decoding import DecoderLogits, cad, dola, greedy, micd
from engramlab.core.forward.generation import generate
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.measuring.scoring import score, score_each

FAMILIES = ["gpt2", "llama", "qwen2"]
BARE = ["What", "The capital", "Zoë", "He is", "No"]
OTHER = ["In 1996 what is", "Yes. The capital", "A Zoë", "Yes. He is", "No and No"]


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.ZOO["gpt2"](zoo.SENTENCES)


def random_logits(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


# --- DoLa -----------------------------------------------------------------------------------------------------------------


def test_dola_is_its_definition():
    """Row by row in float64 numpy: the farthest candidate, the head of the vocabulary, the difference of log-probabilities."""
    last, early = random_logits(7, 50), {k: random_logits(7, 50, seed=k) for k in (1, 2, 3)}
    got = dola.Config(likelihood="none").scores(DecoderLogits(last, early))
    chosen = set()
    for row in range(7):
        q = last[row].double().softmax(-1).numpy()
        ps = {k: v[row].double().softmax(-1).numpy() for k, v in early.items()}
        far = {k: jensenshannon(q, p) ** 2 for k, p in ps.items()}
        assert all(0 <= d <= np.log(2) for d in far.values())
        pick = max(far, key=far.get)
        chosen.add(pick)
        expected = np.where(q >= 0.1 * q.max(), np.log(q) - np.log(ps[pick]), decoding.IMPLAUSIBLE)
        np.testing.assert_allclose(got[row].numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(chosen) > 1  # each row by itself, not one layer a batch


def test_the_released_divergence_is_another():
    q, p = (random_logits(4, 30, seed=s).log_softmax(-1) for s in (1, 2))
    m = (q.exp() + p.exp()) / 2
    reverse = ((m * (m.log() - q)).sum(-1) + (m * (m.log() - p)).sum(-1)) / 2
    torch.testing.assert_close(dola.apart(q, p, "released"), reverse)
    ours = dola.apart(q, p)
    torch.testing.assert_close(ours, dola.apart(p, q))
    assert not torch.allclose(ours, reverse)
    scipys = [jensenshannon(a, b) ** 2 for a, b in zip(q.double().exp().numpy(), p.double().exp().numpy(), strict=True)]
    assert ours.tolist() == pytest.approx(scipys, rel=1e-5)
    far = torch.tensor([[0.0, -300.0], [-300.0, 0.0]])  # nothing in common: ln 2, and nothing overflows
    assert dola.apart(far[:1], far[1:]).item() == pytest.approx(np.log(2))
    assert dola.apart(far, far).tolist() == [0, 0]
    assert np.isfinite(dola.apart(far[:1], far[1:], "released").item())


def test_dola_where_it_must_be_greedy(tokenizer):
    """Nothing but the likeliest token left in; an early layer that says nothing; one that says the same."""
    last = random_logits(6, 40)
    greedy = last.argmax(-1)
    early = {1: random_logits(6, 40, seed=5)}
    assert (dola.Config(plausible=1.0).scores(DecoderLogits(last, early)).argmax(-1) == greedy).all()
    assert (dola.Config().scores(DecoderLogits(last, {0: torch.zeros(6, 40)})).argmax(-1) == greedy).all()
    same = dola.Config(likelihood="none").scores(DecoderLogits(last, {1: last.clone()}))
    assert set(same.unique().tolist()) == {0.0, decoding.IMPLAUSIBLE}
    model = model_of("llama", tokenizer)
    strict = dola.Config(plausible=1.0, candidates=(0, 1), penalty=1.0)
    assert generate(model, tokenizer, PROMPTS, decoding=strict, max_new_tokens=8) == generate(
        model, tokenizer, PROMPTS, max_new_tokens=8
    )


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_dola_writes_what_a_plain_loop_writes(family, tokenizer, norm):
    """Everything computed anew at each token, from transformers' own hidden states, with transformers' own penalty."""
    from transformers import RepetitionPenaltyLogitsProcessor

    model = model_of(family, tokenizer)
    how = dola.Config(candidates=(0, 1), early_norm=norm)
    texts = generate(model, tokenizer, PROMPTS, decoding=how, max_new_tokens=6)
    base = model.base_model
    final = next(m for name, m in base.named_children() if name in ("norm", "ln_f", "final_layer_norm"))
    head = model.get_output_embeddings()
    for prompt, text in zip(PROMPTS, texts, strict=True):
        ids, written = tokenizer(prompt)["input_ids"], []
        with torch.no_grad():
            while len(written) < 6 and tokenizer.eos_token_id not in written:
                out = model(torch.tensor([ids + written]), output_hidden_states=True)
                early = {
                    k: head(final(out.hidden_states[k][0, -1:]) if norm else out.hidden_states[k][0, -1:])
                    for k in (0, 1)
                }
                scores = how.scores(DecoderLogits(out.logits[0, -1:], early))
                penalised = RepetitionPenaltyLogitsProcessor(1.2)(torch.tensor([ids + written]), scores)
                written.append(int(penalised.argmax()))
        assert text == tokenizer.decode(written, skip_special_tokens=True).strip()
    assert texts != generate(model, tokenizer, PROMPTS, max_new_tokens=6)
    one_by_one = [generate(model, tokenizer, [p], decoding=how, max_new_tokens=6)[0] for p in PROMPTS]
    assert texts == one_by_one


def test_a_penalty_is_transformers(tokenizer):
    model = model_of("llama", tokenizer)
    expected = written_by_transformers(model, tokenizer, PROMPTS, max_new_tokens=8, repetition_penalty=1.7)
    assert generate(model, tokenizer, PROMPTS, decoding=greedy.Config(1.7), max_new_tokens=8) == expected
    assert expected != generate(model, tokenizer, PROMPTS, max_new_tokens=8)
    rows = encode_queries(tokenizer, [Query(p, "capital of Edo") for p in PROMPTS]).sequences
    plain, other = (score(model, rows, decoding=how) for how in (None, greedy.Config(1.7)))
    np.testing.assert_array_equal(plain.logprobs, other.logprobs)  # likelihoods have none


def test_likelihoods_by_name():
    """Normalised over all before some are out, over those left in, or not at all; which token is best is the same."""
    last, early = random_logits(5, 40), {1: random_logits(5, 40, seed=1)}
    seen = DecoderLogits(last, early)
    found = {}
    for name in ("all", "head", "none"):
        how = dola.Config(likelihood=name)
        scores = how.scores(seen)
        found[name] = scores - how.mass(scores)[:, None]
    diff = last.log_softmax(-1) - early[1].log_softmax(-1)
    head = last.softmax(-1) >= 0.1 * last.softmax(-1).amax(-1, keepdim=True)
    torch.testing.assert_close(found["none"], torch.where(head, diff, -1000.0))
    torch.testing.assert_close(found["all"], torch.where(head, diff.log_softmax(-1), -1000.0))
    torch.testing.assert_close(found["head"].exp().sum(-1), torch.ones(5))
    assert all(torch.equal(x.argmax(-1), found["all"].argmax(-1)) for x in found.values())


def test_random_layers_go_by_seed_and_place():
    last, early = random_logits(400, 20), {k: random_logits(400, 20, seed=k) for k in (1, 2, 3)}
    before = torch.full((400, 9), -1)
    for row in range(400):
        before[row, 9 - row % 9 - 1 :] = row
    seen = DecoderLogits(last, early, before=before)
    how = dola.Config(pick="random", likelihood="none", plausible=0.5)
    one, other = how.scores(seen), replace(how, seed=1).scores(seen)
    assert torch.equal(one, how.scores(seen))
    assert not torch.equal(one, other)
    some = DecoderLogits(last[5:9], {k: v[5:9] for k, v in early.items()}, before=before[5:9])
    assert torch.equal(one[5:9], how.scores(some))
    shares = np.bincount(how._drawn(seen).numpy(), minlength=3) / 400
    assert (abs(shares - 1 / 3) < 0.1).all()
    farthest = dola.Config(likelihood="none", plausible=0.5).scores(seen)
    assert not torch.equal(one, farthest)


def test_several_decoders_read_once(tokenizer):
    """Each as by itself, whatever layers and contexts the others look at."""
    model = model_of("llama", tokenizer)
    rows, bare, other = (
        encode_queries(tokenizer, [Query(p, "capital of Edo") for p in of]).sequences for of in (PROMPTS, BARE, OTHER)
    )
    several = [
        greedy.Config(),
        dola.Config(candidates=(0, 1)),
        dola.Config(candidates=(1,)),
        dola.Config(candidates=(0, 1), pick="random"),
    ]
    together = score_each(model, rows, several)
    compared = [cad.Config(1.0), greedy.Config(), micd.Config(0.5)]
    streams = score_each(model, rows, compared, beside={"bare": bare, "irrelevant": other})
    for how, found in zip([*several, *compared], [*together, *streams], strict=True):
        alone = score(model, rows, decoding=how, beside=[[bare, other][k] for k in range(len(how.beside))])
        np.testing.assert_allclose(found.logprobs, alone.logprobs, atol=1e-4)
        np.testing.assert_array_equal(found.predicted, alone.predicted)
    with pytest.raises(ValueError, match="scored apart"):
        score_each(model, rows, [dola.Config(early_norm=True), dola.Config()])
    with pytest.raises(UserError, match="'micd' compares"):
        score_each(model, rows, [micd.Config()], beside={"bare": bare})


def test_what_other_contexts_share_is_read_once(tokenizer, monkeypatch):
    model = model_of("llama", tokenizer)
    begins = ("He lives in the city, ", "Yes. " * 4, "No and " * 3)
    queries = [[Query(begin + p, "capital of Edo") for p in PROMPTS * 4] for begin in begins]
    rows, *others = (encode_queries(tokenizer, of).sequences for of in queries)
    found = {}
    for cost in (10**9, 0):  # what a pass is taken to cost: nothing is shared, everything is
        monkeypatch.setattr(prefixes, "a_pass", lambda device, cost=cost: cost)
        found[cost] = score(model, rows, decoding=micd.Config(0.7), beside=others)
    np.testing.assert_allclose(found[0].logprobs, found[10**9].logprobs, atol=1e-3)


def test_a_masked_model_has_no_early_layers_to_compare(tokenizer):
    model = model_of("llama", tokenizer)
    model.config.is_causal, model.config.mask_token_id = False, 3
    rows = encode_queries(tokenizer, [Query("He", "lives")]).sequences
    with pytest.raises(UserError, match="scored without early layers"):
        score(model, rows, decoding=dola.Config(candidates=(0,)))


def test_dola_candidates():
    """transformers' buckets, SmolLM2's among them (30 layers, tied)."""

    class Shaped(torch.nn.Module):
        def __init__(self, layers, tied):
            super().__init__()
            config = type("C", (), {"num_hidden_layers": layers, "tie_word_embeddings": tied})()
            config.get_text_config = lambda: config
            self.config = config

    low, high = dola.Config(bucket="low"), dola.Config()
    assert low.layers(Shaped(30, True)) == (2, 4, 6, 8, 10, 12, 14)
    assert high.layers(Shaped(30, True)) == (15, 17, 19, 21, 23, 25, 27, 29)
    assert low.layers(Shaped(32, False)) == tuple(range(0, 16, 2))
    assert high.layers(Shaped(80, False)) == tuple(range(60, 80, 2))
    assert low.layers(Shaped(80, False)) == tuple(range(0, 20, 2))
    assert low.layers(Shaped(2, True)) == (1,)
    with pytest.raises(UserError, match="layer 30 is not below"):
        dola.Config(candidates=(3, 30)).layers(Shaped(30, True))


# --- CAD and MICD ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_cad_is_guidance_without_a_classifier(family, tokenizer):
    """transformers' own processor at scale 1 + alpha, with the bare question as negative prompt."""
    from transformers import LogitsProcessorList, UnbatchedClassifierFreeGuidanceLogitsProcessor

    model = model_of(family, tokenizer)
    texts = generate(model, tokenizer, PROMPTS, decoding=cad.Config(0.7), beside=[BARE], max_new_tokens=6)
    for prompt, bare, text in zip(PROMPTS, BARE, texts, strict=True):
        guide = UnbatchedClassifierFreeGuidanceLogitsProcessor(
            1.7, model, unconditional_ids=tokenizer(bare, return_tensors="pt")["input_ids"]
        )
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        end = tokenizer.eos_token_id
        out = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=end,
            pad_token_id=end,
            logits_processor=LogitsProcessorList([guide]),
        )
        assert text == tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_contrasts_where_they_must_be_something_simpler(tokenizer):
    model = model_of("llama", tokenizer)

    def written(how=None, prompts=PROMPTS, beside=()):
        return generate(model, tokenizer, prompts, decoding=how, beside=beside, max_new_tokens=6)

    plain, alone = written(), written(prompts=BARE)
    assert written(cad.Config(0.0), beside=[BARE]) == plain
    assert written(micd.Config(0.0), beside=[BARE, OTHER]) == alone
    assert written(micd.Config(0.8), beside=[BARE, PROMPTS]) == alone  # a passage and the same passage
    assert written(micd.Config(1.0), beside=[BARE, BARE]) == plain
    assert written(micd.Config(1.5), beside=[BARE, BARE]) == written(cad.Config(0.5), beside=[BARE])
    assert written(micd.Config(1.0), beside=[BARE, OTHER]) not in (plain, alone)


def test_a_constant_added_to_a_stream_changes_nothing():
    streams = [random_logits(5, 30, seed=s) for s in range(3)]
    shifted = [x + c for x, c in zip(streams, (3.0, -2.0, 7.0), strict=True)]
    for how, n in ((cad.Config(1.0), 2), (micd.Config(0.5), 3), (micd.Config(dynamic=True), 3)):
        one, other = (
            how.scores(DecoderLogits(first, beside=tuple(rest[: n - 1]))).log_softmax(-1)
            for first, *rest in (streams, shifted)
        )
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("how", "beside"),
    [
        (dola.Config(candidates=(0, 1), penalty=1.0), []),
        (dola.Config(candidates=(0, 1)), []),
        (dola.Config(candidates=(0, 1), pick="random", seed=2, divergence="released", likelihood="head"), []),
        (dola.Config(candidates=(1,), plausible=0.01, likelihood="none"), []),
        (greedy.Config(penalty=1.7), []),
        (cad.Config(1.0), [BARE]),
        (cad.Config(1.0, plausible=0.2), [BARE]),
        (micd.Config(0.5), [BARE, OTHER]),
        (micd.Config(dynamic=True, plausible=0.01), [BARE, OTHER]),
    ],
    ids=["dola", "penalty", "random", "static", "greedy", "cad", "cad-filter", "micd", "micd-dynamic"],
)
def test_scoring_agrees_with_writing(tokenizer, how, beside):
    """A text written by asking scoring, token after token, what it finds likeliest, is the text that is written."""
    model = model_of("llama", tokenizer)
    read = [[tokenizer(p)["input_ids"] for p in of] for of in (PROMPTS, *beside)]
    for _ in range(5):
        rows = [[[*ids, 0] for ids in of] for of in read]
        first, *others = (Sequences.of(of, [[0] * (len(ids) - 1) + [1] for ids in of]) for of in rows)
        found = score(model, first, decoding=how, beside=others)
        read = [[[*ids, int(token)] for ids, token in zip(of, found.predicted, strict=True)] for of in read]
        chosen = replace(first, ids=np.concatenate(read[0]).astype(np.int32))
        assert (
            score(
                model,
                chosen,
                decoding=how,
                beside=[
                    replace(o, ids=np.concatenate(of).astype(np.int32)) for o, of in zip(others, read[1:], strict=True)
                ],
            )
            .exact()
            .all()
        )
    texts = []
    for prompt, ids in zip(PROMPTS, read[0], strict=True):
        new = ids[len(tokenizer(prompt)["input_ids"]) :]
        if tokenizer.eos_token_id in new:
            new = new[: new.index(tokenizer.eos_token_id)]
        texts.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert texts == generate(model, tokenizer, PROMPTS, decoding=how, beside=beside, max_new_tokens=5)
    assert texts != generate(model, tokenizer, PROMPTS, max_new_tokens=5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dola.Config(plausible=0), "plausible: must be above 0"),
        (lambda: dola.Config(plausible=-0.1, likelihood="none"), "plausible: must be above 0"),
        (lambda: dola.Config(penalty=0), "penalty: must be a finite number above 0"),
        (lambda: greedy.Config(float("inf")), "penalty: must be a finite number above 0"),
        (lambda: micd.Config(plausible=2), "plausible: must be from 0 to 1"),
        (lambda: cad.Config(float("nan")), "alpha: must be a finite number"),
        (lambda: cad.Config(plausible=2), "plausible: must be from 0 to 1"),
        (lambda: micd.Config(float("inf")), "alpha: must be a finite number"),
    ],
)
def test_settings_that_cannot_be(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_contexts_are_given_for_every_prompt(tokenizer):
    model = model_of("llama", tokenizer)
    with pytest.raises(
        UserError, match="'micd' compares with what the model says in other contexts .'bare' and 'irrelevant'."
    ):
        generate(model, tokenizer, PROMPTS, decoding=micd.Config(), beside=[BARE])
    with pytest.raises(UserError, match="5 prompts, but 2 in context 'bare'"):
        generate(model, tokenizer, PROMPTS, decoding=cad.Config(), beside=[BARE[:2]])
