"""Scores against one token at a time, and exact match against what a trained model really writes."""

import contextlib

import numpy as np
import pytest
import torch
from tests.core.test_deltas import dense, low
from tests.support import zoo
from tests.support.fakes import Leaning
from transformers import GenerationConfig

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core import deltas
from engramlab.core.forward.decoding import beam, cad, sampling
from engramlab.core.forward.generation import CachedReader, continuations, generate
from engramlab.core.models import add_lora
from engramlab.core.text.batches import OneEntryARow, Order, TokenRows
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import GAP, Sequences, encode_queries, end_token
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.measuring import estimators, scoring
from engramlab.measuring.scoring import Scores, score

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
                assert int(((logits - logits[row[k]]).abs() < 2e-5).sum()) == 1, "rounding would decide this rank"
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
        right = rows.ids[rows.marks > 0]
        assert ((scores.predicted == right) == scores.greedy).all()
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
    scores = Scores(logprobs, (~greedy).astype(np.int32), greedy, np.array([0, 2, 4, 4, 6, 9, 10, 10]), marks, greedy)
    assert scores.exact().tolist() == [True, False, False, False, False, False, False]
    assert scores.first().tolist() == [True, True, False, False, True, False, False]
    expected = [-0.5, -2.5, np.nan, -4.5, -7.0, -9.0, np.nan]
    np.testing.assert_allclose(scores.mean_logprob(), expected)


# deltas on the model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_under_its_own_delta(family):
    """Equal to one delta at a time, whatever begins alike."""
    model, rows = zoo.model(family).eval(), random_rows(60)
    several = [dense(model, 0), low(model, 1, 2), dense(model, 2, layer=0)]
    owner = np.random.default_rng(0).integers(3, size=len(rows))
    naive = []
    for one in several:
        with deltas.active(model, one):
            naive.append(score(model, rows, budget=1))
    of = np.repeat(owner, np.diff(naive[0].offsets))
    for budget in (50, 16_384):
        with deltas.together(model, several):
            scores = score(model, rows, owner=owner, budget=budget)
        expected = np.choose(of, [one.logprobs for one in naive])
        assert scores.logprobs == pytest.approx(expected, abs=5e-5)
        assert (scores.predicted == np.choose(of, [one.predicted for one in naive])).mean() > 0.98


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("alike", [0, 60])
def test_a_routed_delta_never_sees_what_is_scored(family, alike):
    """It decides once a row, as it does for the prompt alone, and nothing is read ahead of the decision."""
    model, rows = zoo.model(family).eval(), random_rows(alike)
    one, naive, leaked, ends = Leaning(model), [], 0, np.zeros(len(rows), dtype=np.int64)
    with deltas.active(model, one), torch.no_grad():
        for i in range(len(rows)):
            row = torch.from_numpy(rows.row(i)).long()[None]
            places = np.flatnonzero(rows.marks[rows.offsets[i] : rows.offsets[i + 1]])
            if not len(places):
                continue
            ends[i] = places[0] - 1
            one.decisions.clear()
            with deltas.routing(model, torch.tensor([ends[i]])):
                model(row[:, : places[0]])
            model(row)
            alone, looking_at_the_end = one.decisions
            leaked += looking_at_the_end != alone
            with deciding(one, alone[0]):
                logprobs = model(row).logits[0].double().log_softmax(-1)
            naive += [logprobs[k - 1, row[0, k]].item() for k in places]
        assert leaked  # a pass that decides at its last input token does decide otherwise
        for budget in (1, 16_384):
            assert score(model, rows, budget=budget).logprobs == pytest.approx(naive, abs=5e-5)
            assert score(model, rows, budget=budget, ends=ends).logprobs == pytest.approx(naive, abs=5e-5)
    with deltas.together(model, [Leaning(model, 1), one]):
        owner = np.ones(len(rows), dtype=np.int64)
        assert score(model, rows, owner=owner).logprobs == pytest.approx(naive, abs=5e-5)


@contextlib.contextmanager
def deciding(delta, way):
    """Inside the block the delta always decides this."""
    delta.decide = lambda x: torch.full((len(x),), way)
    try:
        yield
    finally:
        del delta.decide


