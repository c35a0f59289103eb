"""Deltas: bit-exact undo, order, many at once, routing on the prompt alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from tests.support import zoo
from tests.support.fakes import Leaning
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.deltas import Delta, Dense, LowRank, Modifier, Route, WeightDelta, fingerprint
from engramlab.core.models import module_paths
from engramlab.core.models.geometry import weight_of

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2")


def down(model: nn.Module, layer: int) -> str:
    paths = module_paths(model)
    return f"{paths.layers}.{layer}.{paths.mlp_down}"


def dense(model: nn.Module, seed: int, layer: int = 1, scale: float = 0.1) -> WeightDelta:
    path = down(model, layer)
    shape = tuple(weight_of(model.get_submodule(path)).shape)
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return WeightDelta(fingerprint(model), {path: Dense(made)})


def low(model: nn.Module, seed: int, rank: int, layer: int = 0) -> WeightDelta:
    path = down(model, layer)
    out, into = weight_of(model.get_submodule(path)).shape
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(out, rank, generator=generator) * 0.3, torch.randn(rank, into, generator=generator) * 0.3
    return WeightDelta(fingerprint(model), {path: LowRank(left, right)})


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_change_by_the_delta_and_come_back_bit_for_bit(family: str, dtype: torch.dtype) -> None:
    model = zoo.model(family).to(dtype).eval()
    before = weights(model)
    delta = dense(model, 0)
    path = down(model, 1)
    expected = (weight_of(model.get_submodule(path)).float() + delta.changes[path].matrix()).to(dtype)
    with deltas.active(model, delta):
        assert torch.equal(weight_of(model.get_submodule(path)), expected)
        assert not same(before, weights(model))
    assert same(before, weights(model))
    assert "_engramlab_deltas" not in model.__dict__
    assert not model._forward_pre_hooks


def test_an_error_inside_the_block_still_restores() -> None:
    model = zoo.model("llama")
    before = weights(model)
    with pytest.raises(ZeroDivisionError), deltas.active(model, dense(model, 0)):
        raise ZeroDivisionError
    assert same(before, weights(model))


def interrupted(monkeypatch: pytest.MonkeyPatch, nth: int, act: Callable[[], object]) -> bool:
    """Does ``act`` get as far as the nth time that a matrix is written or a hook put on? There it is interrupted."""
    calls, write, hook = [], torch.Tensor.copy_, nn.Module.register_forward_hook

    def counted(real: Any) -> Any:
        def called(*given: Any, **more: Any) -> Any:
            calls.append(None)
            if len(calls) == nth:
                raise KeyboardInterrupt
            return real(*given, **more)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "copy_", counted(write))
        patch.setattr(nn.Module, "register_forward_hook", counted(hook))
        try:
            act()
        except KeyboardInterrupt:
            return True
    return False


def test_an_interrupt_at_any_matrix_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.model("llama")
    before = weights(model)
    several = WeightDelta.sum([dense(model, 0), low(model, 1, 2), low(model, 2, 1, layer=1)])
    spoken = Leaning(model)

    def block() -> None:
        with deltas.active(model, several), deltas.active(model, spoken):
            pass

    def for_good() -> None:
        try:
            deltas.install(model, several, undo=False)
            deltas.install(model, spoken, undo=False)
        finally:
            deltas.remove_all(model)

    def both() -> None:
        with deltas.together(model, [several, spoken]):
            pass

    def put() -> None:
        deltas.put(model, {path: torch.zeros(change.shape) for path, change in several.changes.items()}, [spoken])
        deltas.remove_all(model)

    for act, least in ((block, 5), (for_good, 5), (both, 3), (put, 5)):
        nth = 1
        while interrupted(monkeypatch, nth, act):
            assert same(before, weights(model)), (act, nth)
            assert "_engramlab_deltas" not in model.__dict__, (act, nth)
            assert not any(module._forward_hooks for module in model.modules()), (act, nth)
            nth += 1
        assert nth > least


def test_deltas_come_off_in_reverse_order_only() -> None:
    model = zoo.model("gpt2")
    start = weights(model)
    one = deltas.install(model, dense(model, 1))
    middle = weights(model)
    two = deltas.install(model, dense(model, 2))
    assert len(deltas.installed(model)) == 2
    with pytest.raises(RuntimeError, match="reverse order"):
        one.remove()
    two.remove()
    assert same(middle, weights(model))
    one.remove()
    assert same(start, weights(model))
    assert deltas.installed(model) == ()


def test_a_long_sequence_without_undo_comes_off_at_once() -> None:
    model = zoo.model("gpt_neox")
    start = weights(model)
    kept = deltas.install(model, dense(model, 1), undo=False)
    deltas.install(model, low(model, 2, 2), undo=False)
    deltas.install(model, dense(model, 3))
    with pytest.raises(RuntimeError):
        kept.remove()
    deltas.remove_all(model)
    assert same(start, weights(model))
    assert deltas.installed(model) == ()
    deltas.remove_all(model)  # nothing there: nothing happens


def test_fingerprint_is_of_the_unedited_model() -> None:
    model = zoo.model("llama")
    name = fingerprint(model)
    with deltas.active(model, dense(model, 1)):
        assert fingerprint(model) == name
    assert fingerprint(zoo.model("llama", seed=1)) != name
    assert fingerprint(zoo.model("llama")) == name


def test_a_delta_of_another_model_is_refused_before_anything_changes() -> None:
    model, other = zoo.model("llama"), zoo.model("llama", seed=1)
    before = weights(model)
    with pytest.raises(UserError, match="fingerprint"):
        deltas.install(model, dense(other, 0))
    wrong = WeightDelta(fingerprint(model), {down(model, 0): Dense(torch.zeros(3, 4))})
    with pytest.raises(UserError, match="3 x 4"):
        deltas.install(model, wrong)
    with pytest.raises(UserError, match="does not have"):
        deltas.install(model, WeightDelta(fingerprint(model), {"model.nowhere": Dense(torch.zeros(3, 4))}))
    assert same(before, weights(model))
    assert deltas.installed(model) == ()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", ["dense", "low", "mixed"])
def test_many_at_once_equal_one_at_a_time(family: str, kinds: str) -> None:
    model = zoo.model(family).double().eval()
    found: list[Delta] = [dense(model, i) if kinds == "dense" else low(model, i, 1 + i) for i in range(3)]
    if kinds == "mixed":
        found[1] = dense(model, 7)
    ids = torch.randint(0, 60, (7, 6), generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([2, 0, 1, 1, 0, 2, 2])
    ends = torch.full((7,), 5)
    with deltas.together(model, found):
        with deltas.routing(model, ends, owner):
            at_once = logits(model, ids)
        with pytest.raises(RuntimeError, match="owner"):
            logits(model, ids)
    for d, delta in enumerate(found):
        with deltas.active(model, delta):
            torch.testing.assert_close(at_once[owner == d], logits(model, ids[owner == d]), rtol=1e-4, atol=1e-5)


def test_sum_of_deltas_is_their_matrices_sum() -> None:
    model = zoo.model("llama")
    parts = [low(model, 1, 1), low(model, 2, 2), low(model, 3, 1)]
    total = WeightDelta.sum(parts)
    (path,) = total.changes
    torch.testing.assert_close(total.changes[path].matrix(), sum(p.changes[path].matrix() for p in parts))
    assert isinstance(total.changes[path], LowRank)
    both = WeightDelta.sum([dense(model, 1), dense(model, 2)])
    assert isinstance(next(iter(both.changes.values())), Dense)


def test_weight_delta_survives_its_tensors() -> None:
    model = zoo.model("gpt2")
    delta = WeightDelta.sum([low(model, 1, 2, layer=0), dense(model, 2, layer=1)])
    delta.extras["keys"] = torch.ones(2, 3)
    again = WeightDelta.restore(delta.model, delta.tensors(), delta.settings())
    assert again.changes.keys() == delta.changes.keys()
    for path, change in delta.changes.items():
        assert torch.equal(change.matrix(), again.changes[path].matrix())
    assert torch.equal(again.extras["keys"], torch.ones(2, 3))


class Shift(Delta):
    """Adds to a layer's output, by how much depends on the token id at the prompt's end (kept in the embedding's place)."""

    kind: ClassVar[str] = "test-shift"
    routed: ClassVar[bool] = True

    def __init__(self, model: nn.Module, path: str, older: Delta | None = None, amount: float = 1.0) -> None:
        self.model, self.path, self.continues, self.amount = fingerprint(model), path, older, amount
        self.seen: list[torch.Tensor] = []

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        def act(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            def decide(ends: torch.Tensor) -> torch.Tensor:
                self.seen.append(ends)
                return x[torch.arange(len(x)), ends].sum(-1)

            return y + self.amount * route.decide("sum", decide)[:, None, None]

        return {self.path: act}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def settings(self) -> dict[str, Any]:
        return {"path": self.path}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> Shift:
        raise NotImplementedError


def test_routing_decides_at_the_prompt_end_and_remembers() -> None:
    model = zoo.model("llama").eval()
    delta = Shift(model, down(model, 1))
    ids = torch.randint(0, 60, (3, 6), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[:, 4:] = 7  # what follows the prompt plays no part
    ends = torch.tensor([3, 2, 3])
    with deltas.active(model, delta):
        assert deltas.routed(model)
        with deltas.routing(model, ends):
            a = logits(model, ids)
        with deltas.routing(model, ends):
            b = logits(model, other)
        torch.testing.assert_close(a[:, :4], b[:, :4])
        delta.seen.clear()
        mask = torch.ones(3, 6, dtype=torch.int64)
        with deltas.routing(model, torch.full((3,), 5)):
            model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert len(delta.seen) == 1
        delta.seen.clear()
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert len(delta.seen) == 1
        assert delta.seen[0].tolist() == [5, 5, 5]
        delta.seen.clear()
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [0] + [1] * 5]))
        assert delta.seen[0].tolist() == [5, 3, 5]
    assert not deltas.routed(model)


