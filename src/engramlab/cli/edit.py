"""edit --model M --out DIR   change what a model says to a prompt; shows it before and after, and saves the model

Changes what a model says, shows what became of it, and saves it so that transformers loads it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from engramlab.base.errors import UserError
from engramlab.base.progress import progress_bars
from engramlab.cli import _edit_options
from engramlab.cli._words import starting, take, wants_help
from engramlab.files.locks import place

if TYPE_CHECKING:
    from engramlab.core.training.losses import Loss


def main(given: list[str]) -> None:
    """Edits, shows the answers before and after, and saves."""
    if given and not wants_help(given):
        starting()
    from engramlab.cli import _edit_tables as tables
    from engramlab.core import deltas
    from engramlab.core.training import losses
    from engramlab.editing import method
    from engramlab.editing.changing import Work, check
    from engramlab.editing.folders import precision, saving
    from engramlab.editing.folders.opening import load_model
    from engramlab.editing.judge import abilities
    from engramlab.editing.trying import best, try_each
    from engramlab.files.locks import held

    rest, several = take(given or ["--help"], "--try")
    rest, name = take(rest, "--method", None if several else _edit_options.METHOD)
    rest, chosen = take(rest, "--loss")
    loss_name = chosen or _edit_options.LOSS
    rest, out_name = take(rest, "--out")
    if several and name:
        raise UserError(f"--try {several} makes the edit by several methods; leave out --method {name}")
    names = list(dict.fromkeys(filter(None, map(str.strip, str(several or name).split(",")))))
    modules = [method.load(one) for one in names]
    if chosen is not None and not any(module.TAKES_LOSS for module in modules):
        raise UserError(f"--loss {chosen}: {names[0]} minimises no loss; leave the option out")
    options = _edit_options.options(rest, names, modules, loss_name, __doc__)
    if out_name is None:
        raise UserError("engramlab edit needs --out DIR: where the edited model is kept, for example --out edited/")
    loss: Loss = getattr(options, loss_name.replace("-", "_"), None) or losses.get(loss_name)
    needs = all(module.NEEDS_SUBJECT for module in modules)
    cases, notes = _edit_options.cases_of(options, names[0], needs)
    check(cases)
    abilities.check(options.drift_text, options.lm_eval)
    out, source = place(out_name), str(options.model)
    saving.check_out(out, source if saving.is_edited(source) else None, delta_only=options.delta_only)
    if not saving.is_edited(source):
        method.check_model(source, names, base=options.base)
    command = shlex.join(["engramlab", "edit", *given])
    with held(out, saving.OTHER_OUT), progress_bars() as report, tables.noting(notes):
        model, tokenizer = load_model(
            source, dtype=options.dtype, device=options.device, base=options.base, tokenizer=options.tokenizer
        )
        kept = precision.chosen(model, source, options.dtype)
        if not options.delta_only:
            print(
                f"the edited model will take {precision.size(model, kept) / 1e9:.2g} GB in {kept}; --delta-only keeps less"
            )
        how = {"chat": options.chat, "closing": options.closing, "source": source, "precision": kept}
        ability = abilities.Ability.of(model, tokenizer, options.drift_text, options.lm_eval, options.lm_eval_limit)
        work = Work(model, tokenizer, cases, progress=report, **how)
        tried = []
        if several:
            own = ["config"] if len(names) == 1 else map(_edit_options.field_of, names)
            configs = {one: getattr(options, at) for one, at in zip(names, own, strict=True)}
            tried = try_each(work, names, loss, configs)
            changed = best(work, tried)
        else:
            work.check(names[0], loss, out, delta_only=options.delta_only)
            work.ask()
            changed = work.make(names[0], loss, options.config)
        moved = ability.moved(model, tokenizer)
        work.save(changed, out, delta_only=options.delta_only, command=command)
    if tried:
        tables.show_tried(tried, changed)
    tables.show_edit(changed.rows, notes, [reason for _, reason in changed.failed], changed.method)
    tables.show_ability(moved)
    tables.show_saved(
        out,
        len(deltas.installed(model)),
        new=[len(edits) for _, edits, _ in changed.parts],
        weights=isinstance(changed.delta, deltas.WeightDelta),
        alone=options.delta_only,
        reads=type(changed.delta).context is not deltas.Delta.context,
    )
