"""Edited folders as files: what is in them, which state they are in, and changing that state without ever being in between.

::

    edited/config.json, model.safetensors, tokenizer.json, ...   the edited model, as transformers has it
    edited/engramlab.json                                        the model it comes from, the edits in effect, digests
    edited/edits/0001/edit.json, delta/, originals.safetensors   what was asked and answered; the delta; what it overwrote

With a delta alone there are ``engramlab.json`` and ``edits/`` only, without originals. A change of state writes everything it
needs beside what is there, then replaces ``model.safetensors`` (one file, so that whoever reads it sees the old or the new
weights), then ``engramlab.json``. Both carry the same serial; where a process was killed between, the weights are right.

``engramlab.json`` has a digest of every tensor of the unedited model, of every file beside the weights and of every
``edit.json``, which has those of its delta and of the matrices before and after: ``checking`` holds a folder to them. A folder
of format 1 has the last kind alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
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
from engramlab.core.deltas.files import digest_of_file
from engramlab.files import runs, writing

ABOUT, WEIGHTS, _NEXT = "engramlab.json", "model.safetensors", ".weights-next"
EDITS, EDIT, DELTA, ORIGINALS = "edits", "edit.json", "delta", "originals.safetensors"
_FORMATS = (1, 2)
_DTYPES = ("float32", "bfloat16", "float16")
_WHEN = ("before", "after")


@dataclass(frozen=True)
class State:
    """What an edited folder is.

    Attributes:
        base: the model it comes from, as it was given: a path or a hub id.
        model: fingerprint of that model.
        dtype: number type that the edits were made and are loaded in, such as ``float32``.
        precision: number type that the weights are kept in; the unedited ones are exact in it.
        delta_only: are there no weights in it?
        records: the edits (calls, each of one or several facts) in effect, oldest first: (name of its folder, digest of its
            ``edit.json``, "" in format 1).
        unedited: by name, digests of the tensors of the unedited model.
        files: by name, digests of the files beside the weights.
    """

    folder: Path
    base: str
    model: str
    dtype: str
    precision: str
    delta_only: bool
    records: tuple[tuple[str, str], ...] = ()
    unedited: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def edits(self) -> int:
        """How many edits are in effect."""
        return len(self.records)

    def edit(self, number: int) -> Path:
        """The folder of an edit; they are numbered from 1."""
        return self.folder / EDITS / self.records[number - 1][0]

    def next_edit(self) -> Path:
        """A folder for one more edit, where none is."""
        there = [int(path.name) for path in (self.folder / EDITS).glob("*") if path.name.isdecimal()]
        return self.folder / EDITS / f"{max(there, default=0) + 1:04d}"


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
        if about["format"] not in _FORMATS:
            raise UserError(
                f"{folder}: its format is {about['format']!r}, this engramlab reads {_FORMATS[0]} to {_FORMATS[-1]}"
                f"{runs.written_by(about)}; use the version that wrote it"
            )
        base, now = about["base"], about["format"] > 1
        state = State(
            folder,
            _text(base["name"]),
            _text(base["fingerprint"]),
            _text(base["dtype"], *_DTYPES),
            _text(base["precision" if now else "dtype"], *_DTYPES),
            about["delta_only"] is True,
            _records(about["edits"]) if now else _numbered(about["edits"]),
            _digests(about["unedited"]) if now else {},
            _digests(about["files"]) if now else {},
        )
        serial = _text(about["weights"])
        if state.unedited and not all(digest for _, digest in state.records):
            raise ValueError("an edit has no digest")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / ABOUT} is damaged ({type(error).__name__}: {error}); take it from a copy") from None
    if not state.delta_only:
        found = metadata(folder)
        if found.get("engramlab.serial", "") != serial and "engramlab.edits" in found:
            try:
                value = json.loads(found["engramlab.edits"])
                records = _records(value) if isinstance(value, list) else _numbered(value)
                state = dataclasses.replace(state, records=records)
            except (RecursionError, TypeError, ValueError) as error:
                raise UserError(f"{folder / WEIGHTS} is damaged ({error}); take it from a copy") from None
    for number in range(1, state.edits + 1):
        if not (state.edit(number) / EDIT).is_file():
            raise UserError(
                f"{folder} is damaged: edit {number} of {state.edits} is missing ({state.edit(number) / EDIT})"
            )
    return state


def saved(state: State, number: int) -> Saved:
    """What is known about an edit. Raises UserError for a damaged file."""
    path, digest = state.edit(number) / EDIT, state.records[number - 1][1]
    values = _json(path)
    if digest and digest_of_file(path) != digest:
        raise UserError(f"{path} is damaged: it is not what was written there; take it from a copy")
    try:
        given: dict[str, Any] = dict(values["record"])
        given["edits"] = tuple(map(_edit, given["edits"]))
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        record, continues = EditRecord(**fields), values["continues"]
        if continues is not None and not 0 < continues < number:
            raise ValueError(f"it cannot continue edit {continues}")
        weights = {name: {when: _text(h[when]) for when in _WHEN} for name, h in values["weights"].items()}
        return Saved(number, record, _text(values["kind"]), _text(values["digest"]), continues, weights)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); take it from a copy") from None


def listing(state: State) -> list[Saved]:
    """The edits in effect, oldest first. Raises UserError for a damaged file."""
    return [saved(state, number) for number in range(1, state.edits + 1)]


def write_saved(folder: Path, one: Saved) -> None:
    """Writes ``edit.json``."""
    values = {name: value for name, value in vars(one).items() if name != "record"}
    record = {**vars(one.record), "edits": [dataclasses.asdict(edit) for edit in one.record.edits]}
    writing.write_json(folder / EDIT, runs.plain({**values, "record": record}))


def write_about(state: State, serial: str = "") -> None:
    """Writes ``engramlab.json``: from here on the folder is in this state."""
    base = {"name": state.base, "fingerprint": state.model, "dtype": state.dtype, "precision": state.precision}
    writing.write_json(
        state.folder / ABOUT,
        {
            "format": _FORMATS[-1],
            "base": base,
            "delta_only": state.delta_only,
            "edits": state.records,
            "weights": serial,
            "versions": runs.versions(),
            "files": state.files,
            "unedited": state.unedited,
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
    write_about(state, "" if state.delta_only else metadata(state.folder).get("engramlab.serial", ""))
    tidy(state)


def tidy(state: State) -> None:
    """Removes what a killed process left, and edits that are no longer in effect."""
    good = {name for name, _ in state.records}
    for path in [*(state.folder / EDITS).glob("*"), *state.folder.glob("*.partial"), state.folder / _NEXT]:
        if path.parent.name == EDITS and path.name in good:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); take it from a copy") from None


def _replace_weights(state: State, changes: Mapping[str, torch.Tensor]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, beside = state.folder / WEIGHTS, state.folder / _NEXT

    def write(partial: Path) -> None:
        with safe_open(str(path), "pt") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values |= {n: tensor.detach().to("cpu", values[n].dtype).contiguous() for n, tensor in changes.items()}
        more = {"engramlab.edits": json.dumps(state.records), "engramlab.serial": uuid.uuid4().hex}
        save_file(values, str(partial / WEIGHTS), metadata={"format": "pt", **metadata(state.folder), **more})

    writing.write_folder(beside, write)
    shutil.copymode(path, beside / WEIGHTS)
    os.replace(beside / WEIGHTS, path)
    beside.rmdir()


def metadata(folder: Path) -> dict[str, str]:
    """What ``model.safetensors`` says of itself. Raises UserError where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(folder / WEIGHTS), "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS} is missing or damaged ({error}); take it from a copy") from None


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """These tensors of a safetensors file. Raises UserError for one that is not there, or a damaged file."""
    from safetensors import SafetensorError, safe_open

    if not (wanted := list(names)):
        return {}
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); take it from a copy") from None


