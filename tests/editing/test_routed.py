"""GRACE, MELO, WISE and IKE: the codebook's rules, routing on the prompt alone, masks and mergers, batches against singles."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import zoo
from tests.support.small import made

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import deltas
from engramlab.core.forward.generation import generate
from engramlab.core.forward.hooks import frozen
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training import losses
from engramlab.editing.method import EditFailed, load
from engramlab.editing.methods import grace, ike, melo, wise
from engramlab.editing.methods.melo import Clusters
from engramlab.editing.requests import encode_edits
from engramlab.editing.routed.codebook import Codebook
from engramlab.measuring.scoring import score

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2")
CE = losses.get("cross-entropy")
CONFIGS = {
    "grace": grace.Config(steps=25),
    "melo": melo.Config(steps=15),
    "wise": wise.Config(steps=10, context_lengths=((3, 2),), irrelevant=3),
}
ROUTED = tuple(CONFIGS)
UNRELATED = "Zoë O'Neil was born on October 2"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Texts that models write are kept, but not in the user's home."""
    monkeypatch.setenv("ENGRAMLAB_CACHE", str(tmp_path_factory.getbasetemp() / "engramlab"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_compact_tokenizer(zoo.SENTENCES, 400)


def model(family, tokenizer, dtype=torch.float32, **more):
    return zoo.model(family, vocabulary=len(tokenizer), **more).to(dtype).eval()


def an_edit(prompt, target):
    return Edit(Query(prompt, "", subject="France"), target)


EDITS = (
    an_edit("The capital of France is", "Washington"),
    an_edit("What is the capital of Japan? Answer:", "Paris"),
    an_edit("It's on the", "October 2"),
)


def logprob(model, tokenizer, edits):
    """Mean log-probability of each edit's target tokens, decided at the prompts' ends."""
    encoded = encode_queries(tokenizer, [Query(e.query.prompt, e.target) for e in edits], end=False)
    return score(model, encoded.sequences, ends=encoded.prompt_ends).mean_logprob()


def logits(model, tokenizer, prompt, ends=None):
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.no_grad(), deltas.routing(model, torch.tensor([ids.shape[1] - 1]) if ends is None else ends):
        return model(ids).logits


# --- codebooks


class Naive:
    """The codebook's rules, one list and one loop."""

    def __init__(self):
        self.entries = []

    def place(self, key, label, radius):
        best = None
        for i, (k, _, _) in enumerate(self.entries):
            d = math.dist(k, key)
            if best is None or d <= best[0]:
                best = d, i
        if best is None or best[0] > self.entries[best[1]][1] + radius:
            self.entries.append([key, radius, label])
        else:
            d, i = best
            if self.entries[i][2] == label:
                self.entries[i][1] = max(self.entries[i][1], d)
            elif d <= 1e-6:
                self.entries[i] = [key, radius, label]
            else:
                self.entries[i][1] = d / 2
                self.entries.append([key, d / 2, label])

    def find(self, query):
        best = None
        for i, (k, r, _) in enumerate(self.entries):
            d = math.dist(k, query)
            if best is None or d <= best[0]:
                best = d, i, r
        return -1 if best is None or best[0] > best[2] * (1 + 1e-6) else best[1]


coordinates = st.integers(-6, 6).map(float)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(coordinates, coordinates, st.sampled_from("ab")), min_size=1, max_size=12),
    st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=6),
)
def test_a_codebook_follows_the_rules(stream, queries):
    book, naive = Codebook.empty(2), Naive()
    for x, y, label in stream:
        book.place(torch.tensor([x, y]), label, 1.3, noise=1e-6)
        naive.place((x, y), label, 1.3)
    assert book.labels == [label for _, _, label in naive.entries]
    np.testing.assert_allclose(book.keys.numpy(), [k for k, _, _ in naive.entries])
    np.testing.assert_allclose(book.radii.numpy(), [r for _, r, _ in naive.entries], rtol=2e-5)
    near = torch.tensor([[x + 0.31, y - 0.17] for x, y in queries])
    assert book.find(near).tolist() == [naive.find(q) for q in near.tolist()]


