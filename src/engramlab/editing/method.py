"""The contract of an editing method, methods by name, and edits that come off again bit for bit.

A method is one file in ``editing/methods``; its name is the registration (``ft_m.py`` is the method ``ft-m``). It has

- ``Config``: a frozen dataclass of its hyperparameters;
- ``TAKES_LOSS``: does it minimise a loss of target tokens (any of ``core/training/losses.py``)?
- ``NEEDS_SUBJECT``: must the subject stand in the prompt?
- ``TOGETHER``: are several edits solved jointly (else one after another)?
- ``edit(model, tokenizer, edits, config, loss) -> Delta``: what to change so that the model says the targets. Other deltas may
  be on the model; it comes back exactly as it was, the new delta is not on it;
- optionally ``prepare(model, tokenizer, config)``: computes and keeps what every edit of a model needs (statistics of text);
- optionally ``edit_each(model, tokenizer, cases, config, loss) -> list[Delta | EditFailed]``: every case by itself on this same
  model, all of them at once; equal to ``edit`` one by one to floating-point tolerance.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import nn

from engramlab.base.errors import UserError, nearest
from engramlab.base.facts import Edit
from engramlab.core import deltas
from engramlab.core.deltas import Delta, WeightDelta
from engramlab.core.models import mask_token, module_paths
from engramlab.core.training import losses
from engramlab.core.training.loop import Recipe
from engramlab.core.training.losses import Loss
from engramlab.editing.requests import name_of


class EditFailed(UserError):
    """One edit could not be made (a value became non-finite, say); nothing of it is on the model."""


def names() -> tuple[str, ...]:
    """The methods there are."""
    from engramlab.editing import methods

    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(methods.__path__)))


def load(name: str) -> Any:
    """The method of that name; raises UserError with the names there are."""
    if name not in names():
        raise UserError(
            f"method {name!r} is unknown; did you mean {nearest(name, names())!r}? There are: {', '.join(names())}"
        )
    return importlib.import_module(f"engramlab.editing.methods.{name.replace('-', '_')}")


def kinds() -> dict[str, type[Delta]]:
    """Every kind of delta there is, by the name it is saved under."""
    for name in names():
        load(name)
    found: dict[str, type[Delta]] = {}
    todo: list[type[Delta]] = list(Delta.__subclasses__())
    while todo:
        kind = todo.pop()
        found[kind.kind] = kind
        todo += kind.__subclasses__()
    return found


@contextlib.contextmanager
def applied(
    model: nn.Module,
    tokenizer: Any,
    edits: Edit | Sequence[Edit],
    *,
    method: str = "rome",
    loss: str | Loss = "cross-entropy",
    config: Any = None,
) -> Iterator[Delta]:
    """Makes edits, and has them on the model inside the block; afterwards the model is as it was, bit for bit.

    Args:
        edits: one or several; methods that cannot solve several jointly make them one after another.
        method: a name from ``names()``.
        loss: a name from ``core/training/losses.py``, or a loss.
        config: the method's ``Config``; None for its defaults.

    Yields:
        The delta, which can be kept (``core/deltafiles.save``) and put on again (``core/deltas.install``).

    Raises:
        UserError: an unknown name, an edit that cannot be encoded; ``EditFailed`` when the optimisation failed.
    """
    found = make(
        model, tokenizer, [edits] if isinstance(edits, Edit) else edits, method=method, loss=loss, config=config
    )
    with deltas.applied(model, found):
        yield found


def make(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    *,
    method: str,
    loss: str | Loss = "cross-entropy",
    config: Any = None,
) -> Delta:
    """The delta of these edits, not put on the model; see ``applied``."""
    _check_causal(model)
    module = load(method)
    chosen = losses.get(loss) if isinstance(loss, str) else loss
    return module.edit(model, tokenizer, list(edits), config or module.Config(), chosen)


def make_each(
    model: nn.Module, tokenizer: Any, cases: Sequence[Sequence[Edit]], *, method: str, loss: Loss, config: Any
) -> list[Delta | EditFailed]:
    """One delta a case, each for this same model; a case that fails gives its error and stops nobody else."""
    _check_causal(model)
    module = load(method)
    if hasattr(module, "edit_each"):
        return module.edit_each(model, tokenizer, cases, config, loss)
    found: list[Delta | EditFailed] = []
    for edits in cases:
        try:
            found.append(module.edit(model, tokenizer, edits, config, loss))
        except EditFailed as error:
            found.append(error)
    return found


def _check_causal(model: nn.Module) -> None:
    if mask_token(model) is not None:
        raise UserError(
            "this is a masked language model, which writes nothing after a prompt; edits need one that predicts the next token"
        )


def one_after_another(model: nn.Module, edits: Sequence[Edit], edit_one: Callable[[Edit], WeightDelta]) -> WeightDelta:
    """For methods that change weights for one edit at a time: each edit is made on a model that has the earlier ones."""
    made: list[WeightDelta] = []
    with contextlib.ExitStack() as stack:
        for i, edit in enumerate(edits):
            made.append(edit_one(edit))
            if i + 1 < len(edits):
                stack.enter_context(deltas.applied(model, made[-1]))
    return WeightDelta.sum(made)


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


def down_projection(model: nn.Module, layer: int) -> str:
    """Path of a layer's MLP down-projection, the matrix that ROME and its kin take for the memory."""
    paths = module_paths(model)
    return f"{paths.layers}.{layer}.{paths.mlp_down}"


def recipe(steps: int, learning_rate: float, **more: Any) -> Recipe:
    """A recipe for an edit: constant rate, Adam without decay or clipping unless said otherwise."""
    plain: dict[str, Any] = {"weight_decay": 0.0, "clip": None, "schedule": "constant", "eps": 1e-8}
    return Recipe(steps=steps, learning_rate=learning_rate, **{**plain, **more})


def failed(edits: Sequence[Edit], what: str = "the loss or its gradient became non-finite") -> EditFailed:
    """The error for edits that failed together."""
    first = name_of(edits[0]) + (f" (with {len(edits) - 1} others)" if len(edits) > 1 else "")
    return EditFailed(
        f"{first} failed: {what}; nothing of it is on the model. Try a lower learning rate or another layer"
    )


def only(found: Sequence[Delta | EditFailed]) -> Delta:
    """The one delta that ``edit_each`` made for one case; raises its error if there is one."""
    (delta,) = found
    if isinstance(delta, EditFailed):
        raise delta
    return delta


def matrix_shape(model: nn.Module, path: str) -> tuple[int, int]:
    """(out, in) of the weight matrix of the module at ``path``."""
    out, into = deltas.weight_of(model.get_submodule(path)).shape
    return out, into
