"""In which number type an edited model is kept: that of the model it comes from, if its weights are exact in it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.deltas import stack_of
from engramlab.editing.folders import disk

OF_GGUF = "bfloat16"


def chosen(model: nn.Module, source: str, wanted: str | None = None) -> str:
    """The number type to keep a model's weights in.

    Args:
        source: where the model came from: a folder, a .gguf file, a hub id, an edited folder.
        wanted: what the user asked for; by default the source's type, bfloat16 for a .gguf file.

    Returns:
        Its name; the model's own type where the unedited weights are not exact in the one asked for.
    """
    own = next(model.parameters()).dtype
    name = wanted or _of(source)
    kind = getattr(torch, name) if name else own
    if kind == own or (wanted is None and kind.itemsize > own.itemsize):
        return _name(own)
    exact = all(torch.equal(v.to(kind).to(v.dtype), v) for v in unedited(model).values())
    return _name(kind if exact else own)


def unedited(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's parameters by name, as they were before the first delta that is on it."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    stack = stack_of(model)
    for entry in reversed(stack.entries) if stack is not None else ():
        values |= {f"{path}.weight": value for path, value in entry.originals.items()}
    return values


@torch.no_grad()
def rounded(model: nn.Module, precision: str) -> nn.Module:
    """The model with every parameter at the nearest value that ``precision`` has; its number type stays."""
    for parameter in model.parameters():
        if parameter.dtype != getattr(torch, precision):
            parameter.copy_(parameter.to(getattr(torch, precision)))
    return model


def size(model: nn.Module, precision: str) -> int:
    """Bytes of a model's weights in that number type."""
    return sum(parameter.numel() for parameter in model.parameters()) * getattr(torch, precision).itemsize


def _of(source: str) -> str | None:
    """The number type of a model's files; None where they do not tell."""
    if not source:
        return None
    if disk.is_edited(source):
        return disk.read(source).precision
    if Path(source).suffix == ".gguf":
        return OF_GGUF
    try:
        kind = models.load_config(source).dtype
    except UserError:
        return None
    return _name(kind) if isinstance(kind, torch.dtype) else None


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
