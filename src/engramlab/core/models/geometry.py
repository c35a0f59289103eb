"""Layers by number or by depth, and the matrix in each that ROME and its kin take for the memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.models import module_paths


def depth(model: nn.Module) -> int:
    """Number of layers."""
    layers: Any = model.get_submodule(module_paths(model).layers)
    return len(layers)


def layer_at(model: nn.Module, chosen: int | None, fraction: float) -> int:
    """The layer asked for, or the one at that fraction of the depth: a paper's layer 21 of 32 is 20 of 30.

    Raises:
        UserError: the model has no such layer.
    """
    layers = depth(model)
    layer = min(round(fraction * layers), layers - 1) if chosen is None else chosen
    if not 0 <= layer < layers:
        raise UserError(f"layer {layer} does not exist: this model has layers 0 to {layers - 1}")
    return layer


def layer_path(model: nn.Module, layer: int) -> str:
    """Path of a layer."""
    return f"{module_paths(model).layers}.{layer}"


def down_projection(model: nn.Module, layer: int) -> str:
    """Path of a layer's MLP down-projection, the matrix that ROME and its kin take for the memory.

    Raises:
        UserError: the layer has no MLP, or several.
    """
    path = f"{layer_path(model, layer)}.{module_paths(model).mlp_down}"
    if not module_paths(model).mlp_down or not any(name == path for name, _ in model.named_modules()):
        raise UserError(
            f"layer {layer} of this {model.config.model_type} has no MLP of its own that could be changed (but several "  # type: ignore[union-attr]
            "experts, as a rule); change its attention (lora), or no weights at all (ike)"
        )
    return path


def weight_of(module: nn.Module) -> torch.Tensor:
    """The module's weight as a view ``[out, in]`` of its storage (of a Linear, an Embedding's transpose, or GPT-2's Conv1D).

    Raises:
        UserError: the module has no matrix.
    """
    weight = module.weight
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        raise UserError(f"a {type(module).__name__} has no weight matrix to edit")
    return weight.T if isinstance(module, nn.Embedding) or not isinstance(module, nn.Linear) else weight


def matrix_shape(model: nn.Module, path: str) -> tuple[int, int]:
    """(out, in) of the weight matrix of the module at ``path``."""
    out, into = weight_of(model.get_submodule(path)).shape
    return out, into