def test_routed_deltas_of_many_rows() -> None:
    model = zoo.model("gpt2").double().eval()
    found = [Shift(model, down(model, 0)), low(model, 3, 1), Shift(model, down(model, 1))]
    ids = torch.randint(0, 60, (5, 6), generator=torch.Generator().manual_seed(0))
    owner, ends = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([5, 4, 3, 2, 1])
    with deltas.together(model, found), deltas.routing(model, ends, owner):
        at_once = logits(model, ids)
    for d, delta in enumerate(found):
        with deltas.active(model, delta), deltas.routing(model, ends[owner == d]):
            torch.testing.assert_close(at_once[owner == d], logits(model, ids[owner == d]), rtol=1e-4, atol=1e-5)


def test_a_delta_that_continues_another_silences_it_and_gives_it_back() -> None:
    model = zoo.model("llama").eval()
    ids = torch.randint(0, 60, (2, 5), generator=torch.Generator().manual_seed(0))
    plain = logits(model, ids)
    first = Shift(model, down(model, 1))
    one = deltas.install(model, first)
    shifted = logits(model, ids)
    two = deltas.install(model, Shift(model, down(model, 1), older=first, amount=0.0))
    torch.testing.assert_close(logits(model, ids), plain)
    two.remove()
    assert torch.equal(logits(model, ids), shifted)
    one.remove()
    assert torch.equal(logits(model, ids), plain)
