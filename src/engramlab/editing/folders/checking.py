"""Is an edited folder, bit for bit, what was written there? Every tensor and every file is named that is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.deltas.files import digest_of, digest_of_file
from engramlab.editing.folders import disk, precision
from engramlab.editing.folders.disk import Saved, State


def check(state: State, known: Sequence[Saved]) -> None:
    """Reads all of ``model.safetensors`` once, and every file beside it.

    Args:
        known: all edits in effect.

    Raises:
        UserError: a tensor or a file is not what it was when the last of them was saved.
    """
    for name, digest in state.files.items():
        path = state.folder / name
        if not path.is_file() or digest_of_file(path) != digest:
            raise UserError(
                f"{path} is {'damaged: it is not what was written there' if path.exists() else 'missing'}; take it from a copy "
                f"(or, if you changed it on purpose, delete its line in {disk.ABOUT})"
            )
    wanted = _wanted(state, known)
    if state.delta_only:
        return
    from safetensors import SafetensorError, safe_open

    path, by = state.folder / disk.WEIGHTS, {name: one.number for one in known for name in one.weights}
    try:
        with safe_open(str(path), "pt") as file:
            there = set(file.keys())
            if lost := sorted(wanted.keys() - there):
                raise UserError(f"{path} is missing or damaged (it has no {lost[0]}); take it from a copy")
            for name in sorted(there if state.unedited else wanted):
                if digest_of(file.get_tensor(name)) != wanted.get(name):
                    raise _changed(state, name, by.get(name))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); take it from a copy") from None


def check_base(state: State, model: nn.Module, name: str) -> None:
    """Raises UserError unless ``model``, loaded from ``name``, is the unedited one that a folder of deltas alone is for."""
    now = unedited(model, state.precision) if state.unedited else {}
    other = next((tensor for tensor, digest in state.unedited.items() if now.get(tensor) != digest), None)
    if other is not None:
        raise UserError(
            f"{name}: this is not the model that the edits in {state.folder} were made for ({other} differs); say with "
            "--base where that one is"
        )


def with_digests(state: State, before: Mapping[str, str]) -> State:
    """The state of a whole model in ``state.folder`` with digests of its tensors and files, which are read once.

    Args:
        before: digests of those tensors that edits have changed, as they were before the first.
    """
    from safetensors import safe_open

    folder = state.folder
    with safe_open(str(folder / disk.WEIGHTS), "pt") as file:
        tensors = {name: before.get(name) or digest_of(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    beside = (p for p in sorted(folder.rglob("*")) if p.is_file() and folder / disk.EDITS not in p.parents)
    files = {p.relative_to(folder).as_posix(): digest_of_file(p) for p in beside if p.name != disk.WEIGHTS}
    return dataclasses.replace(state, files=files, unedited=tensors)


def unedited(model: nn.Module, kind: str) -> dict[str, str]:
    """By name, digests of a model's parameters in that number type, as they were before any delta that is on it."""
    return {name: digest_of(value.to(getattr(torch, kind))) for name, value in precision.unedited(model).items()}


def originals(state: State, one: Saved) -> dict[str, torch.Tensor]:
    """The matrices an edit overwrote, by tensor name. Raises UserError unless they are, bit for bit, what was kept."""
    path = state.edit(one.number) / disk.ORIGINALS
    found = disk.read_tensors(path, one.weights)
    for name, tensor in found.items():
        if digest_of(tensor) != one.weights[name]["before"]:
            raise UserError(f"{path} is damaged: {name} is not the matrix that was kept there; take it from a copy")
    return found


def _wanted(state: State, known: Sequence[Saved]) -> dict[str, str]:
    """The digest each tensor should have; in format 1, of those that an edit has changed alone."""
    now = dict(state.unedited)
    for one in known:
        for name, digests in one.weights.items():
            if now.get(name, digests["before"]) != digests["before"]:
                raise UserError(
                    f"{state.edit(one.number)} is damaged: {name} was another one before this edit; take the folder from a copy"
                )
            now[name] = digests["after"]
    return now


def _changed(state: State, name: str, edit: int | None) -> UserError:
    left = f"edit {edit} left there" if edit else "it was in the unedited model"
    return UserError(
        f"{state.folder}: {name} is not what {left}; the weights were changed since by something else, so the edits cannot be "
        f"taken off bit for bit. Take {disk.WEIGHTS} from a copy, or edit the original model ({state.base}) again"
    )
