"""The editing commands: ``engramlab edit | undo | merge | edits list``. Heavy libraries load only where used."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
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
    from engramlab.editing import method
    from engramlab.editing.folders import saving
    from engramlab.editing.judge import evaluation, preview

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
    edit_options.check_contradictions(cases)
    out = Path(out_name).expanduser()
    source = Path(options.model).expanduser() if saving.is_edited(options.model) else None
    saving.check_out(out, source, delta_only=options.delta_only)
    model, tokenizer = _load(options.model, options.dtype, options.device)
    edits = [edit for case in cases for edit in case.edits]
    edit_options.check_tokens(tokenizer, edits, module)
    asked = preview.with_unrelated(cases)
    new_tokens = max(8, evaluation.enough_tokens(tokenizer, asked))
    with tables.bar("asking the model as it is") as report:
        before = evaluation.before(model, tokenizer, asked, new_tokens=new_tokens, progress=report)
    with tables.telling(f"editing with {name}", notes):
        delta, made, failed = preview.make_what_can_be(model, tokenizer, edits, str(name), loss, options.config)
    deltas.install(model, delta)
    with tables.bar("asking the edited model") as report:
        rows = evaluation.judge(model, tokenizer, asked, before, progress=report)
    record = saving.Record(
        method=str(name),
        loss=loss_name if module.TAKES_LOSS else "",
        config=asdict(options.config),
        loss_settings=asdict(loss) if module.TAKES_LOSS and is_dataclass(loss) else {},
        edits=tuple(edits[i] for i in made),
        rows=tuple(rows),
        failed=tuple({"edit": edits[i].query.prompt, "reason": reason} for i, reason in failed),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=shlex.join(["engramlab", "edit", *given]),
    )
    base = options.model if source is None else ""
    base = str(Path(base).expanduser().resolve()) if base and Path(base).expanduser().exists() else base
    saving.save(model, tokenizer, out, records=[record], source=source, base=base, delta_only=options.delta_only)
    tables.show_edit(rows, notes, [reason for _, reason in failed], asked)
    number = len(deltas.installed(model))
    tables.show_saved(
        out,
        number,
        weights=isinstance(delta, deltas.WeightDelta),
        alone=options.delta_only,
        reads=type(delta).context is not deltas.Delta.context,
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

    with tables.bar("asking the model before and after") as report:
        rows = merging.merge(
            options.folders,
            out,
            delta_only=options.delta_only,
            device=_device(options.device),
            progress=lambda part, done, total: report(done + total * (part == "after"), 2 * total),
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
