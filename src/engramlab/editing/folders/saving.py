"""Edited models kept in a folder: saved, loaded with their edits on them, and taken back edit by edit, bit for bit.

``transformers`` loads such a folder like any model. What only exists while the model runs (a codebook, demonstrations) is put
on it by ``load``; plain ``transformers`` sees the weights alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas, models
from engramlab.core.deltas import Installed, WeightDelta, stack_of
from engramlab.core.deltas import files as deltafiles
from engramlab.editing.folders import card, checking, companions
from engramlab.editing.folders import disk as folders
from engramlab.editing.folders import precision as choice
from engramlab.editing.folders.disk import EditRecord, Saved, State, is_edited
from engramlab.editing.folders.loading import load, load_deltas
from engramlab.files import writing
from engramlab.files.locks import held, place, vacant

OTHER_OUT = " or choose another --out"
__all__ = [
    "OTHER_OUT",
    "EditRecord",
    "Saved",
    "check_out",
    "is_edited",
    "listing",
    "load",
    "load_deltas",
    "save",
    "undo",
]


def save(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    records: Sequence[EditRecord] = (),
    source: str | Path | None = None,
    base: str = "",
    delta_only: bool = False,
    precision: str | None = None,
) -> Path:
    """Saves a model with all the deltas that are on it.

    ``folder`` may be the edited folder that the model was loaded from: what is new on the model is added to it, and a process
    killed meanwhile leaves the old or the new state. Any other folder must not exist, or be empty.

    Args:
        records: what is known about the newest deltas, oldest first; one a delta, from the end.
        source: the edited folder the model was loaded from, to take over what is known about its edits.
        base: where the unedited model is: a path or hub id. By default what it was loaded from.
        delta_only: no weights; ``load`` reads the unedited model from ``base`` again.
        precision: number type to keep the weights in, for a new folder; see ``precision.chosen``.

    Returns:
        The folder.

    Raises:
        UserError: no delta is on the model, the folder holds something else or other edits, the disk is full.
    """
    folder = Path(folder).expanduser()
    entries = _entries(model)
    if not entries:
        raise UserError("there is nothing to save: no edit is on the model")
    with held(folder, OTHER_OUT):
        older = folders.read(source) if source is not None else None
        check_out(folder, folder if folders.is_edited(folder) else source, delta_only=delta_only)
        if folders.is_edited(folder):
            _append(folders.read(folder), model, entries, records)
        else:
            _save_new(model, tokenizer, folder, entries, records, older, base, delta_only, precision)
    return folder


def _save_new(
    model: nn.Module,
    tokenizer: Any,
    folder: Path,
    entries: Sequence[Installed],
    records: Sequence[EditRecord],
    older: State | None,
    base: str,
    delta_only: bool,
    precision: str | None,
) -> None:
    known = [folders.saved(older, k + 1).record for k in range(_alike(older, entries))] if older else []
    name = base or (older.base if older else "") or str(getattr(model.config, "_name_or_path", ""))
    if delta_only and not name:
        raise UserError("a delta alone needs to know the model it is for: give base=, a path or a hub id")
    kind = older.precision if older is not None else choice.chosen(model, name, precision)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    state = State(folder, name, deltas.fingerprint(model), dtype, kind, delta_only)
    of = [*known, *[EditRecord()] * (len(entries) - len(known))]
    of[len(entries) - len(records) :] = records
    files_of = str(older.folder) if older is not None and not older.delta_only else name

    def write(partial: Path) -> None:
        now = dataclasses.replace(state, folder=partial)
        before: dict[str, str] = {}
        for number, record in enumerate(of, 1):
            now, one = _write_edit(now, model, entries, number, record)
            before = {name: digests["before"] for name, digests in one.weights.items()} | before
        if delta_only:
            now = dataclasses.replace(now, unedited=checking.unedited(model, kind))
        else:
            _write_weights(model, partial, getattr(torch, kind))
            companions.write(model, tokenizer, files_of, partial, kind)
            now = checking.with_digests(now, before)
        folders.write_about(now)
        card.write(now)

    writing.write_folder(folder, write)


def listing(folder: str | Path) -> list[Saved]:
    """The edits that are in effect in a folder, oldest first. Raises UserError: no edited folder, or a damaged one."""
    return folders.listing(folders.read(folder))


def undo(folder: str | Path, *, last: int | None = None, to: int | None = None, edit: int | None = None) -> list[Saved]:
    """Takes edits off again, the newest first; the weights are then what they were before, bit for bit.

    No model is loaded, unless one edit is taken out from under later ones. A process killed meanwhile leaves the old or the new
    state.

    Args:
        last: how many to take off (1 if nothing else is given).
        to: how many to leave: 0 gives the unedited model.
        edit: the number of one to take off alone; what later ones change is put on the model without it, as it was made.

    Returns:
        What was taken off, newest first.

    Raises:
        UserError: no edited folder, no such edits, one that a later one goes on from, a damaged file, or weights that something
            else has changed since.
    """
    if sum(given is not None for given in (last, to, edit)) > 1:
        raise UserError(
            "give either how many edits to undo (--last), how many to leave (--to) or which one to take off (--edit), not both"
        )
    state = folders.read(folder)
    with held(state.folder):
        state = folders.read(folder)
        if not state.edits:
            raise UserError(f"{state.folder} has no edit to undo: it is the unedited model {state.base}")
        left = state.edits - (1 if last is None else last) if to is None else to
        if not 0 <= left < state.edits or edit not in (None, *range(1, state.edits + 1)):
            wrong = f"--last {last}" if to is None else f"--to {to}"
            fine = f"1 to {state.edits}" if to is None else f"0 to {state.edits - 1}"
            raise UserError(
                f"{wrong if edit is None else f'--edit {edit}'}: {state.folder} has {state.edits} "
                f"edit{'s' * (state.edits > 1)}; give {fine}"
            )
        known = folders.listing(state)
        if edit not in (None, state.edits):
            _take_out(state, known, known[edit - 1])
            return [known[edit - 1]]
        checking.check(state, known)
        gone = known[left:][::-1]
        changes: dict[str, torch.Tensor] = {}
        for one in gone:
            changes |= checking.originals(state, one)
        _commit(dataclasses.replace(state, records=state.records[:left]), changes)
    return gone


def _take_out(state: State, known: Sequence[Saved], gone: Saved) -> None:
    """Takes one edit off, and puts the later ones on again without it."""
    for one in known[gone.number :]:
        if one.continues == gone.number:
            raise UserError(
                f"--edit {gone.number}: edit {one.number} ({one.record.method or one.kind}) goes on from it and holds its work "
                f"too, so they come off newest first (--to {gone.number - 1})"
            )
    later = known[gone.number :]
    folders.tidy(state)
    new = dataclasses.replace(state, records=state.records[: gone.number - 1])
    model = nn.Module()
    if state.delta_only:
        entries = [Installed(model, delta) for delta in load_deltas(state, known)]
        del entries[gone.number - 1]
    else:
        model, _ = load(state.folder)
        off = _entries(model)[gone.number - 1 :]
        for entry in reversed(off):
            entry.remove()
        for delta in [entry.delta for entry in off[1:] if entry.delta is not None]:
            deltas.install(model, delta, precision=getattr(torch, state.precision))
        entries = _entries(model)
    for number, one in enumerate(later, gone.number):
        new, _ = _write_edit(new, model, entries, number, one.record)
    changes = {} if state.delta_only else {n: _weight(model, n) for one in (gone, *later) for n in one.weights}
    _commit(new, changes)


def check_out(out: Path, source: str | Path | None, *, delta_only: bool) -> None:
    """Raises UserError unless edits may be saved in ``out``: a new or empty folder, or ``source``, which they go on from."""
    if folders.is_edited(out):
        if source is None or out.resolve() != Path(source).expanduser().resolve():
            raise UserError(
                f"{out} holds edits already; to add to them give it as the model too (--model {out} --out {out}), or choose "
                "another --out"
            )
        if folders.read(out).delta_only != delta_only:
            holds, asked = (
                ("deltas alone", "the whole model") if not delta_only else ("the whole model", "deltas alone")
            )
            raise UserError(f"{out} holds {holds}, {asked} cannot be added there; choose another --out")
    elif not vacant(place(out)):
        raise UserError(f"{out} exists and is no edited folder; choose another --out, it will be made")
    elif source is not None and out.resolve().is_relative_to(Path(source).expanduser().resolve()) and is_edited(source):
        raise UserError(f"{out} is inside {source}; choose another --out")


def _append(state: State, model: nn.Module, entries: Sequence[Installed], records: Sequence[EditRecord]) -> None:
    """Adds to a folder what is on the model beyond it."""
    known = _alike(state, entries)
    if known < state.edits or deltas.fingerprint(model) != state.model:
        raise UserError(
            f"{state.folder} holds edits that are not on this model (or not in this order); load the folder, edit that model, "
            "and save it there"
        )
    of = [*[EditRecord()] * len(entries), *records][-len(entries) :]
    changes: dict[str, torch.Tensor] = {}
    folders.tidy(state)
    new = state
    for number in range(known + 1, len(entries) + 1):
        new, _ = _write_edit(new, model, entries, number, of[number - 1])
        if not state.delta_only:
            changes |= {_tensor(path): _weight(model, _tensor(path)) for path in entries[number - 1].originals}
    for name, value in folders.read_tensors(state.folder / folders.WEIGHTS, changes).items():
        if value.shape != changes[name].shape:
            raise UserError(f"{state.folder}: {name} has another shape than the model's; choose another --out")
    _commit(new, changes)


def _commit(state: State, changes: dict[str, torch.Tensor]) -> None:
    folders.commit(state, changes)
    card.write(state)


def _write_weights(model: nn.Module, folder: Path, kind: torch.dtype) -> None:
    """``model.safetensors`` in that number type, and the config beside it."""
    cast: dict[tuple[int, torch.Size], torch.Tensor] = {}  # tied weights stay one tensor

    def of(value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        return cast.setdefault((value.data_ptr(), value.shape), value.to(kind))

    values = {name: of(value) for name, value in model.state_dict().items()}
    with models.quiet():  # one file, whatever its size: it can be replaced in one go
        model.save_pretrained(str(folder), state_dict=values, max_shard_size=1 << 60)  # type: ignore[operator]


def _write_edit(
    state: State, model: nn.Module, entries: Sequence[Installed], number: int, record: EditRecord
) -> tuple[State, Saved]:
    """The folder of one edit, whole or not at all; the state with it."""
    from safetensors.torch import save_file

    entry, kind = entries[number - 1], getattr(torch, state.precision)
    delta = entry.delta
    assert delta is not None
    later = entries[number:]
    kept = {_tensor(path): value.detach().to("cpu", kind).contiguous() for path, value in entry.originals.items()}
    after = {
        _tensor(path): next((e.originals[path] for e in later if path in e.originals), _weight(model, _tensor(path)))
        for path in entry.originals
    }
    weights = {
        name: {"before": deltafiles.digest_of(value), "after": deltafiles.digest_of(after[name].to(kind))}
        for name, value in kept.items()
    }
    continues = next((i for i, e in enumerate(entries, 1) if e.delta is delta.continues), None)
    about = Saved(number, record, delta.kind, deltafiles.digest(delta), continues, {} if state.delta_only else weights)
    there = state.next_edit()

    def write(partial: Path) -> None:
        deltafiles.save(delta, partial / folders.DELTA)
        if not state.delta_only and kept:
            save_file(kept, str(partial / folders.ORIGINALS))
        folders.write_saved(partial, about)

    writing.write_folder(there, write)
    made = there.name, deltafiles.digest_of_file(there / folders.EDIT)
    return dataclasses.replace(state, records=(*state.records, made)), about


def _alike(state: State, entries: Sequence[Installed]) -> int:
    """How many of a folder's edits are, in this order, the first ones on the model."""
    for number in range(1, state.edits + 1):
        delta = entries[number - 1].delta if number <= len(entries) else None
        if delta is None or folders.saved(state, number).digest != deltafiles.digest(delta):
            return number - 1
    return state.edits


def _entries(model: nn.Module) -> list[Installed]:
    """What is on a model, oldest first; it must be possible to take each off by itself."""
    stack = stack_of(model)
    entries = list(stack.entries) if stack is not None else []
    for entry in entries:
        if entry.delta is None or not entry.undo:
            raise UserError("only edits that can be taken off again can be saved: install them with undo, not together")
        if isinstance(entry.delta, WeightDelta):
            for path in entry.delta.changes:
                _weight(model, _tensor(path))
    return entries


def _tensor(path: str) -> str:
    """Name of a module's weight in the model's file."""
    return f"{path}.weight"


def _weight(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_parameter(name)
