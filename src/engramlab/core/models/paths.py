"""Where a model keeps what experiments touch: the families' files by name, and by the kind of a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.base import registry
from engramlab.base.errors import UserError


@dataclass(frozen=True)
class ModulePaths:
    """Where a family keeps what experiments touch; paths inside a layer are relative to it.

    ``query`` and ``value`` may name one fused projection; ``fused_qkv`` then tells how its output rows are laid out:
    ``"heads"`` (for each head: query, key, value) or ``"blocks"`` (all queries, all keys, all values).
    """

    layers: str
    embedding: str
    query: str
    value: str
    mlp_down: str
    final_norm: str
    fused_qkv: str | None = None


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
    """Where this model keeps its modules; raises UserError for a model of no family."""
    kind, known = str(model.config.model_type), known_paths()  # type: ignore[union-attr]
    if kind not in known:
        raise UserError(
            f"architecture {kind!r} is of no family in engramlab/core/models/families (there: {', '.join(sorted(known))}); add "
            "a file there that names its layers, embedding, query, value and MLP modules"
        )
    return known[kind]
