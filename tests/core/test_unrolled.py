"""Steps that are differentiated through, against closed forms, finite differences, and each episode by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.support import zoo
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.models.geometry import weight_of
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.training import unrolled

FAMILIES = ("gpt_neox", "gpt2", "llama", "opt")


def batch(seed: int, rows: int, length: int = 5, pads: int = 0, vocabulary: int = 64) -> Batch:
    """Random rows, the later half of whose tokens is to be predicted."""
    ids = torch.randint(1, vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))
    targets = ids.roll(-1, 1)
    targets[:, : length // 2] = targets[:, -1] = IGNORE
    ids, targets = F.pad(ids, (0, pads), value=3), F.pad(targets, (0, pads), value=IGNORE)
    return Batch(ids, targets, ids.numel(), np.zeros(rows, dtype=np.uint8))


def setting(family: str = "gpt_neox", steps: int = 2, first: float = 0.5, **how: Any) -> tuple[Any, unrolled.Rates]:
    model = zoo.model(family).double().eval()
    rates = unrolled.Rates(unrolled.matrices(model), steps, first, **how).double()
    with torch.no_grad():
        rates.learnt.copy_(torch.linspace(-0.2, 0.2, len(rates.learnt)))
    return model, rates


FACTS, OWNER, ASKED = batch(0, 5), torch.tensor([0, 0, 1, 2, 2]), batch(1, 3)


def outer(model: nn.Module, rates: unrolled.Rates, facts: Batch = FACTS, asked: Batch = ASKED, **how: Any) -> Any:
    weights = unrolled.folded(model, rates, facts, OWNER, **how)
    return unrolled.losses_under(model, weights, asked, torch.arange(3))


def plain(model: Any, part: Batch) -> torch.Tensor:
    """Mean loss of a batch, by the model itself."""
    logits = model(input_ids=part.input_ids).logits
    return F.cross_entropy(logits.flatten(0, 1), part.targets.flatten(), ignore_index=IGNORE)


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_meta_gradient_is_that_of_finite_differences(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unrolled, "EPS", 1e-2)  # else Adam's first step is a sign, whose slope no difference sees
    model, rates = setting(first=0.5 if rule == "sgd" else 0.02)
    outer(model, rates, rule=rule).sum().backward()
    for parameters in (list(model.parameters()), [rates.learnt]):
        generator = torch.Generator().manual_seed(1)
        way = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        slope = sum(float((p.grad * w).sum()) for p, w in zip(parameters, way, strict=True) if p.grad is not None)
        found = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for p, w in zip(parameters, way, strict=True):
                    p.add_(step * w)
            found.append(float(outer(model, rates, rule=rule).detach().sum()))
        with torch.no_grad():
            for p, w in zip(parameters, way, strict=True):
                p.add_(1e-5 * w)
        assert (found[0] - found[1]) / 2e-5 == pytest.approx(slope, rel=1e-4)


def test_rates_of_zero_are_plain_finetuning() -> None:
    model, _ = setting()
    rates = unrolled.Rates(unrolled.matrices(model), 2, 0.0).double()
    for rule in ("sgd", "adam"):
        model.zero_grad()
        found = outer(model, rates, rule=rule)  # type: ignore[arg-type]
        found.mean().backward()
        got = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        expected = plain(model, ASKED)
        expected.backward()
        assert float(found.detach().mean()) == pytest.approx(float(expected.detach()), abs=1e-12)
        for mine, p in zip(got, model.parameters(), strict=True):
            torch.testing.assert_close(mine, p.grad, rtol=1e-9, atol=1e-12)


def test_one_step_of_a_linear_model_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, new, wanted = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((6, 3), (6,), (4, 3), (4,)))
    theta = torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()
    alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    first = x.T @ (x @ theta - y).detach()
    moved = (theta - alpha * first).detach()
    behind = new.T @ (new @ moved - wanted)
    for first_order, through in ((False, torch.eye(3, dtype=torch.float64) - alpha.detach() * x.T @ x), (True, None)):
        got = unrolled.unroll(
            {"w": theta},
            lambda w: 0.5 * (x @ w["w"] - y).square().sum(),
            lambda step: {"w": alpha},
            1,
            rule="sgd",
            first_order=first_order,
        )["w"]
        torch.testing.assert_close(got.detach(), moved)
        loss = 0.5 * (new @ got - wanted).square().sum()
        by_theta, by_alpha = torch.autograd.grad(loss, [theta, alpha])
        torch.testing.assert_close(by_theta, behind if through is None else through.T @ behind)
        torch.testing.assert_close(by_alpha, -behind @ first)


def test_adam_is_torchs_adam() -> None:
    """With no decay, and a gradient far above epsilon."""
    start = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    here = start.clone().requires_grad_()
    theirs = torch.optim.Adam([here], lr=0.1, betas=unrolled.BETAS, eps=unrolled.EPS)
    for _ in range(3):
        theirs.zero_grad()
        here.pow(4).sum().backward()
        theirs.step()
    rate = torch.tensor(0.1, dtype=torch.float64)
    got = unrolled.unroll({"w": start.requires_grad_()}, lambda w: w["w"].pow(4).sum(), lambda step: {"w": rate}, 3)
    torch.testing.assert_close(got["w"], here, rtol=1e-9, atol=1e-9)


def test_a_gradient_of_zero_has_a_derivative() -> None:
    start = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.1, dtype=torch.float64)
    got = unrolled.unroll({"w": start}, lambda w: w["w"].square().sum(), lambda step: {"w": rate}, 2)["w"]
    assert bool(torch.autograd.grad(got.sum(), start)[0].isfinite().all())


@pytest.mark.parametrize("first_order", [False, True])
def test_more_padding_changes_nothing(first_order: bool) -> None:
    model, rates = setting()
    how = {"rule": "sgd", "first_order": first_order}  # Adam makes much of gradients that are zero but for rounding
    found = []
    for pads in (0, 4):
        model.zero_grad()
        loss = outer(model, rates, batch(0, 5, pads=pads), batch(1, 3, pads=2 * pads), **how)
        loss.sum().backward()
        found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_episodes_together_are_as_each_alone(family: str) -> None:
    """And as steps that are taken on the model itself, by hand."""
    model, rates = setting(family)
    together = unrolled.folded(model, rates, FACTS, OWNER, rule="sgd")
    losses = unrolled.losses_under(model, together, ASKED, torch.arange(3))
    for e in range(3):
        mine = Batch(FACTS.input_ids[e == OWNER], FACTS.targets[e == OWNER], 0, np.zeros(1, dtype=np.uint8))
        own = zoo.model(family).double().eval()
        for step in range(2):
            modules = [own.get_submodule(path) for path in rates.of]
            gradients = torch.autograd.grad(plain(own, mine), [module.weight for module in modules])
            with torch.no_grad():
                for path, module, gradient in zip(rates.of, modules, gradients, strict=True):
                    module.weight -= rates.at(step)[path] * gradient
        for path in rates.of:
            torch.testing.assert_close(
                together[path][e], weight_of(own.get_submodule(path)).detach(), rtol=1e-8, atol=1e-10,
                check_dtype=False,
            )  # fmt: skip
        one = Batch(ASKED.input_ids[e : e + 1], ASKED.targets[e : e + 1], 0, np.zeros(1, dtype=np.uint8))
        torch.testing.assert_close(losses[e].detach(), plain(own, one).detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_a_fold_is_a_delta_that_comes_off_bit_for_bit(family: str) -> None:
    model = zoo.model(family).eval()
    rates = unrolled.Rates(unrolled.matrices(model), 2, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = [(p, p.requires_grad) for p in model.parameters()]
    found = unrolled.fold(model, rates, FACTS, OWNER, rule="sgd")
    assert len(found) == 3
    weights = unrolled.folded(model, rates, FACTS, OWNER, rule="sgd", first_order=True)
    expected = unrolled.losses_under(model, weights, ASKED, torch.arange(3)).detach()
    logits = model(input_ids=ASKED.input_ids).logits
    with torch.no_grad():
        with deltas.together(model, found), deltas.routing(model, torch.zeros(3, dtype=torch.int64), torch.arange(3)):
            both = model(input_ids=ASKED.input_ids).logits
        for e, delta in enumerate(found):
            with deltas.active(model, delta):
                alone = model(input_ids=ASKED.input_ids[e : e + 1]).logits
            torch.testing.assert_close(both[e : e + 1], alone, rtol=1e-4, atol=1e-5)
            loss = F.cross_entropy(alone.flatten(0, 1), ASKED.targets[e], ignore_index=IGNORE)
            assert float(loss) == pytest.approx(float(expected[e]), rel=1e-4)
            assert not torch.equal(alone, logits[e : e + 1])
    assert torch.equal(model(input_ids=ASKED.input_ids).logits, logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad == required and p.grad is None for p, required in kept)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_frozen_model_folds_and_an_error_leaves_it_as_it_was() -> None:
    model = zoo.model("gpt_neox").eval().requires_grad_(False)
    rates = unrolled.Rates(unrolled.matrices(model), 1, 0.5)
    assert unrolled.fold(model, rates, FACTS, OWNER)[0].changes
    bad = Batch(torch.full_like(FACTS.input_ids, 99), FACTS.targets, 0, FACTS.source)
    with pytest.raises(IndexError):
        unrolled.fold(model, rates, bad, OWNER)
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


def test_rates_are_those_of_a_layer_or_a_matrix() -> None:
    model, rates = setting()
    assert rates.groups == ["0", "1"]
    assert rates.table().shape == (2, 2)
    by_matrix = unrolled.Rates(unrolled.matrices(model), 3, 0.1, each="matrix")
    assert by_matrix.table().shape == (3, len(unrolled.matrices(model)))
    again = unrolled.Rates.given(unrolled.matrices(model), rates.table().tolist())
    torch.testing.assert_close(again.table().double(), rates.table(), rtol=1e-5, atol=1e-8)
    assert by_matrix.learnt.dim() == 1  # what no weight decay pulls at


def test_refusals() -> None:
    with pytest.raises(UserError, match="hold experts"):
        unrolled.matrices(zoo.model("mixtral"))
    model = zoo.model("gpt_neox").eval()
    rates = unrolled.Rates(unrolled.matrices(model), 2, float("inf"))
    with pytest.raises(UserError, match="no numbers; take lower rates"):
        unrolled.fold(model, rates, FACTS, OWNER, rule="sgd")
