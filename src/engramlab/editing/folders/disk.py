"""Edited folders as files: what is in them, which state they are in, and changing that state without ever being in between.

::

    edited/config.json, model.safetensors, tokenizer.json, ...   the edited model, as transformers has it
    edited/engramlab.json                                        the model it comes from, how many edits it has
    edited/edits/0001/edit.json, delta/, originals.safetensors   what was asked and answered; the delta; what it overwrote

With a delta alone there are ``engramlab.json`` and ``edits/`` only, without originals. A change of state writes everything it
needs beside what is there, then replaces ``model.safetensors`` (one file, so that whoever reads it sees the old or the new
weights), then ``engramlab.json``. Both carry the same serial; where a process was killed between, the weights are right.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core.deltas.files import digest_of
from engramlab.files import runs, writing

ABOUT, WEIGHTS, _NEXT = "engramlab.json", "model.safetensors", ".weights-next"
EDITS, EDIT, DELTA, ORIGINALS = "edits", "edit.json", "delta", "originals.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class State:
    """What an edited folder is.

    Attributes:
        base: the model it comes from, as it was given: a path or a hub id.
        model: fingerprint of that model.
        dtype: of its weights, ``float32`` or ``bfloat16``.
        delta_only: are there no weights in it?
        edits: how many edits (calls, each of one or several facts) are in effect.
    """

    folder: Path
    base: str
    model: str
    dtype: str
    delta_only: bool
    edits: int

    def edit(self, number: int) -> Path:
        """The folder of an edit; they are numbered from 1."""
        return self.folder / EDITS / f"{number:04d}"


@dataclass(frozen=True)
class EditRecord:
    """What is known about an edit beside the delta.

    Attributes:
        config: the method's hyperparameters; ``loss_settings``: those of the loss.
        rows: before and after, as ``evaluation.judge`` gives them.
        failed: edits that could not be made: ``{"edit", "reason"}``.
    """

    __repr__ = brief

    method: str = ""
    loss: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    loss_settings: dict[str, Any] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    failed: tuple[dict[str, str], ...] = ()
    created: str = ""
    command: str = ""


@dataclass(frozen=True)
class Saved:
    """An edit in a folder.

    Attributes:
        number: 1 for the first.
        kind: of its delta.
        digest: of its delta.
        continues: number of the edit whose delta this one takes over from.
        weights: by tensor name, digests of the matrix ``before`` and ``after`` the edit; empty where it changes none.
    """

    number: int
    record: EditRecord
    kind: str
    digest: str
    continues: int | None
    weights: dict[str, dict[str, str]]


def is_edited(folder: str | Path) -> bool:
    """Is this an edited folder?"""
    return (Path(folder).expanduser() / ABOUT).is_file()


def read(folder: str | Path) -> State:
    """The state a folder is in. Raises UserError: no edited folder, or a damaged one."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give one that engramlab edit has written")
    if not is_edited(folder):
        raise UserError(f"{folder} is no edited folder (it has no {ABOUT}); give one that engramlab edit has written")
    about = _json(folder / ABOUT)
    try:
        base, weights, edits = about["base"], about["weights"], int(about["edits"])
        state = State(folder, base["name"], base["fingerprint"], base["dtype"], bool(about["delta_only"]), edits)
        form = about["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / ABOUT} is damaged ({type(error).__name__}: {error}); take it from a copy") from None
    if form != _FORMAT:
        raise UserError(
            f"{folder}: its format is {form!r}, this engramlab reads {_FORMAT}{runs.written_by(about)}; use the version that "
            "wrote it"
        )
    if not state.delta_only:
        found = _metadata(folder)
        if found.get("engramlab.serial", "") != weights and "engramlab.edits" in found:
            state = dataclasses.replace(state, edits=int(found["engramlab.edits"]))
    for number in range(1, state.edits + 1):
        if not (state.edit(number) / EDIT).is_file():
            raise UserError(
                f"{folder} is damaged: edit {number} of {state.edits} is missing ({state.edit(number) / EDIT})"
            )
    return state