def _text(value: Any, *allowed: str) -> str:
    if not isinstance(value, str) or (allowed and value not in allowed):
        raise ValueError(f"{value!r:.80} is not what belongs there")
    return value


def _digests(values: Any) -> dict[str, str]:
    return {_text(name): _text(digest) for name, digest in values.items()}


def _records(value: Any) -> tuple[tuple[str, str], ...]:
    """The edits in effect: (folder, digest)."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80} is no list of edits")
    found = tuple((_text(name), _text(digest)) for name, digest in value)
    if not all(re.fullmatch(r"\d{4,6}", name) for name, _ in found):
        raise ValueError("an edit's folder has a name of digits")
    return found


def _numbered(value: Any) -> tuple[tuple[str, str], ...]:
    """The same, of their number, as format 1 has it."""
    if not 0 <= int(value) < 1_000_000:
        raise ValueError(f"{value!r:.80} is no number of edits")
    return tuple((f"{number:04d}", "") for number in range(1, int(value) + 1))


def _edit(values: Mapping[str, Any]) -> Edit:
    def query(given: Mapping[str, Any]) -> Query:
        return Query(**{**given, "aliases": tuple(given["aliases"])})

    judges = tuple(map(query, values["judges"]))
    later = {name: values.get(name, "") for name in ("stop", "statement")}  # which older folders do not have
    wordings = tuple(values.get("wordings", ()))
    return Edit(query(values["query"]), values["target"], tuple(values["aliases"]), judges, **later, wordings=wordings)
