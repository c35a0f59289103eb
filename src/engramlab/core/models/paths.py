"""Where a model keeps what experiments touch: as its family's file says, or as its shapes do."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.base import registry
from engramlab.base.errors import UserError


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


# by shape ------------------------------------------------------------------------------------------------------------

# What a layer's projections are called is all that is taken from names: shapes do not tell a query from an output.
_QUERY = ("q_proj", "query", "wq", "q", "q_lin", "q_b_proj")
_VALUE = ("v_proj", "value", "wv", "v", "v_lin", "kv_b_proj")
_FUSED = ("query_key_value", "qkv_proj", "c_attn", "wqkv", "qkv", "w_pack", "att_proj")


def matrix(module: nn.Module) -> tuple[int, int] | None:
    """(out, in) of a Linear or of GPT-2's Conv1D; None for others."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Linear) and weight is not None:
        return weight.shape[0], weight.shape[1]
    if type(module).__name__ == "Conv1D" and weight is not None:
        return weight.shape[1], weight.shape[0]
    return None


#: What a layer's other projections are called.
_OTHERS = {
    "key": ("k_proj", "key", "wk", "k", "k_lin"),
    "output": ("o_proj", "out_proj", "dense", "wo", "o", "out_lin", "c_proj"),
    "gate": ("gate_proj", "w1", "wi_0", "gate", "gate_up_proj"),
    "up": ("up_proj", "fc1", "fc_in", "dense_h_to_4h", "c_fc", "w3", "wi", "gate_up_proj"),
}


def projection(model: nn.Module, name: str) -> str:
    """The path inside a layer of one of its projections: query, value and mlp_down as ``module_paths`` has them, key, output
    (of the attention), gate and up (of the MLP) by what they are called; a fused one is found by the first of its parts.

    Raises:
        UserError: there is none of that name, as one of its own.
    """
    paths = module_paths(model)
    if name in ("query", "value", "mlp_down"):
        return str(getattr(paths, name))
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    layer: nn.Module = model.get_submodule(f"{paths.layers}.0")
    inside = paths.query.rpartition(".")[0] if name in ("key", "output") else paths.mlp_down.rpartition(".")[0]
    for path, module in layer.named_modules():
        where, _, called = path.rpartition(".")
        own = called.lower() in _OTHERS[name] and matrix(module) is not None
        if own and (where == inside or where.startswith(f"{inside}.")):
            return path
    if name == "key" and paths.query == paths.value:
        return paths.query
    raise UserError(
        f"architecture {model.config.model_type!r} has no {name} projection of its own in a layer"  # type: ignore[union-attr]
    )


def linear_maps(model: nn.Module, layer: int) -> list[str]:
    """The paths inside a layer of all its linear maps."""
    inner = model.get_submodule(f"{module_paths(model).layers}.{layer}")
    return [path for path, module in inner.named_modules() if matrix(module) is not None]


def refused(config: Any, why: str) -> UserError:
    """The refusal of an architecture that no method of ours could take apart."""
    return UserError(
        f"architecture {config.model_type!r} {why}; take a decoder-only transformer (GPT-2, Llama, Qwen, Gemma, Phi, ...)"
    )


def find(model: nn.Module) -> dict[str, str]:
    """The fields of a ``ModulePaths``; also of a model on the meta device, which has no weights.

    Raises:
        UserError: no decoder-only transformer.
    """
    config: Any = model.config
    text = config.get_text_config()
    embedding = next((name for name, m in model.named_modules() if m is model.get_input_embeddings()), "")  # type: ignore[operator]
    body, layers = _layers(model, embedding, int(getattr(text, "num_hidden_layers", 0)))
    if layers is None:
        raise refused(config, "has no list of layers that its config speaks of")
    query, value = _named(layers[0], _QUERY), _named(layers[0], _VALUE)
    if not (query and value):
        query = value = _named(layers[0], _FUSED)
    lacking = [i for i, layer in enumerate(layers) if not (_has(layer, query) and _has(layer, value))]
    if lacking:
        raise refused(config, f"has no attention with a query and a value in layer {lacking[0]} (a state-space model?)")
    path = next(name for name, m in model.named_modules() if m is layers)
    return {
        "layers": path,
        "embedding": embedding,
        "query": query,
        "value": value,
        "mlp_down": _down(layers[0], query.rpartition(".")[0], int(text.hidden_size)),
        "final_norm": _last(body, path.rpartition(".")[0]),
    }


def _layers(model: nn.Module, embedding: str, count: int) -> tuple[Any, Any]:
    """The module that holds the layers (and the embedding: others may see or hear), and their list."""
    for name, module in model.named_modules():
        for child in module.children():
            if (
                isinstance(child, nn.ModuleList)
                and len(child) == count
                and embedding.startswith(f"{name}." if name else "")
            ):
                return module, child
    return None, None


def _named(layer: nn.Module, names: tuple[str, ...]) -> str:
    found = (
        name for name, m in layer.named_modules() if name.rpartition(".")[2].lower() in names and hasattr(m, "weight")
    )
    return next(found, "")


def _has(layer: nn.Module, path: str) -> bool:
    return bool(path) and any(name == path for name, _ in layer.named_modules())


def _down(layer: nn.Module, attention: str, hidden: int) -> str:
    """The matrix from a layer's MLP back to the hidden width; "" where there is not exactly one MLP (experts)."""
    found = []
    for path, module in layer.named_modules():
        if attention and (path == attention or path.startswith(f"{attention}.")):
            continue
        if any(p.dim() == 3 and hidden in p.shape for p in module.parameters(recurse=False)) and not _convolution(
            module
        ):
            return ""  # experts in one tensor
        shapes = {name: shape for name, child in module.named_children() if (shape := matrix(child)) is not None}
        inner = {out // part for out, into in shapes.values() if into == hidden for part in (1, 2)}
        downs = [name for name, (out, into) in shapes.items() if out == hidden and into in inner]
        if downs and len(shapes) > 1:
            found.append(f"{path}.{downs[-1]}" if path else downs[-1])
    return found[0] if len(found) == 1 else ""


def _convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _last(body: nn.Module, path: str) -> str:
    """What stands between the last layer and the output embedding: a norm, as a rule; "" for nothing."""
    norms = [name for name, child in body.named_children() if "norm" in type(child).__name__.lower()]
    norms = norms or [name for name, child in body.named_children() if name == "project_out" and child is not None]
    return f"{path}.{norms[-1]}" if norms else ""