def test_verdicts():
    book = Codebook.empty(1)
    assert book.place(torch.tensor([0.0]), "a", 1.0) == (0, "new")
    assert book.place(torch.tensor([1.5]), "a", 1.0) == (0, "same")
    assert book.radii.tolist() == pytest.approx([1.5], rel=1e-4)
    assert book.place(torch.tensor([2.0]), "b", 1.0) == (1, "split")
    assert book.radii.tolist() == [1.0, 1.0]
    assert book.place(torch.tensor([9.0]), "b", 1.0) == (2, "new")
    assert book.place(torch.tensor([9.0]), "c", 1.0, noise=1e-3) == (2, "replaced")
    assert book.labels == ["a", "b", "c"]
    assert book.find(torch.tensor([[0.5], [1.9], [5.0], [9.9]])).tolist() == [0, 1, -1, 2]
    other = book.copy()
    other.place(torch.tensor([50.0]), "d", 1.0)
    assert len(book) == 3
    assert len(other) == 4
    assert Codebook.empty(1).find(torch.zeros(2, 1)).tolist() == [-1, -1]


def test_clusters_grow_move_split_and_forget():
    c = Clusters.empty(1)
    c.add(torch.tensor([0.0]), "a", 1.0, 0)
    c.add(
        torch.tensor([1.6]), "a", 1.0, 1
    )  # the centre moves between its keys; the radius never shrinks below the first
    assert c.keys.tolist() == [[pytest.approx(0.8)]]
    assert c.radii.tolist() == [1.0]
    assert c.find_block(torch.tensor([[0.1], [1.5], [2.5]])).tolist() == [0, 1, -1]
    c.add(
        torch.tensor([1.8]), "b", 1.0, 2
    )  # one away from the centre: half each, and keys beyond the half are given up
    assert c.radii.tolist() == pytest.approx([0.5, 0.5])
    assert c.find_block(torch.tensor([[0.8], [1.79], [0.0]])).tolist() == [-1, 2, -1]
    assert c.block.tolist() == [2]
    c.add(torch.tensor([1.8]), "d", 1.0, 3)  # the very same prompt says something else now
    assert c.find_block(torch.tensor([[1.8]])).tolist() == [3]
    assert Clusters.empty(1).find_block(torch.zeros(1, 1)).tolist() == [-1]


# --- every routed method


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ROUTED)
def test_an_edit_takes_and_comes_off_without_a_trace(name, family, tokenizer):
    method, edits = load(name), EDITS[:1]
    m = model(family, tokenizer)
    state = copy.deepcopy(m.state_dict())
    required = [p.requires_grad for p in m.parameters()]
    before, far = logprob(m, tokenizer, edits), logits(m, tokenizer, UNRELATED)
    delta = made(method, m, tokenizer, edits, CONFIGS[name], CE)
    assert [p.requires_grad for p in m.parameters()] == required
    assert deltas.installed(m) == ()
    with deltas.active(m, delta):
        assert logprob(m, tokenizer, edits) > before + 0.1
        if name != "wise":  # its radius is learnt, theirs are given
            assert torch.equal(logits(m, tokenizer, UNRELATED), far)
    assert np.array_equal(logprob(m, tokenizer, edits), before)
    assert torch.equal(logits(m, tokenizer, UNRELATED), far)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), m.state_dict().values(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in m.modules())


@pytest.mark.parametrize("name", ROUTED)
def test_bf16_and_overtone(name, tokenizer):
    m = model("llama", tokenizer, torch.bfloat16)
    before = logprob(m, tokenizer, EDITS[:1])
    delta = made(load(name), m, tokenizer, EDITS[:1], CONFIGS[name], losses.get("overtone"))
    with deltas.active(m, delta):
        assert logprob(m, tokenizer, EDITS[:1]) > before


@pytest.mark.parametrize("name", ROUTED)
def test_many_cases_at_once_are_those_of_one_at_a_time(name, tokenizer):
    method, m = load(name), model("llama", tokenizer)
    cases = [EDITS[:1], EDITS[1:], EDITS[2:]]
    found = method.edit_each(m, tokenizer, cases, CONFIGS[name], CE)
    for case, delta in zip(cases, found, strict=True):
        alone = made(method, m, tokenizer, case, CONFIGS[name], CE)
        assert delta.settings() == alone.settings()
        for key, tensor in alone.tensors().items():
            torch.testing.assert_close(delta.tensors()[key], tensor, rtol=2e-3, atol=2e-3, msg=key)


