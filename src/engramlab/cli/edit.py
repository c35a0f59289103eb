"""edit --model M --out DIR   change what a model says to a prompt; shows it before and after, and saves the model

Changes what a model says, shows what became of it, and saves it so that transformers loads it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from engramlab.base.errors import UserError
from engramlab.cli import _edit_options
from engramlab.cli._words import starting, take, wants_help

if TYPE_CHECKING:
    from engramlab.core.training.losses import Loss


def main(given: list[str]) -> None:
    """Edits, shows the answers before and after, and saves."""
    if given and not wants_help(given):
        starting()
    from engramlab.cli import _edit_tables as tables
    from engramlab.core import deltas
    from engramlab.core.training import losses
    from engramlab.editing import change, method
    from engramlab.editing.changing import check
    from engramlab.editing.folders import saving
    from engramlab.editing.folders.opening import load_model

    rest, name = take(given or ["--help"], "--method", _edit_options.METHOD)
    rest, chosen = take(rest, "--loss")
    loss_name = chosen or _edit_options.LOSS
    rest, out_name = take(rest, "--out")
    module = method.load(str(name))
    if chosen is not None and not module.TAKES_LOSS:
        raise UserError(f"--loss {chosen}: {name} minimises no loss; leave the option out")
    options = _edit_options.options(rest, str(name), module, loss_name, __doc__)
    if out_name is None:
        raise UserError("engramlab edit needs --out DIR: where the edited model is kept, for example --out edited/")
    loss: Loss = getattr(options, loss_name.replace("-", "_"), None) or losses.get(loss_name)
    cases, notes = _edit_options.cases_of(options, str(name), module)
    check(cases)
    out, source = Path(out_name).expanduser(), str(options.model)
    saving.check_out(out, source if saving.is_edited(source) else None, delta_only=options.delta_only)
    model, tokenizer = load_model(source, dtype=options.dtype, device=options.device)
    with tables.progress_bars() as report, tables.noting(notes):
        changed = change(
            model,
            tokenizer,
            cases,
            method=str(name),
            loss=loss,
            config=options.config,
            out=out,
            source=source,
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
