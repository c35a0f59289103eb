"""A model from wherever it is: a folder, a .gguf file, a hub id, or a folder of edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.deltas import WeightDelta
from engramlab.editing.folders import disk, loading, precision


def load_model(
    name: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    base: str | None = None,
    tokenizer: str | None = None,
) -> tuple[Any, Any]:
    """A model and its tokenizer; of an edited folder the edited model, whose edits can be taken off again.

    Args:
        name: a model folder, a .gguf file, a hub id such as ``owner/name``, or a folder that ``engramlab edit`` wrote.
        dtype: "float32" or "bfloat16"; by default that of the edited folder, or float32 (with the values that bfloat16 has for
            a .gguf file, whose few bits need no more, so that edits of it are kept in half the space).
        device: "cpu", "cuda", "cuda:1" ...; by default a GPU where there is one.
        base: for a folder of edits alone, or a PEFT adapter's: where the model it is for is now, if not where it was.
        tokenizer: where to take the tokenizer from, if not from there; of an edited folder it is its own.

    Raises:
        UserError: there is no such model or device, or the edits were made in another number type.
    """
    at = place(device)
    if not disk.is_edited(name):
        kind = getattr(torch, dtype or "float32")
        model, words = models.load(name, dtype=kind, device=at, base=base, tokenizer=tokenizer)
        if Path(name).suffix == ".gguf":
            model.config._name_or_path = str(Path(name).expanduser().resolve())  # type: ignore[union-attr]
            if dtype is None:
                precision.rounded(model, precision.OF_GGUF)
        return model, words
    if tokenizer:
        raise UserError(f"--tokenizer {tokenizer}: {name} has edits, made with its own; leave the option out")
    state = disk.read(name)
    if dtype is not None and dtype != state.dtype:
        raise UserError(f"--dtype {dtype}: the edits in {name} were made in {state.dtype}; leave the option out")
    return loading.load(name, device=at, base=base)


def check_there(name: str) -> None:
    """Raises UserError where there is no such model, or an edited folder that is damaged. Nothing is loaded."""
    if disk.is_edited(name):
        disk.read(name)
    else:
        models.load_config(name)


def in_weights(name: str) -> bool:
    """Is all that a model says in its weights, as plain transformers reads them?

    Not in a folder of edits alone, nor in one with edits that stand beside the weights (GRACE's, WISE's, MELO's, IKE's): what
    reads its weights alone would read the unedited model.
    """
    if not disk.is_edited(name):
        return True
    state = disk.read(name)
    kinds = {disk.saved(state, number).kind for number in range(1, state.edits + 1)}
    return not state.delta_only and kinds <= {WeightDelta.kind}


def require_in_weights(option: str, name: str) -> None:
    """Raises UserError for a model that is more than its weights, where it is to be trained."""
    if not in_weights(name):
        raise UserError(
            f"{option}: {name} has edits beside its weights, which training would not see; give the model without them, or "
            "edits that are in the weights (ft-m, lora, rome, memit) with the weights"
        )


def place(device: str | None) -> str:
    """The device of that name, by default a GPU where there is one.

    Raises:
        UserError: it is not there.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--device {device}: not there ({first}); give cpu, or a GPU such as cuda or cuda:0") from None
    return device
