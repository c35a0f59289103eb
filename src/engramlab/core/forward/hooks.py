"""Hooks on a model's modules, as context managers that always clean up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