def saved(state: State, number: int) -> Saved:
    """What is known about an edit. Raises UserError for a damaged file."""
    values = _json(path := state.edit(number) / EDIT)
    try:
        given: dict[str, Any] = dict(values["record"])
        given["edits"] = tuple(map(_edit, given["edits"]))
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        record = EditRecord(**fields)
        return Saved(number, record, values["kind"], values["digest"], values["continues"], values["weights"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); take it from a copy") from None


def write_saved(folder: Path, one: Saved) -> None:
    """Writes ``edit.json``."""
    values = {name: value for name, value in vars(one).items() if name != "record"}
    record = {**vars(one.record), "edits": [dataclasses.asdict(edit) for edit in one.record.edits]}
    writing.write_json(folder / EDIT, runs.plain({**values, "record": record}))


def write_about(state: State, serial: str = "") -> None:
    """Writes ``engramlab.json``: from here on the folder is in this state."""
    writing.write_json(
        state.folder / ABOUT,
        {
            "format": _FORMAT,
            "base": {"name": state.base, "fingerprint": state.model, "dtype": state.dtype},
            "delta_only": state.delta_only,
            "edits": state.edits,
            "weights": serial,
            "versions": runs.versions(),
        },
    )


def commit(state: State, changes: Mapping[str, torch.Tensor]) -> None:
    """Brings a folder into a state; edits up to ``state.edits`` have been written, what is beyond goes.

    Args:
        changes: new values of tensors of ``model.safetensors``.

    Raises:
        UserError: the disk is full; the folder is in the state that it was in.
    """
    if changes:
        _replace_weights(state, changes)
    write_about(state, "" if state.delta_only else _metadata(state.folder).get("engramlab.serial", ""))
    tidy(state)


def tidy(state: State) -> None:
    """Removes what a killed process left, and edits that are no longer in effect."""
    good = {state.edit(number).name for number in range(1, state.edits + 1)}
    for path in [*(state.folder / EDITS).glob("*"), *state.folder.glob("*.partial"), state.folder / _NEXT]:
        if path.parent.name == EDITS and path.name in good:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def tensors(state: State, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """These tensors of ``model.safetensors``. Raises UserError for one that is not there."""
    return _read_tensors(state.folder / WEIGHTS, list(names))


def originals(state: State, one: Saved) -> dict[str, torch.Tensor]:
    """The matrices an edit overwrote, by tensor name. Raises UserError unless they are, bit for bit, what was kept."""
    path = state.edit(one.number) / ORIGINALS
    found = _read_tensors(path, list(one.weights))
    for name, tensor in found.items():
        if digest_of(tensor) != one.weights[name]["before"]:
            raise UserError(f"{path} is damaged: {name} is not the matrix that was kept there; take it from a copy")
    return found


def check_untouched(state: State, one: Saved, now: Mapping[str, torch.Tensor]) -> None:
    """Raises UserError unless ``now``, the matrices of the model, are what an edit left them as."""
    for name, hashes in one.weights.items():
        if digest_of(now[name]) != hashes["after"]:
            raise UserError(
                f"{state.folder}: {name} is not what edit {one.number} left there; the weights were changed since by something "
                "else, so it cannot be taken off bit for bit. Take model.safetensors from a copy, or edit the original model "
                f"({state.base}) again"
            )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); take it from a copy") from None


def _replace_weights(state: State, changes: Mapping[str, torch.Tensor]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, beside = state.folder / WEIGHTS, state.folder / _NEXT

    def write(partial: Path) -> None:
        with safe_open(str(path), "pt") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values |= {name: tensor.detach().cpu().contiguous() for name, tensor in changes.items()}
        more = {"engramlab.edits": str(state.edits), "engramlab.serial": uuid.uuid4().hex}
        save_file(values, str(partial / WEIGHTS), metadata={"format": "pt", **_metadata(state.folder), **more})

    writing.write_folder(beside, write)
    shutil.copymode(path, beside / WEIGHTS)
    os.replace(beside / WEIGHTS, path)
    beside.rmdir()


def _metadata(folder: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(folder / WEIGHTS), "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} is missing or damaged ({error}); take it from a copy") from None


def _read_tensors(path: Path, names: list[str]) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    if not names:
        return {}
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); take it from a copy") from None


def _edit(values: Mapping[str, Any]) -> Edit:
    def query(given: Mapping[str, Any]) -> Query:
        return Query(**{**given, "aliases": tuple(given["aliases"])})

    judges = tuple(map(query, values["judges"]))
    return Edit(query(values["query"]), values["target"], tuple(values["aliases"]), judges)