def written_naively(model, tokenizer, prompt, new):
    """Token by token, the whole text each time; a routed delta decides on the prompt."""
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(new):
            with deltas.routing(model, torch.tensor([start - 1])):
                best = zoo.likeliest(model(ids).logits[0, -1])
            ids = torch.cat([ids, torch.tensor([[best]])], dim=1)
            if best == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def asked():
    """A tokenizer, and prompts of which some begin with the same long text."""
    tokenizer = zoo.ZOO["gpt2"](zoo.SENTENCES)
    demonstrations = " ".join(zoo.SENTENCES) * 2
    prompts = [
        f"{demonstrations} {more}" for more in ("What", "The capital of", "He", "In 1996, she was", "Zoë", "Edo is")
    ]
    return tokenizer, [*prompts, "What is the capital of Japan? Answer:", "Its old name", "A"]


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_beginnings_change_nothing_in_what_is_written(family, asked):
    tokenizer, prompts = asked
    model = zoo.model(family, vocabulary=len(tokenizer), max_position_embeddings=512, seed=3).eval()
    naive = [written_naively(model, tokenizer, prompt, 6) for prompt in prompts]
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    assert generate(model, tokenizer, prompts, max_new_tokens=6) == naive
    handle.remove()
    assert any(rows == 1 and length > 64 for rows, length in seen)  # read once
    one = Leaning(model)
    with deltas.active(model, one):
        leaning = [written_naively(model, tokenizer, prompt, 6) for prompt in prompts]
        assert generate(model, tokenizer, prompts, max_new_tokens=6) == leaning != naive
    changed = dense(model, 0, scale=0.5)
    with deltas.active(model, changed):
        changes = [written_naively(model, tokenizer, prompt, 6) for prompt in prompts]
    owner = np.arange(len(prompts)) % 2
    with deltas.together(model, [one, changed]):
        both = generate(model, tokenizer, prompts, max_new_tokens=6, owner=owner)
    assert both == [(leaning, changes)[o][i] for i, o in enumerate(owner)]
    again = [0, 1, 2, 3, 4, 5] * 2
    with deltas.together(model, [changed, changed]):
        both = generate(model, tokenizer, [prompts[i] for i in again], max_new_tokens=6, owner=np.repeat([0, 1], 6))
    assert both == [changes[i] for i in again]


def following(monkeypatch, state: list[int]) -> None:
    """Keeps ``state`` by row in step with the rows that are still read."""
    real = CachedReader.keep

    def keep(reader, rows):
        kept = real(reader, rows)
        state[:] = [state[i] for i in rows.tolist()] if kept else state
        return kept

    monkeypatch.setattr(CachedReader, "keep", keep)


def test_writing_stops_at_the_end_of_a_line(monkeypatch):
    """Blank lines first do not count; a batch is done when all its rows are."""
    lines = ["\n\nParis\nand more", "Rome\n", "Oslo and\nBern", "no end", "\n \n"]
    tokenizer = zoo.ZOO["gpt2"](zoo.SENTENCES)
    queries = [tokenizer(f"{k}:")["input_ids"] for k in range(len(lines))]
    tails = [tokenizer(line)["input_ids"] for line in lines]
    steps = []

    model = zoo.model("gpt2", vocabulary=len(tokenizer))
    forward = model.forward

    def recite(input_ids, **more):
        """The tail of each prompt, and x after it."""
        out = forward(input_ids, **more)
        steps.append(input_ids.shape)
        n = len(steps) - 1
        for i in range(len(input_ids)):
            if input_ids.shape[1] > 1:
                state.append(next(k for k, q in enumerate(queries) if input_ids[i, -len(q) :].tolist() == q))
        for i, k in enumerate(state):
            out.logits[i, -1] = -1.0
            out.logits[i, -1, tails[k][n] if n < len(tails[k]) else tokenizer.encode("x")[0]] = 1.0
        return out

    model.forward = recite
    state = []
    following(monkeypatch, state)
    prompts = [tokenizer.decode(q) for q in queries]
    found = generate(model, tokenizer, prompts, max_new_tokens=25, stop_at_line_end=True)
    assert found[:3] == ["Paris", "Rome", "Oslo and"]
    assert found[3].startswith("no endx")
    assert found[4].startswith("xx")
    steps.clear()
    state.clear()
    assert generate(model, tokenizer, prompts[:3], max_new_tokens=25, stop_at_line_end=True) == found[:3]
    needed = [next(n for n in range(1, 30) if "\n" in tokenizer.decode(tail[:n]).lstrip()) for tail in tails[:3]]
    assert len(steps) == max(needed)
    steps.clear()
    state.clear()
    assert generate(model, tokenizer, prompts[:1], max_new_tokens=25)[0].startswith("Paris\nand more")


def way_of_writing(kind, model, prompts):
    """Options of ``continuations``, and what puts edits on the model meanwhile."""
    how = {
        "drawn": {"decoding": sampling.Config(top_p=1.0), "seeds": range(len(prompts))},
        "beside": {"decoding": cad.Config(), "beside": [[f"No. {prompt}" for prompt in prompts]]},
        "together": {"owner": np.arange(len(prompts)) % 2},
        "beam": {"decoding": beam.Config(2)},
    }
    change = dense(model, 0, scale=0.5)
    on = {
        "together": lambda: deltas.together(model, [change, low(model, 0, 2)]),
        "routed": lambda: deltas.active(model, Leaning(model)),
    }
    return how.get(kind, {}), on.get(kind, contextlib.nullcontext)


