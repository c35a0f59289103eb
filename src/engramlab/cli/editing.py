"""The editing commands: ``engramlab edit | undo | merge | edits list``. Heavy libraries load only where used."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engramlab.base.errors import UserError
from engramlab.cli import edit_options
from engramlab.cli.options import take, wants_help

if TYPE_CHECKING:
    from engramlab.core.training.losses import Loss


@dataclass(frozen=True)
class UndoOptions:
    """Takes edits off again, the newest first; the weights are then what they were before, bit for bit."""

    folder: Annotated[Path, "positional"]
    """A folder that engramlab edit wrote."""
    last: int | None = None
    """How many edits to take off; 1 by default."""
    to: int | None = None
    """How many edits to leave; 0 gives the unedited model."""


@dataclass(frozen=True)
class MergeOptions:
    """One model with the edits of several folders that were made on the same model; the changes of weights are summed."""

    folders: Annotated[tuple[Path, ...], "positional"]
    """Folders that engramlab edit wrote."""
    delta_only: bool = False
    """Save what the edits changed, not the model."""
    device: str | None = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""


def edit(given: list[str]) -> None:
    """``engramlab edit``."""
    from engramlab.cli import edit_tables as tables
    from engramlab.core import deltas
    from engramlab.core.training import losses
    from engramlab.editing import change, method
    from engramlab.editing.changing import check
    from engramlab.editing.folders import saving

    rest, name = take(given or ["--help"], "--method", edit_options.METHOD)
    rest, chosen = take(rest, "--loss", None)
    loss_name = chosen or edit_options.LOSS
    rest, out_name = take(rest, "--out", None)
    module = method.load(str(name))
    if chosen is not None and not module.TAKES_LOSS:
        raise UserError(f"--loss {chosen}: {name} minimises no loss; leave the option out")
    options = edit_options.options(rest, str(name), module, loss_name)
    if out_name is None:
        raise UserError("engramlab edit needs --out DIR: where the edited model is kept, for example --out edited/")
    loss: Loss = getattr(options, loss_name.replace("-", "_"), None) or losses.get(loss_name)
    cases, notes = edit_options.cases_of(options, str(name), module)
    check(cases)
    out, model_name = Path(out_name).expanduser(), str(options.model)
    saving.check_out(out, model_name if saving.is_edited(model_name) else None, delta_only=options.delta_only)
    model, tokenizer = _load(model_name, options.dtype, options.device)
    with tables.bars() as report, tables.noting(notes):
        changed = change(
            model,
            tokenizer,
            cases,
            method=str(name),
            loss=loss,
            config=options.config,
            out=out,
            source=model_name,
            delta_only=options.delta_only,
            command=shlex.join(["engramlab", "edit", *given]),
            progress=report,
        )
    tables.show_edit(changed.rows, notes, [reason for _, reason in changed.failed])
    tables.show_saved(
        out,
        len(deltas.installed(model)),
        weights=isinstance(changed.delta, deltas.WeightDelta),
        alone=options.delta_only,
        reads=type(changed.delta).context is not deltas.Delta.context,
    )


def undo(given: list[str]) -> None:
    """``engramlab undo``."""
    import tyro

    if not given:
        raise UserError("engramlab undo needs the folder, for example engramlab undo edited/")
    options = tyro.cli(UndoOptions, prog="engramlab undo", args=given, config=(tyro.conf.PositionalRequiredArgs,))
    from engramlab.cli import edit_tables as tables
    from engramlab.editing.folders import saving

    gone = saving.undo(options.folder, last=options.last, to=options.to)
    tables.show_undone(options.folder, gone)


def merge(given: list[str]) -> None:
    """``engramlab merge``."""
    import tyro

    rest, out = take(given, "--out", None)
    config = (tyro.conf.PositionalRequiredArgs,)
    options = tyro.cli(MergeOptions, prog="engramlab merge DIR DIR --out DIR", args=rest, config=config)
    if out is None:
        raise UserError("engramlab merge needs --out DIR: where the merged model is kept, for example --out merged/")
    from engramlab.cli import edit_tables as tables
    from engramlab.editing.folders import merging, saving

    with tables.bars() as report:
        rows = merging.merge(
            options.folders,
            out,
            delta_only=options.delta_only,
            device=_device(options.device),
            progress=lambda part, done, total: report(f"asking the model {part} merging", done, total),
        )
    listed = saving.listing(out)
    tables.show_merged(rows)
    tables.show_saved(
        Path(out),
        len(listed),
        weights=all(one.kind == "weights" for one in listed),
        alone=options.delta_only,
        merged=True,
    )


def edits(given: list[str]) -> None:
    """``engramlab edits list``."""
    if not given or wants_help(given):
        print(
            "usage: engramlab edits list DIR\n\nThe edits that a folder written by engramlab edit holds, oldest first."
        )
        return
    if given[0] != "list":
        raise UserError(f"there is no command 'edits {given[0]}'; did you mean 'edits list'?")
    if len(given) != 2:
        raise UserError("engramlab edits list needs one folder, for example engramlab edits list edited/")
    from engramlab.cli import edit_tables as tables
    from engramlab.editing.folders import disk as folders
    from engramlab.editing.folders import saving

    tables.show_listing(folders.read(given[1]), saving.listing(given[1]))


COMMANDS: dict[str, Callable[[list[str]], None]] = {"edit": edit, "undo": undo, "merge": merge, "edits": edits}


def print_names() -> None:
    """What ``engramlab list`` says about editing."""
    from engramlab.core.training.losses import LOSSES
    from engramlab.editing import benchmarks, method

    print("editing methods (engramlab edit --method NAME --help shows the options)")
    for name in method.names():
        print(f"  {name}\n    {edit_options.summary(method.load(name))}")
    print("\nlosses (--loss)")
    for name in LOSSES:
        print(f"  {name}")
    print("\nbenchmark formats (engramlab edit --file; recognised by their keys)")
    for name in benchmarks.names():
        print(f"  {name}")


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--device {name}: not there ({first}); give cpu, or a GPU such as cuda or cuda:0") from None
    return name


def _load(name: str, dtype: str | None, device: str | None) -> tuple[Any, Any]:
    import torch

    from engramlab.core import models
    from engramlab.editing.folders import disk as folders
    from engramlab.editing.folders import saving

    at = _device(device)
    if not saving.is_edited(name):
        return models.load(name, dtype=getattr(torch, dtype or "float32"), device=at)
    state = folders.read(name)
    if dtype is not None and dtype != state.dtype:
        raise UserError(f"--dtype {dtype}: the edits in {name} were made in {state.dtype}; leave the option out")
    return saving.load(name, device=at)
