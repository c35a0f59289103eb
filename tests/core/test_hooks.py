"""Hooks clean up, and logits at some positions are those of all positions."""

import pytest
import torch
from tests.support import zoo

from engramlab.core.forward.hooks import grafting, mode, reading
from engramlab.core.forward.passes import select_positions, shared_cache, target_seen
from engramlab.core.models import add_lora
from engramlab.core.models.geometry import down_projection, layer_path


def batch(rows: int = 3, width: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(64, (rows, width), generator=generator)
    return ids, torch.rand((rows, width), generator=generator) < 0.5


@pytest.mark.parametrize("family", zoo.DENSE)
def test_target_logits_are_the_full_logits_gathered(family):
    model, (ids, keep) = zoo.model(family).double().eval(), batch()
    full = model(ids).logits[keep]
    torch.testing.assert_close(target_seen(model, ids, keep).logits, full, rtol=0, atol=1e-5)
    assert target_seen(model, ids, torch.zeros_like(keep)).logits.shape == (0, 64)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_a_shared_beginning_is_read_once(family):
    model, (ids, keep) = zoo.model(family).double().eval(), batch()
    ids[:, :4] = ids[0, :4]
    keep[:, :4] = False
    seen = []
    with model.get_input_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0].shape)):
        cache = shared_cache(model, ids[:1, :4], len(ids))
        shared = target_seen(model, ids[:, 4:], keep[:, 4:], cache=cache).logits
    assert seen == [(1, 4), (3, 3)]
    torch.testing.assert_close(shared, model(ids).logits[keep], rtol=0, atol=1e-5)


def test_gradients_reach_the_whole_model():
    model, (ids, keep) = zoo.model("gpt_neox").double(), batch()
    target_seen(model, ids, keep).logits.logsumexp(-1).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model(ids).logits[keep].logsumexp(-1).sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-5)


def test_an_adapter_is_seen_through():
    model, (ids, keep) = add_lora(zoo.model("llama").double(), rank=2).eval(), batch()
    torch.testing.assert_close(target_seen(model, ids, keep).logits, model(ids).logits[keep], rtol=0, atol=1e-5)


def test_cleaning_up_after_an_exception():
    model, (ids, keep) = zoo.model("gpt2").eval(), batch()
    full = model(ids).logits
    with pytest.raises(RuntimeError, match="inside"), select_positions(model, keep):
        raise RuntimeError("inside")
    with pytest.raises(IndexError):
        target_seen(model, ids, keep[:, :3])
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


def bare(model):
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "opt"])
def test_reading_sees_what_modules_read_and_say(family):
    model, (ids, _) = zoo.model(family).eval(), batch()
    down, (first, second) = down_projection(model, 0), (layer_path(model, i) for i in (0, 1))
    ends = torch.tensor([2, 6, 0])
    with torch.no_grad(), reading(model, [down, first, second]) as seen:
        model(ids[:1])
        model(ids)
    assert seen[second].read.shape == (3, 7, model.config.hidden_size)  # of the latest pass
    assert torch.equal(seen[second].read, seen[first].said)
    with torch.no_grad():
        assert torch.equal(model.get_submodule(down)(seen[down].read), seen[down].said)
    with torch.no_grad(), reading(model, [down], (torch.arange(3), ends)) as some:
        model(ids)
    assert torch.equal(some[down].said, seen[down].said[torch.arange(3), ends])
    assert bare(model)


def test_reading_ends_the_pass_where_it_is_told():
    model, (ids, _) = zoo.model("llama").eval(), batch()
    down, last, reached = down_projection(model, 0), layer_path(model, 1), []
    with reading(model, [down, last], until=down) as seen:
        model(ids)
        reached.append(True)
    assert not reached
    assert seen[down].said.shape == (3, 7, model.config.hidden_size)
    assert not hasattr(seen[last], "read")
    assert bare(model)
    with pytest.raises(RuntimeError, match="inside"), reading(model, [down]):
        raise RuntimeError("inside")
    assert bare(model)


def test_grafts_stand_in_for_outputs():
    model, (ids, _) = zoo.model("gpt2").eval(), batch()
    plain, down = model(ids).logits, down_projection(model, 0)
    with pytest.raises(RuntimeError, match="inside"), grafting(model, {down: lambda x, y: y + x.sum()}):
        assert not torch.equal(model(ids).logits, plain)
        raise RuntimeError("inside")
    assert torch.equal(model(ids).logits, plain)
    assert bare(model)
