"""LoRA on query, value and token embedding: what it changes, and what it must not."""

import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.models import add_lora, module_paths, unwrap
from engramlab.core.text.batches import OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Recipe, TrainState, train

IDS = torch.tensor([[5, 9, 33, 2, 60]])

#: Separate projections, and every layout of a fused one.
FAMILIES = (
    "gpt2",
    "gpt_neox",
    "llama",
    "qwen3",
    "phi3",
    "opt",
    "bloom",
    "falcon",
    "falcon-7b",
    "codegen",
    "gpt_bigcode",
)


def finetune(model, steps: int = 5) -> None:
    rows = TokenRows(Sequences.of([[(7 * i + 3 * k) % 60 + 2 for k in range(3 + i % 6)] for i in range(20)]))
    stream = OneEntryARow(rows, Order(20, 0), start=[0], end=1, length=16)
    list(train(TrainState(model, Recipe(steps=steps, batch=5, learning_rate=3e-2, weight_decay=0.1)), stream))


def keys_and_values(model) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first layer's attention really uses as keys and values."""
    cache = model.eval()(IDS, use_cache=True).past_key_values
    return cache.layers[0].keys, cache.layers[0].values


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("embedding_rank", [0, 3, "full"])
def test_the_update_starts_at_zero(family, embedding_rank):
    model = zoo.model(family).eval()
    before = model(IDS).logits
    state = torch.get_rng_state()
    wrapped = add_lora(model, rank=4, embedding_rank=embedding_rank)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(wrapped(IDS).logits, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_update_trains_and_it_leaves_keys_alone(family):
    wrapped = add_lora(zoo.model(family), rank=4)
    base = {name: p.clone() for name, p in wrapped.named_parameters() if "lora" not in name}
    assert {name for name, p in wrapped.named_parameters() if p.requires_grad}.isdisjoint(base)
    finetune(wrapped)
    for name, p in wrapped.named_parameters():
        assert name not in base or torch.equal(p, base[name])
    with torch.no_grad(), wrapped.disable_adapter():
        keys, values = keys_and_values(wrapped)
        logits = wrapped(IDS).logits
    with torch.no_grad():
        new_keys, new_values = keys_and_values(wrapped)
        assert not torch.equal(wrapped(IDS).logits, logits)
    assert torch.equal(new_keys, keys)
    assert not torch.equal(new_values, values)
    paths = module_paths(wrapped)
    if paths.query == paths.value:  # query and value rows have moved, and key rows are exactly zero
        layer = wrapped.get_base_model().get_submodule(paths.layers)[0]
        factor = layer.get_submodule(paths.query).lora_B["default"].weight
        heads, keys = 4, {"phi3": 2, "falcon": 2, "falcon-7b": 1, "gpt_bigcode": 1}.get(family, 4)
        assert int((factor == 0).all(dim=1).sum()) == keys * 32 // heads
        assert int((factor != 0).all(dim=1).sum()) == (heads + keys) * 32 // heads


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_the_embedding_trains_and_the_tied_output_does_not(family):
    model = zoo.model(family)
    matrix = model.get_output_embeddings().weight.clone()
    embedded = model.get_input_embeddings()(IDS).detach()
    wrapped = add_lora(model, rank=2, embedding_rank=3)
    finetune(wrapped)
    assert torch.equal(wrapped.get_output_embeddings().weight, matrix)
    assert type(wrapped.get_output_embeddings()) is torch.nn.Linear
    change = wrapped.get_input_embeddings()(IDS) - embedded
    assert change.abs().min() > 0
    assert torch.linalg.matrix_rank(change[0]) == 3


def test_a_fully_trained_embedding_moves_where_it_is_read_and_is_saved(tmp_path):
    model = zoo.model("gpt_neox")
    matrix = model.get_output_embeddings().weight.clone()
    embedded = model.get_input_embeddings()(IDS).detach()
    wrapped = add_lora(model, rank=2, embedding_rank="full")
    finetune(wrapped)
    assert torch.equal(wrapped.get_output_embeddings().weight, matrix)
    change = wrapped.get_input_embeddings()(IDS) - embedded
    assert torch.linalg.matrix_rank(change[0]) == IDS.shape[1]  # no rank limits it
    logits = wrapped.eval()(IDS).logits
    wrapped.save_pretrained(tmp_path)
    from peft import PeftModel

    again = PeftModel.from_pretrained(unwrap(wrapped), tmp_path).eval()
    assert torch.equal(again(IDS).logits, logits)


@pytest.mark.parametrize("embedding_rank", [3, "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_unwrapping_gives_the_model_back(family, embedding_rank):
    model = zoo.model(family).eval()
    frozen = next(model.parameters()).requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes, kinds = [m.training for m in model.modules()], [type(m) for m in model.modules()]
    wrapped = add_lora(model, rank=4, embedding_rank=embedding_rank)
    finetune(wrapped)
    back = unwrap(wrapped)
    assert back is model
    assert [type(m) for m in back.modules()] == kinds
    assert [m.training for m in back.modules()] == modes
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    assert [p is not frozen for p in back.parameters()] == [p.requires_grad for p in back.parameters()]


def test_ranks_and_scales():
    wrapped = add_lora(zoo.model("gpt_neox"), rank=4, embedding_rank=3)
    found = {name: module for name, module in wrapped.named_modules() if hasattr(module, "lora_A")}
    assert len(found) == 3  # two layers and the embedding
    for name, module in found.items():
        assert module.scaling["default"] == 1
        assert module.r["default"] == (3 if "embed_in" in name else 4)
    wider = add_lora(zoo.model("llama"), rank=4, alpha=8)
    scales = [module.scaling["default"] for module in wider.modules() if hasattr(module, "lora_A")]
    assert scales == [2, 2, 2, 2]  # query and value of two layers


def test_factors_are_of_the_seed_alone():
    def factors(seed: int) -> torch.Tensor:
        torch.rand(3)
        named = add_lora(zoo.model("llama"), rank=2, seed=seed).named_parameters()
        return torch.cat([p.flatten() for name, p in named if "lora_A" in name])

    assert torch.equal(factors(1), factors(1))
    assert not torch.equal(factors(1), factors(2))


def test_what_has_no_attention_is_refused():
    with pytest.raises(UserError, match=r"architecture 'mamba' has no attention .*take a decoder-only transformer"):
        add_lora(zoo.model("mamba"), rank=2)