@pytest.mark.parametrize("name", ROUTED)
def test_a_later_edit_goes_on_from_the_earlier_one(name, tokenizer):
    method, m = load(name), model("llama", tokenizer)
    start = logprob(m, tokenizer, EDITS)
    one = made(method, m, tokenizer, EDITS[:1], CONFIGS[name], CE)
    first = deltas.install(m, one)
    after_one = logprob(m, tokenizer, EDITS)
    two = made(method, m, tokenizer, EDITS[1:2], CONFIGS[name], CE)
    assert two.continues is one
    assert np.array_equal(logprob(m, tokenizer, EDITS), after_one)  # making it left everything as it was
    second = deltas.install(m, two)
    now = logprob(m, tokenizer, EDITS)
    assert now[1] > start[1] + 0.1
    if name != "wise":  # one shard of WISE may forget
        assert now[0] == pytest.approx(after_one[0], abs=1e-4)
        second.remove()
        first.remove()
        both = made(method, m, tokenizer, EDITS[:2], CONFIGS[name], CE)  # in one call, on the unedited model
        for key, tensor in both.tensors().items():
            torch.testing.assert_close(two.tensors()[key], tensor, rtol=2e-3, atol=2e-3, msg=key)
    else:
        assert len(two.keys) == 2
        second.remove()
        assert np.array_equal(logprob(m, tokenizer, EDITS), after_one)
        first.remove()
    assert np.array_equal(logprob(m, tokenizer, EDITS), start)


