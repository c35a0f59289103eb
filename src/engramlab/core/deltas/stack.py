"""The stack of deltas on a model: who is on it, how rows are routed, and what the weights were before.

Everything is kept on the model itself, from the first delta that is put on to the last one that comes off.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.core.deltas.changes import OwnRows
from engramlab.core.deltas.delta import Delta, Modifier, Route
from engramlab.core.text.prompts import free_route

_KEY = "_engramlab_deltas"


@dataclass(eq=False)
class Installed:
    """A delta on a model.

    Attributes:
        originals: the weights before, by module path; bit for bit what ``remove`` puts back.
    """

    __repr__ = brief

    model: nn.Module
    delta: Delta | None
    originals: dict[str, torch.Tensor] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)
    undo: bool = True

    def remove(self) -> None:
        """Takes the delta off. Raises RuntimeError unless it is the last one put on, or was installed without undo."""
        stack = stack_of(self.model)
        if stack is None or stack.entries[-1] is not self:
            raise RuntimeError("deltas come off in the reverse order in which they were put on")
        if not self.undo:
            raise RuntimeError("this delta was installed without undo; remove_all takes everything off")
        stopped = put_back(self.model, self.originals)
        self.silence()
        stack.entries.pop()
        if self.delta is not None and self.delta.continues is not None:
            for entry in stack.entries:
                if entry.delta is self.delta.continues:
                    entry.silence()
                    listen(entry, entry.delta.modifiers(self.model))
        if not stack.entries:
            stack.close(self.model)
        if stopped is not None:
            raise stopped

    def silence(self) -> None:
        """Takes its hooks off, the delta stays on the stack."""
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()


@dataclass(frozen=True)
class Several:
    """Several deltas on a model, oldest first."""

    entries: tuple[Installed, ...]

    def remove(self) -> None:
        """Takes them off."""
        for entry in reversed(self.entries):
            entry.remove()


class Stack:
    """The deltas on a model, oldest first, and how the rows of the present forward pass are to be routed."""

    def __init__(self, model: nn.Module) -> None:
        self.fingerprint = fingerprint(model)
        self.entries: list[Installed] = []
        self.originals: dict[str, torch.Tensor] = {}  # of deltas installed without undo
        self.ends: torch.Tensor | None = None
        self.owner: torch.Tensor | None = None
        self.routes: dict[tuple[int, int], Route] = {}
        self.rows: OwnRows | None = None
        self.free: Route | None = None  # of passes outside of ``routing``
        self.watch = model.register_forward_pre_hook(self._begins, with_kwargs=True)

    def close(self, model: nn.Module) -> None:
        """The model forgets that there was a stack."""
        self.watch.remove()
        del model.__dict__[_KEY]

    def _begins(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A pass begins: outside of ``routing``, a prompt ends where the input does; a single token goes on with what was."""
        if self.ends is not None:
            return
        given = args[0] if args else kwargs.get("input_ids")
        if given is None:
            given = kwargs.get("inputs_embeds")
        self.free = free_route(self.free, given, kwargs)

    def route(self, entry: int, delta: int = 0, rows: torch.Tensor | None = None) -> Route:
        """Where the prompts of these rows end, and what this delta of this entry has decided there."""
        if self.ends is None:
            if self.free is None:
                raise RuntimeError("a module of an edited model was called outside of the model's own forward pass")
            return self.free
        key = entry, delta
        if key not in self.routes:
            self.routes[key] = Route(self.ends if rows is None else self.ends[rows])
        return self.routes[key]


def stack_of(model: nn.Module) -> Stack | None:
    """The deltas on a model; None without any."""
    return model.__dict__.get(_KEY)


def push(model: nn.Module, entry: Installed) -> Stack:
    """Puts an entry on top of the model's stack, which begins with the first one."""
    stack = stack_of(model)
    if stack is None:
        stack = model.__dict__[_KEY] = Stack(model)
    stack.entries.append(entry)
    return stack


def withdraw(model: nn.Module, entry: Installed) -> None:
    """Takes off what an interrupted ``push`` or what followed it has left of an entry."""
    stack = stack_of(model)
    if stack is not None and entry in stack.entries:
        entry.remove()
    elif stack is not None and not stack.entries:
        stack.close(model)


