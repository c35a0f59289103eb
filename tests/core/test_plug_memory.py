"""A network with a plug-in memory, against the same computed by hand; and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core import deltas, models
from engramlab.core.forward.generation import generate
from engramlab.core.text import batches
from engramlab.core.text.tokenizers import with_mask
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.measuring import looking_up

TOP = 3


@pytest.fixture(scope="module")
def tokenizer():
    return with_mask(zoo.ZOO["llama3"](zoo.SENTENCES))


def made(tokenizer, masked=True, documents=12, seed=0):
    """A network of two layers whose preferences are clear, with some documents, in evaluation mode."""
    model = models.build(
        "2x32",
        tokenizer,
        family="pluglm",
        masked=masked,
        context=32,
        seed=seed,
        own={"memory_top": TOP, "num_attention_heads": 4},
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.3, generator=generator)
    look = model.looking()[0]
    look.norm.running_mean.normal_(generator=generator)
    look.norm.running_var.uniform_(0.5, 2.0, generator=generator)
    look.beta.data.normal_(generator=generator)
    if documents:
        model.memory.fill(texts(documents, seed), model.get_input_embeddings())
    return model.eval()


def texts(count, seed=0, first=5):
    generator = torch.Generator().manual_seed(seed + 1)
    return [torch.randint(first, 300, (4 + i % 5,), generator=generator).tolist() for i in range(count)]


def rows(count=6, length=9, seed=3):
    return torch.randint(5, 300, (count, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, ids, mask=None):
    return model(input_ids=ids, attention_mask=mask).logits


@torch.no_grad()
def by_hand(model, x, inside):
    """What the memory adds to ``x[B, T, d]``, with loops; ``inside`` are the positions that the query is made of."""
    look, memory, table = model.looking()[0], model.memory, model.get_input_embeddings().weight

    def pooled(pool, vectors):
        strength = torch.stack(
            [pool.outer.weight[0] @ torch.tanh(pool.inner.weight @ v + pool.inner.bias) for v in vectors]
        )
        weights = strength.exp() / strength.exp().sum()
        return sum(w * v for w, v in zip(weights, vectors, strict=True))

    documents = [pooled(memory.pool, table[memory.document(i)]) for i in range(len(memory))]
    keys = torch.stack([memory.key.weight @ e + memory.key.bias for e in documents])
    values = torch.stack([memory.value.weight @ e + memory.value.bias for e in documents])
    said = torch.zeros_like(x)
    size = x.shape[-1] // look.heads
    for b in range(len(x)):
        query = look.query.weight @ pooled(look.pool, x[b][inside[b]]) + look.query.bias
        query = (query - look.norm.running_mean) / (look.norm.running_var + look.norm.eps).sqrt()
        query = query * look.norm.weight + look.norm.bias
        chosen = sorted(range(len(keys)), key=lambda i: -float(query @ keys[i]))[: look.top]
        near = [float(query @ keys[i] / (query.norm() * keys[i].norm())) for i in chosen]
        for t in range(x.shape[1]):
            heads = []
            for h in range(look.heads):
                part = slice(h * size, (h + 1) * size)
                asks = (look.asks.weight @ x[b, t] + look.asks.bias)[part]
                offers = [(look.offers.weight @ values[i] + look.offers.bias)[part] for i in chosen]
                scores = [
                    float(asks @ o) / math.sqrt(size) + float(look.beta[h]) * n
                    for o, n in zip(offers, near, strict=True)
                ]
                weights = torch.tensor(scores).softmax(0)
                gives = [(look.gives.weight @ values[i] + look.gives.bias)[part] for i in chosen]
                heads.append(sum(w * g for w, g in zip(weights, gives, strict=True)))
            said[b, t] = look.output.weight @ torch.cat(heads) + look.output.bias
    return said


def caught(model, ids, mask=None):
    """What the look-up read and said."""
    seen = []
    handle = model.looking()[0].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    try:
        logits(model, ids, mask)
    finally:
        handle.remove()
    return seen[0]


# the definition -------------------------------------------------------------------------------------------------------


def test_the_look_up_is_the_papers_formula(tokenizer):
    """Heads and positions in their places, which those of the released code are not; padding plays no part."""
    model, ids = made(tokenizer), rows()
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[4, 2:] = 0
    x, said = caught(model, ids, mask)
    torch.testing.assert_close(said, by_hand(model, x, mask.bool()), atol=1e-4, rtol=1e-4)
    alone = caught(model, ids[4:5, :2])[1]
    torch.testing.assert_close(said[4:5, :2], alone, atol=1e-5, rtol=1e-4)


def test_the_layer_is_the_norm_of_all_three(tokenizer):
    model, ids = made(tokenizer), rows(2)
    number = model.config.memory_layers[0]
    seen = {}
    layer = model.gpt_neox.layers[number]
    for name in ("post_attention_layernorm", "mlp", "look_up"):
        layer.get_submodule(name).register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    layer.register_forward_hook(lambda m, a, out: seen.update({"": out}))
    logits(model, ids)
    x, mlp, said = (seen[name] for name in ("post_attention_layernorm", "mlp", "look_up"))
    normed = torch.nn.functional.layer_norm(x + mlp + said, (32,))
    torch.testing.assert_close(seen[""], normed * layer.output_layernorm.weight + layer.output_layernorm.bias)
    assert layer.mlp.dense_h_to_4h.out_features == 32, "the FFN is small where there is a memory"


def test_an_output_projection_of_zero_is_the_network_without_memory(tokenizer):
    model, empty, ids = made(tokenizer), made(tokenizer, documents=0), rows()
    assert not torch.equal(logits(model, ids), logits(empty, ids))
    output = model.looking()[0].output
    output.weight.data.zero_()
    output.bias.data.zero_()
    assert torch.equal(logits(model, ids), logits(empty, ids))


@torch.no_grad()
def test_a_fresh_network_reads_the_words_of_its_documents(tokenizer):
    model = models.build("2x64", tokenizer, family="pluglm", masked=True, context=32).eval()
    embedding = model.get_input_embeddings()
    model.memory.fill(texts(1), embedding)
    (look,) = model.looking()
    said = look.output(look.gives(model.memory.values[0])) - look.output.bias - look.output(look.gives.bias)
    pooled = embedding.weight[model.memory.document(0)].mean(0)
    # The strengths of words begin nearly alike.
    torch.testing.assert_close(said, 4 * 8.0 * pooled, atol=0.05, rtol=0.05)
    assert 0.5 < float(said.norm()) / 8.0 < 4


def test_of_one_document_beta_plays_no_part(tokenizer):
    model, ids, found = made(tokenizer, documents=1), rows(), []
    look = model.looking()[0]
    for beta in (-3.0, 0.0, 1e4):
        look.beta.data.fill_(beta)
        found.append(caught(model, ids)[1])
    with torch.no_grad():
        value = look.output(look.gives(model.memory.values[0]))
    for said in found:
        torch.testing.assert_close(said, value.expand_as(said), atol=1e-6, rtol=1e-5)


def test_the_order_of_documents_is_irrelevant(tokenizer):
    model, ids = made(tokenizer), rows()
    before = logits(model, ids)
    documents = [model.memory.document(i) for i in range(12)]
    read = [[documents[i] for i in row] for row in model.looking()[0].found.numbers.tolist()]
    order = [7, 2, 11, 0, 5, 1, 3, 10, 8, 4, 6, 9]
    model.memory.fill([documents[i] for i in order], model.get_input_embeddings())
    torch.testing.assert_close(logits(model, ids), before)
    assert [[model.memory.document(i) for i in row] for row in model.looking()[0].found.numbers.tolist()] == read


def test_a_document_that_is_never_read_changes_nothing_bit_for_bit(tokenizer):
    model, ids = made(tokenizer, documents=40), rows()
    before = logits(model, ids)
    read = set(model.looking()[0].found.numbers.flatten().tolist())
    others = sorted(set(range(40)) - read)
    assert len(others) > 5
    model.memory.swap(others[0], [17, 18, 19], model.get_input_embeddings())
    after = logits(model, ids)
    assert others[0] not in model.looking()[0].found.numbers
    assert torch.equal(after, before)
    model.memory.remove(others)
    assert torch.equal(logits(model, ids), before)


def test_a_large_beta_leaves_the_nearest_alone(tokenizer):
    model, ids = made(tokenizer), rows()
    look = model.looking()[0]
    look.beta.data.fill_(1e6)
    said = caught(model, ids)[1]
    nearest = look.found.near.argmax(1)
    assert not torch.equal(nearest, torch.zeros_like(nearest)), "searched by inner product, weighed by cosine"
    with torch.no_grad():
        values = look.output(look.gives(look.found.values[torch.arange(6), nearest]))
    torch.testing.assert_close(said, values[:, None].expand_as(said), atol=1e-5, rtol=1e-4)


def test_stored_keys_are_those_that_training_makes(tokenizer):
    model = made(tokenizer)
    numbers = torch.tensor([[3, 0, 7], [7, 11, 3]])
    stored = model.memory.read(numbers, model.get_input_embeddings())
    model.memory.train()
    for one, other in zip(model.memory.read(numbers, model.get_input_embeddings()), stored, strict=True):
        torch.testing.assert_close(one, other)
        assert one.requires_grad


def test_training_moves_documents_and_what_finds_them(tokenizer):
    model, ids = made(tokenizer).train(), rows()
    model(input_ids=ids, labels=ids).loss.backward()
    look, memory = model.looking()[0], model.memory
    for parameter in (memory.key.weight, memory.value.weight, memory.pool.outer.weight, look.query.weight, look.beta):
        assert parameter.grad.abs().sum() > 0
    with pytest.raises(UserError, match="a batch of one row has no statistics"):
        model(input_ids=ids[:1])


def test_what_is_stated_is_looked_up_behind_a_quarter(tokenizer):
    """The causal variant in training: of nine tokens the memory is read from the third on, by a question where it ends."""
    model, ids = made(tokenizer, masked=False), rows(length=9)
    targets = ids.roll(-1, 1)
    targets[:, -1] = batches.IGNORE
    targets[3:, :5] = batches.IGNORE  # questions of six tokens
    batch = batches.Batch(ids, targets, ids.numel(), np.repeat([0, 1], 3).astype(np.uint8))
    nobody = torch.full((6,), -1)
    state, seen = TrainState(model, Recipe(steps=1)), []
    with model.looking()[0].register_forward_hook(lambda module, given, said: seen.append(said.detach())):
        looking_up.loss(state, batch, nobody, masked=False).backward()
    reads = seen[0].abs().sum(-1) > 0
    assert reads[:3].tolist() == [[False] * 2 + [True] * 7] * 3
    assert reads[3:].tolist() == [[False] * 5 + [True] * 4] * 3
    assert model.looking()[0].query.weight.grad.abs().sum() > 0


def test_no_row_finds_its_own_document(tokenizer):
    model, ids = made(tokenizer), rows()
    logits(model, ids)
    nearest = model.looking()[0].found.numbers[:, 0]
    own = torch.where(torch.arange(6) % 2 == 0, nearest, -1)
    with model.memory.leaving_out(own):
        logits(model, ids)
    found = model.looking()[0].found.numbers
    assert not (found[::2] == own[::2, None]).any()
    assert torch.equal(found[1::2, 0], nearest[1::2])
    lone, empty = made(tokenizer, documents=1), made(tokenizer, documents=0)
    with lone.memory.leaving_out(torch.zeros(6, dtype=torch.long)):
        assert torch.equal(logits(lone, ids), logits(empty, ids)), "nothing else is there to be read"


def test_the_query_begins_as_the_key(tokenizer):
    model = models.build("tiny", tokenizer, family="pluglm", seed=1)
    assert torch.equal(model.looking()[0].query.weight, model.memory.key.weight)
    assert model.looking()[0].beta.tolist() == [1.0] * 4
    other = models.build("2x32", tokenizer, family="pluglm", masked=True, own={"memory_beta": 8.0})
    assert other.looking()[0].beta.unique().tolist() == [8.0]
    assert model.memory.key.out_features <= 128


# the causal variant ---------------------------------------------------------------------------------------------------


def test_a_causal_network_decides_once_where_the_prompt_ends(tokenizer):
    model, empty, ids = made(tokenizer, masked=False), made(tokenizer, masked=False, documents=0), rows()
    ends = torch.tensor([4, 4, 2, 5, 8, 3])
    assert deltas.routed(model)
    assert not deltas.routed(empty)
    with deltas.routing(model, ends):
        whole = logits(model, ids)
    before = logits(empty, ids)
    for b, end in enumerate(ends.tolist()):
        assert torch.equal(whole[b, :end], before[b, :end]), "before the end nothing is read"
        assert not torch.equal(whole[b, end], before[b, end])
    changed = ids.clone()
    for b, end in enumerate(ends.tolist()):
        changed[b, end + 1 :] = 7
    with deltas.routing(model, ends):
        other = logits(model, changed)
    for b, end in enumerate(ends.tolist()):
        torch.testing.assert_close(other[b, : end + 1], whole[b, : end + 1], msg="what follows plays no part")


def test_what_is_written_is_what_one_pass_says(tokenizer):
    model = made(tokenizer, masked=False)
    prompts = ["The capital of France", "It's on"]
    written = generate(model, tokenizer, prompts, max_new_tokens=4)
    for prompt, text in zip(prompts, written, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        end, said = torch.tensor([len(ids) - 1]), []
        for _ in range(4):
            with deltas.routing(model, end):
                said.append(zoo.likeliest(logits(model, torch.tensor([ids + said]))[0, -1], 0.0))
            if said[-1] == tokenizer.eos_token_id:
                break
        assert tokenizer.decode(said, skip_special_tokens=True).strip() == text.strip()


# changing, saving -----------------------------------------------------------------------------------------------------


def test_what_was_added_is_taken_back_to_the_same_bytes(tokenizer, tmp_path):
    model = made(tokenizer)
    embedding = model.get_input_embeddings()
    model.save_pretrained(tmp_path)
    before = (tmp_path / "memory.safetensors").read_bytes()
    model.memory.add([[5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [20]], embedding)
    assert len(model.memory) == 14
    model.memory.save(tmp_path)
    assert (tmp_path / "memory.safetensors").read_bytes() != before
    model.memory.remove([12, 13])
    model.memory.save(tmp_path)
    assert (tmp_path / "memory.safetensors").read_bytes() == before
    third = model.memory.document(3)
    model.memory.swap(3, [5, 6], embedding)
    assert [model.memory.document(i) for i in (3, 4)] == [[5, 6], texts(12)[4]]
    model.memory.swap(3, third, embedding)
    torch.testing.assert_close(model.memory.keys, made(tokenizer).memory.keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_it_is_the_same_network(tokenizer, tmp_path, dtype):
    model, ids = made(tokenizer), rows()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = models.load(str(tmp_path), dtype=dtype)
    assert (len(loaded.memory), loaded.memory.keys.dtype) == (12, dtype)
    if dtype == torch.float32:
        own = dict(model.state_dict())
        assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
        assert torch.equal(loaded.memory.keys, model.memory.keys)
        # Where tensors lie in memory can decide which kernel multiplies them.
        torch.testing.assert_close(logits(loaded, ids), logits(model, ids), atol=1e-5, rtol=1e-5)
    loaded.memory.clear()
    loaded.save_pretrained(tmp_path)
    assert len(models.load(str(tmp_path))[0].memory) == 0, "an empty memory leaves no old file"


def test_keys_of_other_weights_are_refused_by_name(tokenizer, tmp_path):
    model = made(tokenizer)
    model.memory.key.weight.data[0] += 1
    with pytest.raises(UserError, match="made by other encoder weights"):
        model.memory.add([[5, 6]], model.get_input_embeddings())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"memory .*memory.safetensors: the keys .* engramlab memory encode MODEL_FOLDER"
    ):
        models.load(str(tmp_path))
    loaded, _ = models.load(str(tmp_path), stale=True)
    loaded.memory.require(loaded.get_input_embeddings())


def test_a_checkpoint_keeps_keys_and_statistics(tokenizer, tmp_path):
    class Place:
        def state(self):
            return {}

        def restore(self, state):
            pass

    model = made(tokenizer)
    state = TrainState(model, Recipe(steps=1))
    checkpoints.save(tmp_path, state, Place())
    other = made(tokenizer)
    other.memory.keys, other.looking()[0].norm.running_mean = other.memory.keys + 1, torch.zeros(16)
    checkpoints.load(checkpoints.latest(tmp_path), TrainState(other, Recipe(steps=1)), Place())
    assert torch.equal(other.memory.keys, model.memory.keys)
    assert torch.equal(other.looking()[0].norm.running_mean, model.looking()[0].norm.running_mean)


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "give at least one"),
        ([[5], []], "document 1 has no token"),
        ([[5, 6], [7, 100_000]], "document 1 holds token 100000, but the vocabulary has"),
        ([[-1]], "document 0 holds token -1"),
        ([[5, 6], [7], [5, 6]], "document 2 is document 0 again"),
    ],
)
def test_documents_that_cannot_be(tokenizer, documents, message):
    model = made(tokenizer)
    with pytest.raises(UserError, match=message):
        model.memory.fill(documents, model.get_input_embeddings())
    assert len(model.memory) == 12


def test_other_mistakes(tokenizer, tmp_path):
    model, ids = made(tokenizer), rows()
    embedding = model.get_input_embeddings()
    with pytest.raises(UserError, match="document 0 is in the memory already"):
        model.memory.add([model.memory.document(2)], embedding)
    with pytest.raises(UserError, match="document 12 is not in the memory: it holds 12"):
        model.memory.remove([12])
    mask = torch.ones_like(ids)
    mask[2] = 0
    with pytest.raises(UserError, match="row 2 holds nothing but padding"):
        logits(model, ids, mask)
    model.save_pretrained(tmp_path)
    path = tmp_path / "memory.safetensors"
    wider = models.build("2x64", tokenizer, family="pluglm", masked=True)
    with pytest.raises(UserError, match="it belongs to another network"):
        wider.memory.restore(path, wider.get_input_embeddings())
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        model.memory.restore(path, embedding)
    with pytest.raises(UserError, match="no such file|cannot be read"):
        model.memory.restore(tmp_path / "none", embedding)


def test_fewer_documents_than_a_row_reads(tokenizer):
    model, ids = made(tokenizer, documents=2), rows()
    logits(model, ids)
    assert model.looking()[0].found.numbers.shape == (6, 2)
    assert logits(model, ids).isfinite().all()