@pytest.mark.parametrize("name", ROUTED)
def test_the_target_plays_no_part_in_routing(name, tokenizer):
    """Scored with a target read along, and writing by itself: greedy decoding says what the scores say."""
    method, m = load(name), model("llama", tokenizer)
    edits = EDITS[:2]
    delta = made(method, m, tokenizer, edits, CONFIGS[name], CE)
    with deltas.active(m, delta):
        for edit in edits:
            text = generate(m, tokenizer, [edit.query.prompt, "It's on the Seine and"], max_new_tokens=4)[0]
            ids = torch.tensor([tokenizer(edit.query.prompt)["input_ids"]])
            end = torch.tensor([ids.shape[1] - 1])
            for _ in range(4):  # whole passes, no cache, the decision at the prompt's end
                with torch.no_grad(), deltas.routing(m, end):
                    ids = torch.cat([ids, torch.tensor([[zoo.likeliest(m(ids).logits[0, -1])]])], 1)
            written = ids[0, int(end) + 1 :].tolist()
            if tokenizer.eos_token_id in written:
                written = written[: written.index(tokenizer.eos_token_id)]
            assert tokenizer.decode(written, skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("name", ROUTED)
def test_cases_under_their_own_deltas_in_one_batch(name, tokenizer):
    method, m = load(name), model("gpt_neox", tokenizer)
    found = method.edit_each(m, tokenizer, [[e] for e in EDITS[:2]], CONFIGS[name], CE)
    alone = []
    for edit, delta in zip(EDITS[:2], found, strict=True):
        with deltas.active(m, delta):
            alone.append(float(logprob(m, tokenizer, [edit])[0]))
    encoded = encode_queries(tokenizer, [Query(e.query.prompt, e.target) for e in EDITS[:2]])
    with deltas.together(m, found):
        scores = score(m, encoded.sequences, ends=encoded.prompt_ends, owner=np.array([0, 1]))
    np.testing.assert_allclose(scores.mean_logprob(), alone, atol=1e-4)


@pytest.mark.parametrize("name", [*ROUTED, "ike", "eren", "lte", "p-tuning"])
def test_a_delta_comes_back_from_its_parts(name, tokenizer):
    method, m = load(name), model("llama", tokenizer, max_position_embeddings=512)
    delta = made(method, m, tokenizer, EDITS[:2], CONFIGS.get(name, method.Config()), CE)
    settings = json.loads(json.dumps(delta.settings()))
    back = type(delta).restore(delta.model, {k: v.clone() for k, v in delta.tensors().items()}, settings)
    assert back.context("A prompt") == delta.context("A prompt")
    with deltas.active(m, delta):
        want = logprob(m, tokenizer, EDITS)
    with deltas.active(m, back):
        assert np.array_equal(logprob(m, tokenizer, EDITS), want)


@pytest.mark.parametrize("name", ROUTED)
def test_what_is_not_finite_fails_alone(name, tokenizer):
    method, m = load(name), model("llama", tokenizer)
    bad = encode_edits(tokenizer, [EDITS[:1]]).targets[0]

    def loss(logits, targets):
        return CE(logits, targets).masked_fill(targets == bad, torch.nan)

    cases = [[e] for e in EDITS[:2]]
    assert bad not in encode_edits(tokenizer, cases[1:]).targets
    found = method.edit_each(m, tokenizer, cases, CONFIGS[name], loss)
    assert isinstance(found[0], EditFailed)
    assert EDITS[0].query.prompt in str(found[0])
    before = logprob(m, tokenizer, EDITS[1:2])
    with deltas.active(m, found[1]):
        assert logprob(m, tokenizer, EDITS[1:2]) > before
    with pytest.raises(EditFailed):
        made(method, m, tokenizer, cases[0], CONFIGS[name], loss)
    assert deltas.installed(m) == ()


# --- one by one


@pytest.mark.parametrize("replacement", ["replace_last", "replace_prompt"])
@pytest.mark.parametrize("start", ["random", "output"])
def test_grace_puts_its_value_where_it_should(replacement, start, tokenizer):
    m = model("llama", tokenizer)
    config = grace.Config(steps=3, layer=0, replacement=replacement, start=start)
    delta = made(grace, m, tokenizer, EDITS[:1], config, CE)
    requests = encode_edits(tokenizer, [EDITS[:1]])
    end, seen = int(requests.prompt_ends[0]), []
    with deltas.active(m, delta):
        hook = m.get_submodule(delta.path).register_forward_hook(lambda module, args, output: seen.append(output))
        with torch.no_grad(), deltas.routing(m, requests.prompt_ends):
            m(requests.ids)
        hook.remove()
    replaced = (seen[0][0] == delta.values[0]).all(-1)
    want = torch.arange(requests.ids.shape[1])
    assert replaced.tolist() == ((want == end) if replacement == "replace_last" else (want <= end)).tolist()


def test_grace_values_are_those_of_a_plain_loop(tokenizer):
    """Against Adam on whole forward passes, with nothing kept from one step to the next."""
    m = model("llama", tokenizer)
    delta = made(grace, m, tokenizer, EDITS[:1], grace.Config(steps=6, layer=0, stop_below=0), CE)
    requests = encode_edits(tokenizer, [EDITS[:1]])
    value = torch.rand(32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([value], lr=1.0)

    def put(module, args, output):
        return output.index_put((torch.tensor([0]), requests.prompt_ends), value[None])

    hook = m.get_submodule(delta.path).register_forward_hook(put)
    with frozen(m):
        for _ in range(6):
            optimizer.zero_grad()
            CE(m(requests.ids).logits[requests.keep], requests.targets).mean().backward()
            optimizer.step()
    hook.remove()
    torch.testing.assert_close(delta.values[0], value.detach(), rtol=1e-3, atol=1e-3)


def test_the_same_prompt_edited_again_says_the_new_thing(tokenizer):
    m = model("llama", tokenizer)
    again = an_edit(EDITS[0].query.prompt, "Paris")
    for name in ("grace", "melo"):
        one = made(load(name), m, tokenizer, EDITS[:1], CONFIGS[name], CE)
        with deltas.active(m, one):
            before = logprob(m, tokenizer, [again])
            two = made(load(name), m, tokenizer, [again], CONFIGS[name], CE)
            with deltas.active(m, two):
                assert logprob(m, tokenizer, [again]) > before + 0.1
        at_once = made(load(name), m, tokenizer, [EDITS[0], again], CONFIGS[name], CE)
        with deltas.active(m, at_once):
            assert logprob(m, tokenizer, [again]) > before + 0.1


def test_melo_edits_may_share_a_block(tokenizer):
    m = model("llama", tokenizer)
    delta = made(melo, m, tokenizer, EDITS, melo.Config(steps=3, edits_per_block=2), CE)
    assert delta.clusters.block.tolist() == [0, 0, 1]
    assert {len(t) for t in delta.left.values()} == {2}
    with pytest.raises(UserError, match="above the key's"):
        made(melo, m, tokenizer, EDITS, melo.Config(key_layer=1, layers=(1,)), CE)
    deep = model("llama", tokenizer, num_hidden_layers=3)
    delta = made(melo, deep, tokenizer, EDITS[:1], melo.Config(steps=2, key_layer=0, layers=(1,)), CE)
    with deltas.active(deep, delta), pytest.raises(UserError, match="must be there too"):
        made(melo, deep, tokenizer, EDITS[1:], melo.Config(key_layer=0, layers=(2,)), CE)


def naive_ties(updates, weights, density):
    flat = [list(u.flatten().tolist()) for u in updates]
    for u in flat:
        keep = sorted(range(len(u)), key=lambda i: -abs(u[i]))[: max(1, int(density * len(u)))]
        for i in range(len(u)):
            if i not in keep:
                u[i] = 0.0
    merged = []
    for column in zip(*flat, strict=True):
        sign = 1 if sum(w * v for w, v in zip(weights, column, strict=True)) >= 0 else -1
        agreeing = [(w, v) for w, v in zip(weights, column, strict=True) if v * sign > 0]
        merged.append(sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing) if agreeing else 0.0)
    return merged


@pytest.mark.parametrize("seed", range(5))
def test_ties_against_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(3, 4, 5, generator=generator) * (torch.rand(3, 4, 5, generator=generator) < 0.6)
    weights = torch.tensor([0.2, 0.3, 0.5])
    for density in (0.2, 0.53, 1.0):
        got = wise.ties(updates, weights, density).flatten().tolist()
        assert got == pytest.approx(naive_ties(updates, weights.tolist(), density), abs=1e-6)


def test_wise_changes_only_its_shard_and_stays_in_bounds(tokenizer):
    m = model("llama", tokenizer)
    config = wise.Config(steps=8, context_lengths=((3, 2),), irrelevant=3, norm_constraint=0.05)
    delta = made(wise, m, tokenizer, EDITS[:1], config, CE)
    mask = wise.shard(tuple(delta.updates.shape[1:]), config.mask_ratio, config.seed)
    assert 0.15 < mask.float().mean() < 0.25
    assert (delta.updates[0][~mask] == 0).all()
    assert (delta.updates[0][mask] != 0).any()
    assert float(delta.updates.abs().max()) <= 0.05 + 1e-7


def test_wise_routes_to_the_most_active_memory_or_to_none(tokenizer):
    m = model("llama", tokenizer)
    path, (out, into) = "model.layers.1.mlp.down_proj", (32, 64)
    generator = torch.Generator().manual_seed(0)
    updates, keys = torch.randn(2, out, into, generator=generator), torch.randn(3, into, generator=generator)
    delta = wise.WiseDelta(deltas.fingerprint(m), path, updates, 0, keys, torch.tensor([0, 1, 1]), 0.9)
    act = [[float((u @ k).norm()) for u in updates] for k in keys]
    assert delta.thresholds().tolist() == pytest.approx([0.9 * act[0][0], 0.9 * min(act[1][1], act[2][1])], rel=1e-5)
    modify, x = delta.modifiers(m)[path], torch.stack([keys[0] * 3, keys[0] * 0.01, keys[1] * 3])[:, None]
    y = torch.zeros(3, 1, out)
    got = modify(x, y, deltas.Route(torch.zeros(3, dtype=torch.int64)))
    for row in range(3):
        found = [float((u @ x[row, 0]).norm()) for u in updates]
        usable = [i for i in range(2) if found[i] > delta.thresholds()[i]]
        want = updates[max(usable, key=lambda i: found[i])] @ x[row, 0] if usable else torch.zeros(out)
        torch.testing.assert_close(got[row, 0], want, rtol=1e-4, atol=1e-4)
    assert (got[1] == 0).all()


@pytest.mark.parametrize("variant", ["merge", "retrieve"])
def test_wise_shards_and_mergers(variant, tokenizer):
    m = model("llama", tokenizer)
    config = wise.Config(
        steps=2, context_lengths=((3, 1),), irrelevant=2, save_freq=1, merge_freq=2, variant=variant, density=1.0
    )
    edits = [*EDITS, an_edit("She studied at the", "Seine"), an_edit("Its old name was", "Paris")]
    delta = made(wise, m, tokenizer, edits, config, CE)
    if variant == "merge":
        assert delta.merged == 1
        assert delta.memory.tolist() == [0, 0, 0, 0, 1]
    else:
        assert delta.merged == 2
        assert delta.memory.tolist() == [0, 0, 1, 1, 2]
    assert len(delta.updates) == delta.merged + 1
    stepwise, stack = None, []
    for edit in edits:  # the same, one call each
        stepwise = made(wise, m, tokenizer, [edit], config, CE)
        stack.append(deltas.install(m, stepwise))
    for entry in reversed(stack):
        entry.remove()
    torch.testing.assert_close(stepwise.updates, delta.updates, rtol=1e-3, atol=1e-4)
    assert stepwise.memory.tolist() == delta.memory.tolist()


def test_wise_margins_against_loops():
    generator = torch.Generator().manual_seed(1)
    own, far = (torch.rand(n, generator=generator).mul(40).tolist() for n in (3, 5))
    want = 0.0
    for violations in (
        [f - 5 for f in far],
        [20 - o for o in own],
        [f - o + 10 for f, o in itertools.product(far, own)],
    ):
        above = [v for v in violations if v > 0]
        want += sum(above) / len(above) if above else 0.0
    o, f = torch.tensor(own), torch.tensor(far)
    parts = (f - 5, 20 - o, f[None, :] - o[:, None] + 10)
    assert float(sum(wise._mean_positive(p) for p in parts)) == pytest.approx(want, rel=1e-5)


def test_ike_puts_the_nearest_facts_last_and_goes_on(tokenizer):
    m = model("llama", tokenizer, max_position_embeddings=4096)
    delta = made(ike, m, tokenizer, EDITS, ike.Config(demonstrations=4, facts=2), CE)
    text = delta.context("Tell me: what is the capital of Japan?")
    assert text.endswith("So: Tell me: what is the capital of Japan?")
    last = text.rsplit("\n\n", 1)[1].splitlines()
    assert len(last) == 3
    assert last[1] == "From now on: What is the capital of Japan? Answer: Paris."
    assert text.count("So: ") == 5
    with deltas.active(m, delta):
        more = made(ike, m, tokenizer, [an_edit("It's on the", "Thames")], ike.Config(demonstrations=0), CE)
    assert more.continues is delta
    assert len(more.facts) == 3
    assert "Thames" in more.context("It's on the")
    assert "October" not in more.context("It's on the")


def test_ike_kinds_and_room(tokenizer):
    own = ike._read(str(ike._OWN))
    shown = ike._choose(own, ["The piano was invented in"], 16)
    assert len(shown) == len(set(shown)) == 16
    kinds = [next(k for k in ("copy", "update", "retain") for d in own if d.show(k) == text) for text in shown]
    assert {k: kinds.count(k) for k in ("copy", "update", "retain")} == {"copy": 2, "update": 6, "retain": 8}
    small = model("gpt2", tokenizer)  # a context of 64 tokens
    delta = made(ike, small, tokenizer, EDITS[:1], ike.Config(), CE)
    assert len(tokenizer(delta.context(EDITS[0].query.prompt))["input_ids"]) <= 64


def test_ike_demonstrations_from_a_file(tmp_path, tokenizer):
    m, file = model("llama", tokenizer, max_position_embeddings=4096), tmp_path / "d.jsonl"
    record = {"prompt": "A is", "target": "B", "rephrased": "A:", "unrelated": "C is", "answer": "D"}
    file.write_text(json.dumps(record) + "\n")
    text = made(ike, m, tokenizer, EDITS[:1], ike.Config(file=str(file)), CE).context("Hm")
    assert "From now on: A is B.\nSo: C is D" in text
    for line, message in (
        ("{", "line 1: not JSON"),
        ("[1]", "is no object"),
        (json.dumps(record | {"answer": ""}), "'answer' must be a text"),
        ("", "no demonstrations"),
    ):
        file.write_text(line)
        with pytest.raises(UserError, match=message):
            made(ike, m, tokenizer, EDITS[:1], ike.Config(file=str(file)), CE)
    with pytest.raises(UserError, match=r"none\.jsonl"):
        made(ike, m, tokenizer, EDITS[:1], ike.Config(file=str(tmp_path / "none.jsonl")), CE)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("grace", {"radius": 0.0}),
        ("grace", {"replacement": "replace_all"}),
        ("melo", {"rank": 0}),
        ("wise", {"mask_ratio": 0.0}),
        ("wise", {"merge_freq": 700}),
        ("ike", {"facts": 0}),
    ],
)
def test_options_out_of_range_are_named(name, option):
    with pytest.raises(UserError, match=next(iter(option))):
        load(name).Config(**option)
