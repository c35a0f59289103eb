"""An edited folder as a model with its edits on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas, models
from engramlab.core.deltas import Delta
from engramlab.core.deltas import files as deltafiles
from engramlab.editing.folders import checking, disk, precision
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.method import kinds


def load(
    folder: str | Path, *, device: str | torch.device | None = None, base: str | None = None
) -> tuple[nn.Module, Any]:
    """The edited model with all its deltas on it, as if they had just been made, and its tokenizer.

    They can be taken off one by one (``core.deltas``), down to the unedited model, bit for bit: every tensor and file is held
    to the digest that it was saved with.

    Args:
        device: where to; the CPU by default.
        base: for deltas alone: where the unedited model is now, if not where it was.

    Raises:
        UserError: no edited folder, a damaged one, weights that something else has changed, or another base model.
    """
    state = disk.read(folder)
    known = disk.listing(state)
    if base and not state.delta_only:
        raise UserError(f"--base {base}: {state.folder} holds the whole model; leave the option out")
    checking.check(state, known)
    made = load_deltas(state, known)
    name, dtype = str(state.folder), getattr(torch, state.dtype)
    if state.delta_only:
        name = base or state.base
        try:
            model, tokenizer = models.load(name, dtype=dtype)
        except UserError as error:
            raise UserError(
                f"{state.folder} holds edits alone, and their model could not be loaded: {error}; if it has moved, say where "
                "it is with --base (in Python base=)"
            ) from None
        precision.rounded(model, state.precision)
    else:
        model, tokenizer = models.load(name, dtype=dtype)
    after = [] if state.delta_only else _unwind(state, known, model)
    found = deltas.fingerprint(model)
    if found != state.model:
        if state.delta_only:
            raise UserError(
                f"{name}: this is not the model that the edits in {state.folder} were made for (fingerprint {found}, not "
                f"{state.model}); say with --base where that one is"
            )
        raise UserError(
            f"{name}: with its edits taken off, its weights are not those they were made for (fingerprint {found}, not "
            f"{state.model}); take the original files from a copy"
        )
    if state.delta_only:
        checking.check_base(state, model, name)
    if device is not None:
        model.to(device)
    for i, delta in enumerate(made):
        deltas.install(model, delta, precision=getattr(torch, state.precision))
        for tensor, value in after[i].items() if after else ():
            model.get_parameter(tensor).data.copy_(value)  # bit for bit, also if this machine adds up in another order
    return model, tokenizer


def load_deltas(state: State, known: Sequence[Saved]) -> list[Delta]:
    """The deltas of a folder, oldest first, each knowing which one it continues."""
    there = kinds()
    made: list[Delta] = []
    for one in known:
        delta = deltafiles.load(state.edit(one.number) / disk.DELTA, there, expected=one.digest)
        if one.continues is not None:
            delta.continues = made[one.continues - 1]
        made.append(delta)
    return made


def _unwind(state: State, known: Sequence[Saved], model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """Takes all edits off a model loaded from a folder; returns, for each, the matrices as it had left them."""
    after: list[dict[str, torch.Tensor]] = []
    for one in reversed(known):
        after.append({name: model.get_parameter(name).detach().clone() for name in one.weights})
        for name, value in checking.originals(state, one).items():
            model.get_parameter(name).data.copy_(value)
    return after[::-1]
