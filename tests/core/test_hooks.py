"""Hooks clean up, and logits at some positions are those of all positions."""

import pytest
import torch
from tests.support import zoo

from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import select_positions, target_logits
from engramlab.core.models import add_lora, known_paths


def batch(rows: int = 3, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(64, (rows, width), generator=generator)
    return ids, torch.rand((rows, width), generator=generator) < 0.5


@pytest.mark.parametrize("family", known_paths())
def test_target_logits_are_the_full_logits_gathered(family):
    model, (ids, keep) = zoo.model(family).eval(), batch()
    full = model(ids).logits[keep]
    torch.testing.assert_close(target_logits(model, ids, keep), full, rtol=0, atol=1e-5)
    assert target_logits(model, ids, torch.zeros_like(keep)).shape == (0, 64)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_a_shared_beginning_is_read_once(family):
    model, (ids, keep) = zoo.model(family).eval(), batch()
    ids[:, :4] = ids[0, :4]
    keep[:, :4] = False
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    shared = target_logits(model, ids, keep, shared=4)
    handle.remove()
    assert seen == [(1, 4), (3, 3)]
    torch.testing.assert_close(shared, model(ids).logits[keep], rtol=0, atol=1e-5)


def test_gradients_reach_the_whole_model():
    model, (ids, keep) = zoo.model("gpt_neox"), batch()
    target_logits(model, ids, keep).logsumexp(-1).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model(ids).logits[keep].logsumexp(-1).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-5)


def test_an_adapter_is_seen_through():
    model, (ids, keep) = add_lora(zoo.model("llama"), rank=2).eval(), batch()
    torch.testing.assert_close(target_logits(model, ids, keep), model(ids).logits[keep], rtol=0, atol=1e-5)


def test_cleaning_up_after_an_exception():
    model, (ids, keep) = zoo.model("gpt2").eval(), batch()
    full = model(ids).logits
    with pytest.raises(RuntimeError, match="inside"), select_positions(model, keep):
        raise RuntimeError("inside")
    with pytest.raises(IndexError):
        target_logits(model, ids, keep[:, :3])
    assert torch.equal(model(ids).logits, full)


@pytest.mark.parametrize("training", [True, False])
def test_mode(training):
    model = zoo.model("gpt2").train(not training)
    model.transformer.h[0].train(training)
    before = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="inside"), mode(model, training):
        assert all(module.training == training for module in model.modules())
        raise RuntimeError("inside")
    assert [module.training for module in model.modules()] == before
