"""What an edit changed, as a thing of its own: put on a model, taken off again bit for bit, saved, or many at once.

A delta either changes weights (``WeightDelta``), or adds to what modules compute depending on the prompt (a subclass with
``modifiers``), or puts text before the prompt (``context``). Deltas on a model form a stack: the last one put on is the first
one to come off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.deltas.changes import Change, OwnRows, Together
from engramlab.core.deltas.delta import Delta, Modifier, WeightDelta
from engramlab.core.deltas.stack import (
    Installed,
    decides,
    fingerprint,
    hook,
    listen,
    push,
    put_back,
    stack_of,
    withdraw,
)
from engramlab.core.models.geometry import weight_of


@torch.no_grad()
def install(model: nn.Module, delta: Delta, *, undo: bool = True, precision: torch.dtype | None = None) -> Installed:
    """Puts a delta on a model, in place.

    Args:
        undo: keep what ``Installed.remove`` needs. Without it only the model's first weights are kept, once, and the delta
            comes off with all others through ``remove_all``: for long sequences of edits.
        precision: changed weights take the nearest value of this number type, in which they are to be kept.

    Raises:
        UserError: the delta was made for another model.
    """
    check_model(delta, model)
    entry = Installed(model, delta)  # with undo until it is wholly on: whatever stops it, the model is as it was
    try:
        stack = push(model, entry)
        if not isinstance(delta, WeightDelta):
            for older in stack.entries:
                if older.delta is delta.continues:
                    older.silence()
            listen(entry, delta.modifiers(model))
        for path, change in delta.changes.items() if isinstance(delta, WeightDelta) else ():
            view = _keep(model, path, entry.originals)
            view.copy_((view.float() + change.matrix().to(view.device)).to(precision or view.dtype))
    except BaseException:
        withdraw(model, entry)
        raise
    if not undo:  # a hundred dense changes would fill the memory, and only their sum is needed
        stack.originals = entry.originals | stack.originals
        if isinstance(delta, WeightDelta):
            entry.delta = WeightDelta(delta.model, {}, delta.extras)
        entry.originals, entry.undo = {}, False
    return entry


def _keep(model: nn.Module, path: str, kept: dict[str, torch.Tensor]) -> torch.Tensor:
    """The weight ``[out, in]`` of the module at ``path``, a copy of which stands in ``kept`` the first time it is asked for."""
    module = model.get_submodule(path)
    if path not in kept:
        kept[path] = module.weight.detach().clone()  # type: ignore[operator]
    return weight_of(module)


def changed(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights ``[out, in]`` that deltas installed without undo have changed, as they are now; by module path."""
    stack = stack_of(model)
    paths = stack.originals if stack else {}
    return {path: weight_of(model.get_submodule(path)).detach().clone() for path in paths}


@torch.no_grad()
def put(model: nn.Module, weights: Mapping[str, torch.Tensor], found: Sequence[Delta]) -> None:
    """Brings an unedited model to where a sequence of edits without undo had brought it: ``changed`` weights, and its deltas
    (``installed``). ``remove_all`` takes everything off again."""
    try:
        stack = push(model, Installed(model, None, undo=False))
        for path, weight in weights.items():
            _keep(model, path, stack.originals).copy_(weight)
        for delta in found:
            install(model, delta, undo=False)
    except BaseException:
        remove_all(model)
        raise


def remove_all(model: nn.Module) -> None:
    """Takes every delta off a model, bit for bit."""
    stack = stack_of(model)
    if stack is None:
        return
    stopped = []
    for entry in reversed(stack.entries):
        stopped.append(put_back(model, entry.originals))
        entry.silence()
    stopped.append(put_back(model, stack.originals))
    stack.entries.clear()
    stack.close(model)
    for one in filter(None, stopped):
        raise one


@contextlib.contextmanager
def active(model: nn.Module, delta: Delta) -> Iterator[Delta]:
    """Inside the block ``delta`` is on the model; afterwards the model is as it was, bit for bit."""
    entry = install(model, delta)
    try:
        yield delta
    finally:
        entry.remove()


def installed(model: nn.Module) -> tuple[Delta, ...]:
    """The deltas on a model, oldest first."""
    stack = stack_of(model)
    return tuple(e.delta for e in stack.entries if e.delta is not None) if stack else ()


def routed(model: nn.Module) -> bool:
    """Does what the model computes now depend on where a prompt ends?"""
    stack = stack_of(model)
    if decides(model) or stack is None:
        return decides(model)
    deltas = [d for e in stack.entries for d in (e.many if isinstance(e, _Many) else (e.delta,))]
    return any(d.routed for d in deltas if d is not None)


@contextlib.contextmanager
def together(model: nn.Module, deltas: Sequence[Delta]) -> Iterator[None]:
    """Inside the block every row of a batch runs under its own delta: that of ``routing(owner=...)``, an index into ``deltas``.

    Nothing is changed in place; results equal those of installing one delta at a time to floating-point tolerance.

    Raises:
        UserError: a delta was made for another model.
    """
    for delta in deltas:
        check_model(delta, model)
    weights: dict[str, list[Change | None]] = {}
    others: dict[str, list[tuple[int, Modifier]]] = {}
    for i, delta in enumerate(deltas):
        if isinstance(delta, WeightDelta):
            for path, change in delta.changes.items():
                weights.setdefault(path, [None] * len(deltas))[i] = change
        else:
            for path, modify in delta.modifiers(model).items():
                others.setdefault(path, []).append((i, modify))

    entry = _Many(model, None, many=tuple(deltas))
    stack = push(model, entry)

    def owners(x: torch.Tensor) -> OwnRows:
        if stack.owner is None:
            raise RuntimeError("rows under several deltas need routing(model, ends, owner)")
        if stack.rows is None or stack.rows.count != len(deltas):
            stack.rows = OwnRows(stack.owner.to(x.device), len(deltas))
        return stack.rows

    def of_weights(changes: list[Change | None]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        at_once = Together(changes)
        return lambda x, y: at_once.apply(x, y, owners(x))

    def of_others(modifiers: list[tuple[int, Modifier]]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def act(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            owner, out = owners(x).owner, y.clone()
            for i, modify in modifiers:
                mine = (owner == i).nonzero().squeeze(1)
                if len(mine):
                    out[mine] = modify(x[mine], y[mine], stack.route(id(entry), i, mine)).to(y.dtype)
            return out

        return act

    try:
        for path, changes in weights.items():
            entry.hooks.append(hook(model, path, of_weights(changes)))
        for path, found in others.items():
            entry.hooks.append(hook(model, path, of_others(found)))
        yield
    finally:
        entry.remove()


@dataclass(eq=False)
class _Many(Installed):
    many: tuple[Delta, ...] = ()


def check_model(delta: Delta, model: nn.Module) -> None:
    """Raises UserError if ``delta`` was made for another model: other weights, or matrices of another shape."""
    for path, change in delta.changes.items() if isinstance(delta, WeightDelta) else ():
        try:
            shape = tuple(weight_of(model.get_submodule(path)).shape)
        except AttributeError:
            raise UserError(
                f"this edit changes {path!r}, which the model does not have: it was made for another"
            ) from None
        if shape != change.shape:
            raise UserError(
                f"this edit changes {path!r} by a matrix of {change.shape[0]} x {change.shape[1]}; this model's has "
                f"{shape[0]} x {shape[1]}: it was made for another model"
            )
    found = fingerprint(model)
    if delta.model != found:
        raise UserError(
            f"this edit was made for a model with fingerprint {delta.model}; this one's is {found} (other weights, another "
            "precision, or edited since): load the model the edit was made on"
        )
