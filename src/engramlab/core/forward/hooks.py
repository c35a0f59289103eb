"""Hooks on a model's modules, as context managers that always clean up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn

from engramlab.core.deltas.stack import hook


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Inside the block all of ``model`` is in training (or evaluation) mode; afterwards each module is in the one it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside the block no parameter of ``model`` requires gradients; afterwards each does what it did."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


class Activations:
    """What a module read and said in the latest pass.

    Attributes:
        read: its input, ``[R, T, in]`` or what was asked for of it.
        said: its output (the first one of a tuple), likewise.
    """

    read: torch.Tensor
    said: torch.Tensor


class _Enough(Exception):
    """The last module asked for has been seen; what lies above it is not needed."""


@contextmanager
def reading(
    model: nn.Module, paths: Sequence[str], at: Any = ..., *, until: str = ""
) -> Iterator[dict[str, Activations]]:
    """Inside the block every pass leaves there what the modules at ``paths`` read and said, the latest in place of older ones.

    Args:
        at: index into inputs and outputs, of what is to be kept: a mask or positions; everything by default.
        until: one of the paths; when its module has been computed the block's one pass ends, and the block with it.
    """
    seen = {path: Activations() for path in paths}

    def of(path: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
        def keep(x: torch.Tensor, y: torch.Tensor) -> None:
            seen[path].read, seen[path].said = x[at], y[at].clone()  # Falcon adds to it in place
            if path == until:
                raise _Enough

        return keep

    with ExitStack() as stack, suppress(_Enough):
        for path in seen:
            stack.callback(hook(model, path, of(path)).remove)
        yield seen


#: ``(x, y) -> new y``: a module's input ``[R, T, in]`` and output ``[R, T, out]``.
Graft = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def grafting(model: nn.Module, grafts: Mapping[str, Graft]) -> Iterator[None]:
    """Inside the block modules, by path, put out what a graft makes of their input and output."""

    with ExitStack() as stack:
        for path, graft in grafts.items():
            stack.callback(hook(model, path, graft).remove)
        yield
