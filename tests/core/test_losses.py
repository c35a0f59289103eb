"""Losses by name."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.base.errors import UserError
from engramlab.core.training import losses


@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,), (2, 3, 4), ()])
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
    with pytest.raises(
        UserError, match="loss 'overtone2' is unknown; did you mean 'overtone'\\? There are: cross-entropy"
    ):
        losses.get("overtone2")
    with pytest.raises(UserError, match="'cross-entropy' has no setting 'mixing'; it has no settings"):
        losses.get("cross-entropy", mixing=0.5)
    with pytest.raises(UserError, match="has no setting 'lambda'; its settings are: mixing, n_sigma, clip, check"):
        losses.get("overtone", **{"lambda": 0.5})


@pytest.mark.parametrize(
    "wrong",
    [
        {"mixing": -0.1},
        {"mixing": 1.1},
        {"mixing": math.nan},
        {"mixing": "0.1"},
        {"n_sigma": -1},
        {"n_sigma": math.nan},
        {"n_sigma": None},
        {"clip": -0.01},
        {"clip": math.inf},
        {"clip": True},
        {"check": 1},
    ],
)
def test_settings_outside_their_range(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"loss 'overtone': {name} must be"):
        losses.get("overtone", **wrong)
    with pytest.raises(UserError, match=f"loss 'overtone': {name} must be"):
        losses.overtone(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), **wrong)


def test_settings_reach_the_loss():
    logits, targets = torch.randn((4, 9), generator=torch.Generator().manual_seed(1)), torch.arange(4)
    found = losses.get("overtone", mixing=0.4, clip=0)(logits, targets)
    assert found.equal(losses.overtone(logits, targets, mixing=0.4, clip=0.0))
    assert not found.equal(losses.get("overtone")(logits, targets))
    assert pickle.loads(pickle.dumps(losses.get("overtone", clip=0))) == losses.get("overtone", clip=0.0)


def slow_overtone(logits, target, mixing=0.1, n_sigma=0.5, clip=0.01, check=True):
    """One token, step by step as in the paper; plain Python. Returns the loss, its gradient and which target was learnt."""
    high = max(logits)
    finite = [s for s in logits if s > -math.inf]
    mean = sum(finite) / len(finite)
    sigma = math.sqrt(sum((s - mean) ** 2 for s in finite) / len(finite))
    total = sum(math.exp(s - high) for s in logits)
    model = [math.exp(s - high) / total for s in logits]
    kept = [n_sigma == math.inf or s >= high - n_sigma * sigma for s in logits]
    mass = sum(p for p, keep in zip(model, kept, strict=True) if keep)
    candidate = [(1 - mixing) * p / mass * keep for p, keep in zip(model, kept, strict=True)]
    candidate[target] += mixing
    fits = not check or candidate[target] == max(candidate)
    learnt = candidate if fits else [float(j == target) for j in range(len(logits))]
    divergence = sum(
        q * (math.log(q) - (s - high - math.log(total))) if q else 0.0 for q, s in zip(learnt, logits, strict=True)
    )
    if clip and divergence <= clip:
        return clip, [0.0] * len(logits), fits
    return divergence, [p - q for p, q in zip(model, learnt, strict=True)], fits


def compare(logits, targets, **chosen):
    """Loss and gradient of every token against the slow version; upstream gradients differ between the tokens."""
    logits = logits.clone().requires_grad_()
    found = losses.overtone(logits, targets, **chosen)
    pull = torch.linspace(0.5, 2, found.numel()).view(found.shape)
    (gradient,) = torch.autograd.grad((found * pull).sum(), logits)
    flat = logits.detach().double().reshape(-1, logits.shape[-1]).tolist()
    slow = [slow_overtone(row, target, **chosen) for row, target in zip(flat, targets.flatten().tolist(), strict=True)]
    expected = torch.tensor([loss for loss, _, _ in slow]).view(found.shape)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=5e-5)
    expected = torch.tensor([grad for _, grad, _ in slow]).view(gradient.shape) * pull[..., None]
    torch.testing.assert_close(gradient, expected.to(gradient.dtype), atol=1e-5, rtol=5e-5)
    return [fits for _, _, fits in slow]


def likely(logits, generator):
    """Targets among the three likeliest tokens, so that conflicts and agreements both occur."""
    rank = torch.randint(min(3, logits.shape[-1]), logits.shape[:-1], generator=generator)
    return logits.topk(min(3, logits.shape[-1]), -1).indices.gather(-1, rank[..., None]).squeeze(-1)


@pytest.mark.parametrize("mixing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n_sigma", [0, 0.5, 2.0, math.inf])
def test_overtone_is_the_slow_version(mixing, n_sigma):
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn((3, 20, 17), generator=generator)
    targets = likely(logits, generator)
    for clip, check in itertools.product([0.0, 0.01, 0.5], [True, False]):
        fits = compare(logits, targets, mixing=mixing, n_sigma=n_sigma, clip=clip, check=check)
        if mixing in (0.1, 0.5) and check:
            assert any(fits)
            assert not all(fits) or mixing == 0.5


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    vocabulary=st.integers(1, 40),
    scale=st.sampled_from([0.0, 0.01, 1.0, 30.0]),
    shift=st.sampled_from([-1000.0, 0.0, 100.0]),
    mixing=st.floats(0.01, 0.99),
    n_sigma=st.floats(0.01, 50),
    seed=st.integers(0, 1000),
)
def test_overtone_on_any_shape_and_scale(shape, vocabulary, scale, shift, mixing, n_sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn((*shape, vocabulary), generator=generator)).round(decimals=2) + shift
    targets = torch.randint(vocabulary, shape, generator=generator)
    found = losses.overtone(logits, targets, mixing, n_sigma)
    assert (found.shape, found.dtype) == (torch.Size(shape), torch.float32)
    assert found.isfinite().all()
    assert (found >= 0.01 - 1e-9).all()
    # Where a logit lies on the filter's very edge, or a mixture has two likeliest tokens, rounding decides.
    spread = logits.double().std(-1, correction=0, keepdim=True)
    edge = logits.double() - logits.double().amax(-1, keepdim=True) + n_sigma * spread
    if (edge.abs() > 1e-3).all() and scale:
        compare(logits, targets, mixing=mixing, n_sigma=n_sigma, clip=0.0, check=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n_sigma", [0.5, math.inf])
@pytest.mark.parametrize("check", [True, False])
def test_without_mixing_and_clip_it_is_cross_entropy(dtype, n_sigma, check):
    generator = torch.Generator().manual_seed(3)
    logits = (4 * torch.randn((50, 301), generator=generator)).to(dtype)
    logits[0, 5] = 60  # a token learnt beyond float32's resolution
    targets = torch.randint(301, (50,), generator=generator)
    targets[0] = 5
    pull = torch.rand(50, generator=generator)
    results = []
    for loss in (losses.cross_entropy, losses.get("overtone", mixing=1, clip=0, n_sigma=n_sigma, check=check)):
        x = logits.clone().requires_grad_()
        value = loss(x, targets)
        (value * pull).sum().backward()
        assert (value.dtype, x.grad.dtype) == (torch.float32, dtype)
        results.append((value, x.grad))
    (value, gradient), (same_value, same_gradient) = results
    torch.testing.assert_close(same_value, value, rtol=1e-6, atol=1e-6)
    tiny = torch.finfo(dtype).eps
    torch.testing.assert_close(same_gradient, gradient, rtol=max(2 * tiny, 1e-6), atol=1e-7)
    assert same_value[0] == value[0] == 0


def test_low_precision_logits_are_computed_in_float32():
    generator = torch.Generator().manual_seed(4)
    logits = (3 * torch.randn((30, 500), generator=generator)).bfloat16().requires_grad_()
    targets = likely(logits.detach(), generator)
    found = losses.overtone(logits, targets)
    found.sum().backward()
    wide = logits.detach().float().requires_grad_()
    same = losses.overtone(wide, targets)
    same.sum().backward()
    assert found.equal(same)
    assert logits.grad.equal(wide.grad.bfloat16())


def test_tokens_that_cannot_occur():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn((20, 30), generator=generator)
    padded = torch.cat([logits, torch.full((20, 70), -math.inf)], -1)
    targets = likely(logits, generator)
    for chosen in ({}, {"n_sigma": math.inf}, {"mixing": 1, "clip": 0}, {"mixing": 0, "check": False}):
        x, y = logits.clone().requires_grad_(), padded.clone().requires_grad_()
        found, expected = losses.overtone(y, targets, **chosen), losses.overtone(x, targets, **chosen)
        torch.testing.assert_close(found, expected)
        found.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(y.grad[:, :30], x.grad)
        assert not y.grad[:, 30:].any()
    # A target that cannot occur: infinitely bad, as under cross-entropy, and the gradient stays finite.
    y = padded.clone().requires_grad_()
    found = losses.overtone(y, torch.full((20,), 40))
    found.sum().backward()
    assert (found == math.inf).all()
    assert y.grad.isfinite().all()
    # One token is possible at all.
    lonely = torch.full((1, 5), -math.inf).index_fill(1, torch.tensor([2]), 1.0)
    assert losses.overtone(lonely, torch.tensor([2])).tolist() == pytest.approx([0.01])


def test_what_is_not_a_number_is_not_hidden():
    logits = torch.zeros((3, 4))
    logits[1, 2] = math.nan
    logits[2, 2] = math.inf
    assert losses.overtone(logits, torch.tensor([0, 1, 1])).isnan().tolist() == [False, True, True]


def test_a_learnt_token_has_no_gradient_at_all():
    logits = torch.tensor([[8.0, 1.0, 0.0, -1.0], [1.0, 1.1, 0.0, -1.0]], requires_grad=True)
    found = losses.overtone(logits, torch.tensor([0, 0]), clip=0.01)
    found.sum().backward()
    assert found[0].item() == pytest.approx(0.01)
    assert not logits.grad[0].any()
    assert found[1] > 0.01
    assert logits.grad[1].abs().sum() > 0.1
    logits.grad = None
    losses.overtone(logits, torch.tensor([0, 0]), clip=0).sum().backward()
    assert logits.grad[0].any()


def test_conflict_falls_back_on_the_target_alone():
    logits = torch.tensor([[5.0, 0.0, 1.0, -2.0]])  # the model is sure of token 0, the edit says 1
    targets = torch.tensor([1])
    expected = losses.cross_entropy(logits, targets)
    torch.testing.assert_close(losses.overtone(logits, targets, mixing=0.4), expected)
    mixed = losses.overtone(logits, targets, mixing=0.4, check=False)
    assert mixed < expected
    # With more than half of the weight on it the target always wins.
    agree = losses.overtone(logits, targets, mixing=0.6)
    assert agree.equal(losses.overtone(logits, targets, mixing=0.6, check=False))
    assert agree < expected


def test_the_filter_drops_what_is_far_below_the_highest():
    logits = torch.tensor([[4.0, 3.9, 0.0, 0.0, -8.0]], requires_grad=True)
    targets, chosen = torch.tensor([1]), {"mixing": 0.3, "clip": 0, "check": False}
    model = logits.detach().softmax(-1)
    losses.overtone(logits, targets, n_sigma=0.5, **chosen).sum().backward()
    torch.testing.assert_close(logits.grad[0, 2:], model[0, 2:])  # pushed down in full
    logits.grad = None
    losses.overtone(logits, targets, n_sigma=math.inf, **chosen).sum().backward()
    torch.testing.assert_close(logits.grad[0, 2:], 0.3 * model[0, 2:])


def test_the_logits_given_stay_as_they_are():
    logits = torch.randn((4, 9), generator=torch.Generator().manual_seed(6))
    before = copy.deepcopy(logits)
    losses.overtone(logits, torch.arange(4))
    assert logits.equal(before)
