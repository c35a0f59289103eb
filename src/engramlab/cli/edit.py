"""edit --model M --out DIR   change what a model says to a prompt; shows it before and after, and saves the model

Changes what a model says, shows what became of it, and saves it so that transformers loads it.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engramlab.base.errors import UserError
from engramlab.cli import _edit_options
from engramlab.cli._words import take

if TYPE_CHECKING:
    from engramlab.core.training.losses import Loss


def main(given: list[str]) -> None:
    """Edits, shows the answers before and after, and saves."""
    from engramlab.base.progress import Bar
    from engramlab.cli import _edit_tables as tables
    from engramlab.core import deltas
    from engramlab.core.training import losses
    from engramlab.editing import method
    from engramlab.editing.folders import saving
    from engramlab.editing.judge import evaluation, preview

    rest, name = take(given or ["--help"], "--method", _edit_options.METHOD)
    rest, chosen = take(rest, "--loss")
    loss_name = chosen or _edit_options.LOSS
    rest, out_name = take(rest, "--out")
    module = method.load(str(name))
    if chosen is not None and not module.TAKES_LOSS:
        raise UserError(f"--loss {chosen}: {name} minimises no loss; leave the option out")
    options = _edit_options.options(rest, str(name), module, loss_name)
    if out_name is None:
        raise UserError("engramlab edit needs --out DIR: where the edited model is kept, for example --out edited/")
    loss: Loss = getattr(options, loss_name.replace("-", "_"), None) or losses.get(loss_name)
    cases, notes = _edit_options.cases_of(options, str(name), module)
    _edit_options.check_contradictions(cases)
    out = Path(out_name).expanduser()
    source = Path(options.model).expanduser() if saving.is_edited(options.model) else None
    saving.check_out(out, source, delta_only=options.delta_only)
    model, tokenizer = _load(options.model, options.dtype, options.device)
    edits = [edit for case in cases for edit in case.edits]
    _edit_options.check_tokens(tokenizer, edits, module)
    asked = preview.with_unrelated(cases)
    new_tokens = max(8, evaluation.enough_tokens(tokenizer, asked))
    with Bar("asking the model as it is", 1) as bar:
        before = evaluation.before(model, tokenizer, asked, new_tokens=new_tokens, progress=bar.to)
    with tables.telling(f"editing with {name}", notes):
        delta, made, failed = preview.make_what_can_be(model, tokenizer, edits, str(name), loss, options.config)
    deltas.install(model, delta)
    with Bar("asking the edited model", 1) as bar:
        rows = evaluation.judge(model, tokenizer, asked, before, progress=bar.to)
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


def _load(name: str, dtype: str | None, device: str | None) -> tuple[Any, Any]:
    import torch

    from engramlab.core import models
    from engramlab.editing.folders import disk as folders
    from engramlab.editing.folders import saving

    at = _edit_options.device(device)
    if not saving.is_edited(name):
        return models.load(name, dtype=getattr(torch, dtype or "float32"), device=at)
    state = folders.read(name)
    if dtype is not None and dtype != state.dtype:
        raise UserError(f"--dtype {dtype}: the edits in {name} were made in {state.dtype}; leave the option out")
    return saving.load(name, device=at)