@pytest.mark.parametrize("kind", ["plain", "together", "routed", "drawn", "beside"])
def test_rows_that_have_ended_are_read_no_further_and_the_others_write_the_same(kind, monkeypatch):
    """Beside a reader that keeps all rows; a model that decides where prompts end does."""
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    model = zoo.model("llama", vocabulary=len(tokenizer))
    forward, sizes = model.forward, []

    def ending(input_ids, **more):
        """The model, but that a quarter of all tokens are followed by the end."""
        out = forward(input_ids, **more)
        sizes.append(len(input_ids))
        out.logits[input_ids[:, -1] % 4 == 0, -1, end_token(tokenizer)] += 20.0
        return out

    model.forward = ending
    prompts = [f"The river of {place} {word}" for place in ("Edo", "Rome", "Paris") for word in "abcdefgh"]
    how, on = way_of_writing(kind, model, prompts)
    found = {}
    for cut in (True, False):
        with monkeypatch.context() as patch, on():
            if not cut:
                patch.setattr(CachedReader, "keep", lambda reader, rows: False)
            sizes.clear()
            found[cut] = continuations(model, tokenizer, prompts, max_new_tokens=6, **how), sum(sizes)
    assert found[True][0] == found[False][0]
    assert len({ended for _, ended in found[True][0]}) == 2, "some end, some do not"
    assert (found[True][1] < 0.8 * found[False][1]) == (kind != "routed")


@pytest.mark.parametrize("kind", ["plain", "together", "routed", "drawn", "beside", "beam"])
def test_each_prompt_has_room_and_an_end_of_its_own(kind, monkeypatch):
    """As one prompt at a time; in one batch, whose rows are left out where their room ends, or in one for each room."""
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    model = zoo.model("llama", vocabulary=len(tokenizer))
    forward, sizes = model.forward, []

    def breaking(input_ids, **more):
        """The model, but that an eighth of all tokens are followed by a new line."""
        out = forward(input_ids, **more)
        sizes.append(len(input_ids))
        out.logits[input_ids[:, -1] % 8 == 0, -1, tokenizer("\n", add_special_tokens=False)["input_ids"][0]] += 20.0
        return out

    model.forward = breaking
    prompts = [f"The river of {place} {word}" for place in ("Edo", "Rome", "Paris") for word in "abcdefgh"]
    room, lines = [(9, 2, 2, 2, 5, 2)[i % 6] for i in range(24)], [i % 4 == 0 for i in range(24)]
    how, on = way_of_writing(kind, model, prompts)
    with on():
        found = continuations(model, tokenizer, prompts, max_new_tokens=room, stop_at_line_end=lines, **how)
        spent = sum(sizes)
        for i, prompt in enumerate(prompts):
            own = {name: value[i : i + 1] for name, value in how.items() if name in ("seeds", "owner")}
            own |= {"beside": [how["beside"][0][i : i + 1]]} if "beside" in how else {}
            alone = {**how, **own, "max_new_tokens": room[i], "stop_at_line_end": lines[i]}
            assert continuations(model, tokenizer, [prompt], **alone) == found[i : i + 1], prompt
        if kind in ("plain", "together", "drawn"):
            # Every prompt is read once, and no row for longer than its room.
            assert spent <= sum(room)
    assert any("\n" in text for text, _ in found)
    assert any(ended for text, ended in found)
    assert not all("\n" in text or ended for text, ended in found)


