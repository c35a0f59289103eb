"""Parts of a layer that need no computing: what never changes says what it said, and an MLP only meets positions that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

Forward = Callable[..., Any]


@contextmanager
def _instead(module: nn.Module, make: Callable[[Forward], Forward]) -> Iterator[None]:
    """Inside the block the module computes what ``make`` makes of its ``forward``; its hooks act as ever."""
    own = module.__dict__.get("forward")
    module.forward = make(module.forward)
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.forward = own


def _around(layer: nn.Module, first: str) -> dict[str, nn.Module]:
    """By name, the largest modules of a layer that do not hold the one named ``first``, and that one."""
    found: dict[str, nn.Module] = {first: layer.get_submodule(first)}
    at, prefix = layer, ""
    for part in first.split("."):
        found |= {prefix + name: child for name, child in at.named_children() if name != part}
        at, prefix = at.get_submodule(part), f"{prefix}{part}."
    return found


@contextmanager
def recording(layer: nn.Module, first: str) -> Iterator[dict[str, Any]]:
    """Inside the block a pass leaves there, by name, what the layer's modules give until the module ``first`` has been called,
    without what hooks make of it; modules that are called more than once in a pass are left out."""
    said: dict[str, Any] = {}
    calls: dict[str, int] = {}

    def of(name: str) -> Callable[[Forward], Forward]:
        def make(forward: Forward) -> Forward:
            def keep(*args: Any, **kwargs: Any) -> Any:
                given = forward(*args, **kwargs)
                calls[name] = calls.get(name, 0) + 1
                if calls[name] > 1:
                    said.pop(name, None)
                elif first not in calls or name == first:
                    said[name] = mapped(torch.Tensor.clone, given)
                return given

            return keep

        return make

    with ExitStack() as stack:
        for name, module in _around(layer, first).items():
            stack.enter_context(_instead(module, of(name)))
        yield said


def mapped(of: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """What a module gave, with ``of`` done to every tensor in it."""
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(of, part) for part in value)
    return of(value) if isinstance(value, torch.Tensor) else value


def _giving(value: Any) -> Callable[[Forward], Forward]:
    """A forward that gives the same again and again; copies, as some networks add to it in place (Falcon)."""
    return lambda forward: lambda *args, **kwargs: mapped(torch.Tensor.clone, value)


@contextmanager
def repeating(layer: nn.Module, said: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block the layer's modules give what ``said`` holds for them, whatever they are called with."""
    with ExitStack() as stack:
        for name, value in said.items():
            stack.enter_context(_instead(layer.get_submodule(name), _giving(value)))
        yield


@contextmanager
def only_at(module: nn.Module, index: torch.Tensor, places: int) -> Iterator[None]:
    """Inside the block a module that treats each position by itself is computed at ``index[n]`` of its input's
    ``[B * T = places, D]`` alone, and gives zeros elsewhere. One that hooks look into, or that is called otherwise, is
    computed in full."""

    def make(forward: Forward) -> Forward:
        def some(x: Any, *more: Any, **kwargs: Any) -> Any:
            if more or kwargs or x.dim() != 3 or x.shape[0] * x.shape[1] != places:
                return forward(x, *more, **kwargs)
            given = forward(x.flatten(0, 1).index_select(0, index)[None])
            out = given.new_zeros(places, given.shape[-1]).index_copy(0, index, given[0])
            return out.view(*x.shape[:2], -1)

        return some

    watched = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    if watched or 2 * len(index) > places:
        yield
        return
    with _instead(module, make):
        yield
