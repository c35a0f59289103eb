"""Losses by name."""

import math

import pytest
import torch

from engramlab.core import losses
from engramlab.core.errors import UserError


@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,), (2, 3, 4)])
def test_cross_entropy_is_the_negative_log_probability(shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((*shape, 11), generator=generator)
    targets = torch.randint(11, shape, generator=generator)
    naive = -logits.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    found = losses.cross_entropy(logits, targets)
    assert found.shape == shape
    torch.testing.assert_close(found, naive)


def test_it_is_computed_in_float32():
    found = losses.cross_entropy(torch.zeros((4, 1000), dtype=torch.bfloat16), torch.arange(4))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([math.log(1000)] * 4, rel=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_keeps_its_contract(name):
    logits = torch.randn((2, 3, 7), requires_grad=True)
    found = losses.get(name)(logits, torch.tensor([[0, 1, 2], [3, 4, 5]]))
    assert (found.shape, found.dtype) == ((2, 3), torch.float32)
    found.sum().backward()
    assert logits.grad.abs().sum() > 0


def test_unknown_names():
    with pytest.raises(UserError, match="loss 'overtone2' is unknown; choose one of: cross-entropy"):
        losses.get("overtone2")
