"""Where a model keeps what experiments touch: as its family's file says, or as its shapes do."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.core.models.finding import find


@dataclass(frozen=True)
class ModulePaths:
    """Where a model keeps what experiments touch; paths inside a layer are relative to it.

    ``query`` and ``value`` may name one fused projection. ``mlp_down`` is "" where no layer has one MLP alone (a mixture of
    experts), ``final_norm`` where nothing stands between the last layer and the output embedding.
    """

    layers: str
    embedding: str
    query: str
    value: str
    mlp_down: str
    final_norm: str


def families() -> dict[str, Any]:
    """The modules of ``families`` by name; a network that transformers does not have is known to it afterwards."""
    from engramlab.core.models import families as package

    return {name: registry.load(package, name, "model family") for name in registry.names(package)}


def buildable() -> list[str]:
    """Names of the families that can be trained from scratch."""
    return [name for name, family in families().items() if hasattr(family, "config")]


def family(name: str) -> Any:
    """The module of a family that can be built; raises UserError with the names there are."""
    if name not in buildable():
        raise UserError(f"model family {name!r} is unknown; choose one of: {', '.join(buildable())}")
    return families()[name]


def known_paths() -> dict[str, ModulePaths]:
    """``ModulePaths`` by ``config.model_type``."""
    return {kind: module.PATHS for module in families().values() for kind in module.MODEL_TYPES}


def module_paths(model: nn.Module) -> ModulePaths:
    """Where this model keeps its modules, or the one that an adapter is around; raises UserError for what is no decoder-only
    transformer."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    known = known_paths().get(str(model.config.model_type))  # type: ignore[union-attr]
    if known is not None:
        return known
    if model not in _FOUND:
        _FOUND[model] = ModulePaths(**find(model))
    return _FOUND[model]


_FOUND: weakref.WeakKeyDictionary[nn.Module, ModulePaths] = weakref.WeakKeyDictionary()  # looking takes a while