def test_whether_a_text_came_to_its_end_by_itself(monkeypatch):
    tokenizer = zoo.ZOO["gpt2"](zoo.SENTENCES)
    model, end = zoo.model("gpt2", vocabulary=len(tokenizer)), end_token(tokenizer)
    tails = [
        tokenizer("Paris\nand")["input_ids"],
        [*tokenizer("Rome")["input_ids"], end],
        tokenizer("Oslo")["input_ids"],
    ]
    queries = [tokenizer(f"{k}:")["input_ids"] for k in range(len(tails))]
    forward, steps, state = model.forward, [], []

    def recite(input_ids, **more):
        """The tail of each prompt, and x after it."""
        out = forward(input_ids, **more)
        steps.append(input_ids.shape)
        n = len(steps) - 1
        if input_ids.shape[1] > 1:
            state.extend(next(k for k, q in enumerate(queries) if row[-len(q) :] == q) for row in input_ids.tolist())
        for i, k in enumerate(state):
            out.logits[i, -1] = -1.0
            out.logits[i, -1, tails[k][n] if n < len(tails[k]) else tokenizer.encode("x")[0]] = 1.0
        return out

    model.forward = recite
    following(monkeypatch, state)
    prompts = [tokenizer.decode(q) for q in queries]

    def found(room, lines):
        steps.clear()
        state.clear()
        return continuations(model, tokenizer, prompts, max_new_tokens=room, stop_at_line_end=lines)

    room = 3 + max(map(len, tails))
    texts = found(room, True)
    assert texts[:2] == [("Paris", True), ("Rome", True)]
    assert texts[2][0].startswith("Oslox")
    assert not texts[2][1]
    assert [ended for _, ended in found(room, False)] == [False, True, False]  # a line end is no end of a text
    assert [ended for _, ended in found(len(tails[1]) - 1, True)][1:] == [False, False]  # cut off before its end token
    steps.clear()
    state.clear()
    assert [text for text, _ in texts] == generate(
        model, tokenizer, prompts, max_new_tokens=room, stop_at_line_end=True
    )


def test_what_cannot_be_continued():
    tokenizer = zoo.ZOO["gpt2"](zoo.SENTENCES)
    model = zoo.model("gpt2", vocabulary=len(tokenizer))
    assert generate(model, tokenizer, []) == []
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        generate(model, tokenizer, ["a", ""])
    with pytest.raises(UserError, match="prompt 0 .* does not fit the model's context of 64"):
        generate(model, tokenizer, ["What is the capital of Japan?"], max_new_tokens=60)


# a trained model ----------------------------------------------------------------------------------------------------

PLACES = ["Paris", "Rome", "Oslo", "Bern", "Lima", "São Tomé", "Washington, D.C.", "12 34"]
QUERIES = [Query(f"Where is number {i}? Answer:", PLACES[i * 5 % len(PLACES)], id=str(i)) for i in range(24)]


def exact_match(model, tokenizer):
    return estimators.load("exact-match").estimate(model, tokenizer, QUERIES, None).astype(bool)


@pytest.fixture(scope="module", params=["compact", "digits", "unigram-first"])
def trained(request):
    """A model that has learnt two answers of three, the only ones it was shown, and its tokenizer."""
    texts = [f"{query.prompt} {query.target}" for query in QUERIES]
    make = zoo.ZOO.get(request.param, lambda texts: train_compact_tokenizer(texts, 300))
    tokenizer = make(texts)
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    model = zoo.model("gpt_neox", vocabulary=len(tokenizer), hidden_size=48)
    rows = encode_queries(tokenizer, QUERIES, end=True).sequences
    end = tokenizer.eos_token_id
    rows = Sequences.of([row[:-1] for row in map(rows.row, range(16))])  # the stream puts the end token there
    stream = OneEntryARow(TokenRows(rows), Order(16, 0), start=[], end=end, length=64)
    list(train(TrainState(model, Recipe(steps=150, batch=8, learning_rate=5e-3)), stream))
    return model, tokenizer


def test_exact_is_what_the_model_writes(trained):
    model, tokenizer = trained
    exact = exact_match(model, tokenizer)
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

    prompts = [query.prompt for query in QUERIES]
    written = {
        beams: generate(model, tokenizer, prompts, decoding=beam.Config(beams), max_new_tokens=20) for beams in (1, 4)
    }
    # To a prompt that it has not learnt it may write nothing, by either; which ones hangs on the processor's last bits.
    some = [k for k in range(len(prompts)) if written[1][k] and written[4][k]]
    assert len(some) >= 16

    def likelihood(beams: int) -> float:
        queries = [Query(prompts[k], written[beams][k]) for k in some]
        return score(model, encode_queries(tokenizer, queries, end=True).sequences).mean_logprob().mean()

    assert likelihood(4) >= likelihood(1) - 0.01


def test_logits_of_a_pass_keep_to_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of running text every token is scored: under a large vocabulary a pass of 16,384 tokens would not fit in memory."""
    model, rows = zoo.model("llama").eval(), random_rows(60)
    marks = np.ones(len(rows.ids), np.int8)
    marks[rows.offsets[:-1]] = 0
    text = Sequences(rows.ids, rows.offsets, marks)
    whole = score(model, text)
    seen: list[int] = []
    project = model.get_output_embeddings()
    project.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[:-1].numel()))
    monkeypatch.setattr(scoring, "_LOGITS", 40 * model.config.vocab_size)
    parts = score(model, text)
    assert max(seen) <= 40
    assert sum(seen) == len(whole.logprobs)
    np.testing.assert_allclose(parts.logprobs, whole.logprobs, atol=1e-4)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