@torch.no_grad()
def put_back(model: nn.Module, originals: Mapping[str, torch.Tensor]) -> BaseException | None:
    """Writes kept weights, by module path, over those of the model; what interrupts it is to be raised when all is done."""
    try:
        _write(model, originals)
    except BaseException as stopped:
        _write(model, originals)
        return stopped
    return None


def _write(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    for path, weight in weights.items():
        model.get_submodule(path).weight.copy_(weight)  # type: ignore[operator]


@dataclass(frozen=True)
class Hook:
    """Hooks that come off together."""

    handles: tuple[Any, ...]

    def remove(self) -> None:
        """Takes them off."""
        for handle in self.handles:
            handle.remove()


def hook(model: nn.Module, path: str, act: Callable[[torch.Tensor, torch.Tensor], torch.Tensor | None]) -> Hook:
    """The module at ``path`` puts out ``act(x, y)`` of its input ``[R, T, in]`` and output ``[R, T, out]`` (of a tuple, the
    first), or its own where that is None, until the hook is removed. OPT's layers flatten rows and positions before their
    MLP; ``act`` sees them apart.
    """
    around: list[torch.Size] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        around[:] = [given.shape[:2]] if isinstance(given, torch.Tensor) and given.dim() == 3 else []

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        y, *others = output if isinstance(output, tuple) else (output,)
        flat = x.dim() == 2 and bool(around)
        made = act(x.unflatten(0, around[0]), y.unflatten(0, around[0])) if flat else act(x, y)
        if made is None:
            return None
        made = made.flatten(0, 1) if flat else made
        return (made, *others) if isinstance(output, tuple) else made

    outer = model.get_submodule(path.rpartition(".")[0]).register_forward_pre_hook(enter, with_kwargs=True)
    return Hook((outer, model.get_submodule(path).register_forward_hook(after, with_kwargs=True)))


def listen(entry: Installed, modifiers: Mapping[str, Modifier]) -> None:
    """An entry's modifiers act, each on the route of the pass at hand."""
    stack = stack_of(entry.model)
    assert stack is not None

    def of(modify: Modifier) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        return lambda x, y: modify(x, y, stack.route(id(entry)))

    for path, modify in modifiers.items():
        entry.hooks.append(hook(entry.model, path, of(modify)))


@contextlib.contextmanager
def routing(model: nn.Module, ends: torch.Tensor, owner: torch.Tensor | None = None) -> Iterator[None]:
    """Around one forward pass, or one whole generation: where prompts end and under whose delta each row runs.

    What a routed delta decides at a prompt's end in the first pass holds for the passes that follow inside the block, so a
    target that is read along, or a word just written, never plays a part. Without deltas on the model it does nothing,
    unless the network itself decides something there.

    Args:
        ends: int64 ``[R]``: index of each row's last prompt token in the input of the first pass.
        owner: int64 ``[R]``: index into the deltas of ``together``.
    """
    stack = stack_of(model)
    with model.routed_at(Route(ends)) if decides(model) else contextlib.nullcontext():  # type: ignore[operator]
        if stack is None:
            yield
            return
        before = stack.ends, stack.owner, stack.routes, stack.rows
        stack.ends, stack.owner, stack.routes, stack.rows = ends, owner, {}, None
        try:
            yield
        finally:
            stack.ends, stack.owner, stack.routes, stack.rows = before


def narrow(model: nn.Module, rows: torch.Tensor) -> None:
    """Inside ``routing``, of a model that is not ``routed``: passes that follow have these rows (int64) of the batch alone."""
    if (stack := stack_of(model)) is not None and stack.ends is not None:
        stack.ends, stack.rows = stack.ends[rows], None
        stack.owner = None if stack.owner is None else stack.owner[rows]


def decides(model: nn.Module) -> bool:
    """Does the network itself decide something where a prompt ends, with no delta on it?"""
    return bool(getattr(model, "decides", False))


def fingerprint(model: nn.Module) -> str:
    """A short name of a model's weights: equal for equal weights, of the *unedited* model while deltas are on it.

    Made from every parameter's name, shape, type and 64 of its values, so that it costs nothing; an edit of one row of a large
    matrix can escape it.
    """
    stack = stack_of(model)
    if stack is not None:
        return stack.fingerprint
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()
        picked = values[:: max(1, len(values) // 64)][:64].float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(picked.numpy().tobytes())
    return digest.hexdigest()
