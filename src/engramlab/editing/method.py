"""The contract of an editing method, methods by name, and edits that come off again bit for bit.

A method is one file in ``editing/methods``; its name is the registration (``ft_m.py`` is the method ``ft-m``). ``Method`` says
what it must have, and ``tests/editing/test_contract.py`` holds every file to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import nn

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit
from engramlab.core import deltas, models
from engramlab.core.deltas import Delta
from engramlab.core.training import losses
from engramlab.core.training.loop import Recipe
from engramlab.core.training.losses import Loss
from engramlab.editing.requests import Requests, name_of, spoken


class EditFailed(UserError):
    """One edit could not be made (a value became non-finite, say); nothing of it is on the model."""


#: Edits to be made jointly, or one after another; several cases are independent of each other.
Cases = Sequence[Sequence[Edit]]
#: What became of each case.
Made = list[Delta | EditFailed]
#: Called before every step with (steps done, numbers of the groups still in the batch ``[G]``, log-probabilities of the target
#: tokens ``[n]``, their ranks ``[n]``, the requests they belong to): the course of an edit, token by token. None: nobody looks.
Watch = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, Requests], None] | None


class Method(Protocol):
    """What a file in ``editing/methods`` has. Optional are ``prepare(model, tokenizer, config)``, which computes and keeps
    what every edit of a model needs (statistics of text), ``SEPARATE``: several edits of a call are changes of weights made
    one after another, so that each is saved, and can be taken back, by itself, ``TOUCHES``, where it is not a layer's MLP that
    changes, see ``touches``, and ``ONE_VALUE``: it takes the wordings of an edit as one problem; to others each is an edit."""

    __doc__: str | None
    TAKES_LOSS: bool
    """Does it minimise a loss of target tokens (any of ``core/training/losses.py``)?"""
    NEEDS_SUBJECT: bool
    """Must the subject stand in the prompt?"""
    TOGETHER: bool
    """Are several edits solved jointly (else one after another)?"""
    WATCHED: bool
    """Can its course be watched step by step? Then ``edit_each`` takes ``watch``."""
    Config: type[Any]
    """A frozen dataclass of its hyperparameters."""

    def edit_each(
        self, model: nn.Module, tokenizer: Any, cases: Cases, config: Any, loss: Loss, watch: Watch = None
    ) -> Made:
        """What to change so that the model says the targets of each case, all cases by themselves on this same model.

        Cases made at once equal those made one by one to floating-point tolerance. Other deltas may be on the model; it comes
        back exactly as it was, the new deltas are not on it. A case that fails gives its error and stops nobody else.

        Raises:
            UserError: an edit that cannot be encoded, a layer that does not exist.
        """


def names() -> list[str]:
    """The methods there are."""
    from engramlab.editing import methods

    return registry.names(methods)


def load(name: str) -> Method:
    """The method of that name; raises UserError with the nearest one and all there are."""
    from engramlab.editing import methods

    return cast(Method, registry.load(methods, name, "method"))


def needing_subjects(names: Sequence[str]) -> str:
    """Those of the methods that need the subject in the prompt, with commas between them; "" where none does."""
    return ", ".join(name for name in dict.fromkeys(names) if load(name).NEEDS_SUBJECT)


def check_watched(name: str) -> None:
    """Raises UserError for a method whose course cannot be watched; names those that can."""
    if not load(name).WATCHED:
        able = ", ".join(one for one in names() if load(one).WATCHED)
        raise UserError(f"method: {name!r} cannot be watched step by step; choose one of: {able}")


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
def applied(model: nn.Module, tokenizer: Any, edits: Edit | Sequence[Edit], **how: Any) -> Iterator[Delta]:
    """Makes edits, and has them on the model inside the block; afterwards the model is as it was, bit for bit.

    Args:
        edits: one or several; methods that cannot solve several jointly make them one after another.
        how: ``method``, ``loss`` and ``config`` as ``make`` takes them.

    Yields:
        The delta, which can be kept (``core/deltas/files.save``) and put on again (``core/deltas.install``).

    Raises:
        UserError: an unknown name, an edit that cannot be encoded; ``EditFailed`` when the optimisation failed.
    """
    found = make(model, tokenizer, [edits] if isinstance(edits, Edit) else edits, **how)
    with deltas.active(model, found):
        yield found


def make(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    *,
    method: str = "rome",
    loss: str | Loss = "cross-entropy",
    config: Any = None,
) -> Delta:
    """The delta of these edits, not put on the model.

    Args:
        method: a name from ``names()``.
        loss: as ``core/training/losses.parse`` takes it (``overtone:mixing=0.3``), or a loss.
        config: the method's ``Config``; None for its defaults.

    Raises:
        UserError: as ``applied``.
    """
    (made,) = make_each(model, tokenizer, [list(edits)], method=method, loss=loss, config=config)
    if isinstance(made, EditFailed):
        raise made
    return made


def make_each(
    model: nn.Module,
    tokenizer: Any,
    cases: Cases,
    *,
    method: str,
    loss: str | Loss = "cross-entropy",
    config: Any = None,
    watch: Watch = None,
) -> Made:
    """One delta a case, each for this same model; a case that fails gives its error and stops nobody else.

    Args:
        watch: see ``Watch``; others as ``make``.

    Raises:
        UserError: as ``applied``; a method that cannot be watched.
    """
    check_kind(model, method)
    if not deltas.installed(model):
        models.check_finite(str(getattr(model.config, "_name_or_path", "")), model)
    module = load(method)
    if watch is not None:
        check_watched(method)
    chosen = losses.parse(loss) if isinstance(loss, str) else loss
    watched = () if watch is None else (watch,)
    if not getattr(module, "ONE_VALUE", False):
        cases = [[one for edit in edits for one in spoken(edit)] for edits in cases]
    return module.edit_each(model, tokenizer, cases, config or module.Config(), chosen, *watched)


def check_model(name: str, methods: Sequence[str], *, base: str | None = None) -> None:
    """Raises UserError for a model that one of these methods cannot edit, from its config alone: no weights are read.

    Args:
        base: of an adapter, see ``models.load``.
    """
    skeleton = models.skeleton(name, models.load_config(name, base=base))
    for method in methods:
        try:
            check_kind(skeleton, method)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def check_kind(model: nn.Module, method: str) -> None:
    """Raises UserError where a model, which needs no weights for that, is of a kind that a method cannot edit."""
    if models.mask_token(model) is not None:
        raise UserError(
            "this is a masked language model, which writes nothing after a prompt; edits need one that predicts the next token"
        )
    what = touches(method)
    if what == "nothing":
        return
    paths = models.module_paths(model)
    if what == "mlp" and not paths.mlp_down:
        able = ", ".join(name for name in names() if touches(name) != "mlp")
        raise UserError(
            f"architecture {model.config.model_type!r} has no single MLP in a layer but several experts, and {method} changes "  # type: ignore[union-attr]
            f"an MLP; choose another method: {able}"
        )


def touches(method: str) -> str:
    """What a method changes of a model: "mlp", the modules of its "layers" (attention), or "nothing"."""
    return str(getattr(load(method), "TOUCHES", "mlp"))


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
