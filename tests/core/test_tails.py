"""A tail computes what the model computes, recomputing only what may change."""

from __future__ import annotations

import pytest
import torch
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.hooks import grafting
from engramlab.core.forward.tails import Tail
from engramlab.core.models import module_paths

FAMILIES = zoo.DENSE


def precise(family: str) -> nn.Module:
    """In float64, but where a family's own attention is then NaN behind padding: masks of float64's lowest number, a softmax
    in float32."""
    return zoo.model(family).to(torch.float32 if family in ("gemma2", "bloom") else torch.float64).eval()


def full(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    positions = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("start", [0, 1])
def test_logits_are_the_models_own(family: str, start: int) -> None:
    model = zoo.model(family).double().eval()
    ids = torch.randint(0, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    keep = torch.rand(3, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    torch.testing.assert_close(Tail(model, start, ids).logits(keep), full(model, ids)[keep], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_before_a_change_are_not_recomputed(family: str) -> None:
    model = precise(family)
    ids = torch.randint(0, 60, (3, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 8, dtype=torch.int64)
    mask[0, :3], mask[2, :1] = 0, 0  # padded at the left
    tail = Tail(model, 1, ids, mask, begin=4)
    assert tail.entering.shape[1] == 4
    keep = torch.ones(3, 4, dtype=torch.bool)
    expected = full(model, ids, mask)[:, 4:].flatten(0, 1)
    for _ in range(2):  # a second run has not grown the cache
        torch.testing.assert_close(tail.logits(keep), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("begin", [0, 3])
def test_hooks_act_and_gradients_flow(family: str, begin: int) -> None:
    model = zoo.model(family).double().eval()
    ids = torch.randint(0, 60, (2, 6), generator=torch.Generator().manual_seed(0))
    paths = module_paths(model)
    path = f"{paths.layers}.1.{paths.mlp_down}"
    tail = Tail(model, 1, ids, torch.ones_like(ids) if begin else None, begin=begin)
    shift = torch.full((model.config.hidden_size,), 0.1, dtype=torch.float64, requires_grad=True)

    def add(read: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        changed = torch.zeros_like(output)
        changed[:, -1] = shift  # the last position only, so that a tail from any earlier one is exact
        return output + changed

    with grafting(model, {path: add}):
        expected = full(model, ids)[:, -1]
        keep = torch.zeros(2, 6 - begin, dtype=torch.bool)
        keep[:, -1] = True
        got = tail.logits(keep)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.sum().backward()
    assert shift.grad is not None
    assert shift.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("begin", [0, 3])
def test_what_lies_before_the_changed_module_is_computed_once(family: str, begin: int) -> None:
    model = zoo.model(family).double().eval()
    ids = torch.randint(0, 60, (4, 4 + begin), generator=torch.Generator().manual_seed(0))  # as many rows as positions
    paths = module_paths(model)
    path = f"{paths.layers}.0.{paths.mlp_down}"
    mask = torch.ones_like(ids) if begin else None
    keep = torch.zeros(4, 4, dtype=torch.bool)
    keep[:, -1] = keep[0, 2] = True  # few: the last layer's MLP meets these alone
    found = []
    for first in (None, path):
        tail = Tail(model, 0, ids, mask, begin=begin, first=first)
        for chosen, kept in ((tail, keep), (tail.only(torch.tensor([1, 3])), keep[[1, 3]])):
            weight = torch.zeros(model.config.hidden_size, dtype=torch.float64, requires_grad=True)
            with grafting(model, {path: lambda x, y, weight=weight: y + (weight + 0.1) * x.mean(-1, keepdim=True)}):
                logits = chosen.logits(kept)
            logits.square().sum().backward()
            found += [logits.detach(), weight.grad]
    for plain, short in zip(found[:4], found[4:], strict=True):
        torch.testing.assert_close(short, plain, rtol=1e-6, atol=1e-8)
    assert tail.still.keys() >= {paths.mlp_down}
    assert all("forward" not in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("begin", [0, 3])
def test_some_rows_of_a_tail(family: str, begin: int) -> None:
    model = precise(family)
    ids = torch.randint(0, 60, (4, 4 + begin), generator=torch.Generator().manual_seed(0))  # as many rows as positions
    mask = torch.ones_like(ids)
    mask[1, : begin // 2] = 0
    tail = Tail(model, 1, ids, mask if begin else None, begin=begin).only(torch.tensor([1, 3]))
    expected = full(model, ids, mask)[[1, 3], begin:].flatten(0, 1)
    torch.testing.assert_close(tail.logits(torch.ones(2, 4, dtype=torch.bool)), expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_does_more_than_its_layers_is_refused() -> None:
    model = zoo.model("llama").eval()
    model.model.norm.register_forward_hook(lambda module, args, output: output)  # nothing: fine
    Tail(model, 0, torch.ones(1, 3, dtype=torch.int64))
    model.model.register_forward_hook(lambda module, args, output: type(output)(2 * output[0]))
    with pytest.raises(UserError, match="'llama' does more than one layer after another and a norm"):
        Tail(model, 0, torch.ones(1, 3, dtype=torch.int64))


def test_a_layer_that_does_not_exist_is_named() -> None:
    model = zoo.model("llama")
    with pytest.raises(UserError, match="layer 9 does not exist"):
        Tail(model, 9, torch.zeros(1, 3, dtype=torch.int64))
