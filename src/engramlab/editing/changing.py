"""Changes what a model says, shows what became of it, and keeps it: what ``engramlab edit`` does.

changed = editing.change(model, tokenizer, wish, method="rome", out="edited/")
changed.holds(), changed.rows                        # does the edit hold; every query before and after
changed.entry.remove()                               # the model as it was, bit for bit
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit
from engramlab.base.progress import NamedProgress, Progress
from engramlab.core import deltas
from engramlab.core.deltas import Delta, Installed
from engramlab.core.training import losses
from engramlab.core.training.losses import Loss
from engramlab.editing import benchmarks
from engramlab.editing.folders import saving
from engramlab.editing.folders.disk import EditRecord, is_edited
from engramlab.editing.judge import evaluation, preview
from engramlab.editing.judge.evaluation import Row
from engramlab.editing.method import EditFailed, load, make, make_each
from engramlab.editing.requests import encode_edits


@dataclass(frozen=True)
class Changed:
    """What became of some edits.

    Attributes:
        delta: what was changed; ``entry`` has put it on the model and takes it off.
        rows: every query before and after, see ``judge.evaluation.judge``.
        made: the edits that are in the delta.
        failed: those that could not be made, and why.
    """

    __repr__ = brief

    delta: Delta
    entry: Installed
    rows: list[Row]
    made: list[Edit]
    failed: list[tuple[Edit, str]]

    def holds(self) -> bool:
        """Does the model now give every new answer?"""
        return not self.failed and all(preview.holds(row) for row in self.rows if row["role"] == "reliability")


def change(
    model: nn.Module,
    tokenizer: Any,
    edits: Edit | Case | Sequence[Edit | Case],
    *,
    method: str = "ft-m",
    loss: str | Loss = "cross-entropy",
    config: Any = None,
    out: str | Path | None = None,
    source: str | Path = "",
    delta_only: bool = False,
    command: str = "",
    progress: NamedProgress | None = None,
) -> Changed:
    """Edits a model in place, asks it before and after, and saves it if told where.

    Asked are the edits, the judges they carry and, under the case of the first, a few unrelated things.

    Args:
        edits: one or several, or cases of them; those that can be made are, where others fail.
        method: a name from ``editing.names()``.
        loss: as ``core/training/losses.parse`` takes it (``overtone:mixing=0.3``), or a loss.
        config: the method's ``Config``; None for its defaults.
        out: the folder to save in, see ``editing.save``.
        source: where the model came from: the edited folder that is gone on from, a path or a hub id.
        delta_only: save no weights.
        command: kept with a saved edit, for the reader.
        progress: see ``NamedProgress``.

    Raises:
        UserError: edits that contradict each other or cannot be encoded, an unknown name, or an ``out`` that cannot be; before
            anything is done. ``EditFailed`` where no edit could be made. The model is then as it was.
    """
    module, chosen = load(method), losses.parse(loss) if isinstance(loss, str) else loss
    config = config or module.Config()
    cases = _cases([edits] if isinstance(edits, (Edit, Case)) else edits)
    check(cases)
    wishes = [edit for case in cases for edit in case.edits]
    older = Path(source).expanduser() if source and is_edited(source) else None
    if out is not None:
        saving.check_out(Path(out).expanduser(), older, delta_only=delta_only)
    encode_edits(tokenizer, [[edit] for edit in wishes], subjects=module.NEEDS_SUBJECT)

    def report(what: str) -> Progress:
        return lambda done, total: progress(what, done, total) if progress is not None else None

    asked = preview.with_unrelated(cases)
    new_tokens = max(8, evaluation.enough_tokens(tokenizer, asked))
    before = evaluation.before(
        model, tokenizer, asked, new_tokens=new_tokens, progress=report("asking the model as it is")
    )
    editing = report(f"editing with {method}")
    editing(0, 1)
    delta, made, failed = _what_can_be(model, tokenizer, wishes, {"method": method, "loss": chosen, "config": config})
    editing(1, 1)
    entry = deltas.install(model, delta)
    try:
        rows = evaluation.judge(model, tokenizer, asked, before, progress=report("asking the edited model"))
        changed = Changed(delta, entry, rows, [wishes[i] for i in made], [(wishes[i], why) for i, why in failed])
        if out is not None:
            record = _record(changed, method, chosen if module.TAKES_LOSS else None, config, command)
            base = "" if older is not None else str(source)
            base = str(Path(base).expanduser().resolve()) if base and Path(base).expanduser().exists() else base
            saving.save(model, tokenizer, out, records=[record], source=older, base=base, delta_only=delta_only)
    except BaseException:
        entry.remove()
        raise
    return changed


def check(cases: Sequence[Case]) -> None:
    """Raises UserError for two edits that contradict each other (names both)."""
    asked = [edit for case in cases for edit in case.edits]
    pairs = benchmarks.contradictions(asked)
    if pairs:
        (i, j), more = pairs[0], len(pairs) - 1
        others = f" ({more} other pair{'s' * (more > 1)} too)" if more else ""
        raise UserError(f"{preview.conflict(asked[i], asked[j])}{others}; no model can satisfy both, so leave one out")


def _cases(given: Sequence[Edit | Case]) -> list[Case]:
    """Cases as they are, and edits as cases of their own."""
    if not given:
        raise UserError("there is nothing to edit: give at least one edit")
    return [one if isinstance(one, Case) else Case(one.query.id or str(i), (one,)) for i, one in enumerate(given)]


def _what_can_be(
    model: nn.Module, tokenizer: Any, edits: Sequence[Edit], how: dict[str, Any]
) -> tuple[Delta, list[int], list[tuple[int, str]]]:
    """The delta of all edits that can be made, the indices of those in it, and (index, reason) of those that failed.

    Raises:
        EditFailed: none could be made, or they fail only together.
    """
    try:
        return make(model, tokenizer, edits, **how), list(range(len(edits))), []
    except EditFailed:
        if len(edits) == 1:
            raise
        tried = make_each(model, tokenizer, [[edit] for edit in edits], **how)
        failed = [(i, str(one)) for i, one in enumerate(tried) if isinstance(one, EditFailed)]
        good = [i for i, one in enumerate(tried) if not isinstance(one, EditFailed)]
        if not failed or not good:
            raise
    return make(model, tokenizer, [edits[i] for i in good], **how), good, failed


def _record(changed: Changed, method: str, loss: Loss | None, config: Any, command: str) -> EditRecord:
    """What is kept beside the delta; a loss of the caller's own has no name there."""
    known = (
        name for name, one in losses.LOSSES.items() if one is loss or (is_dataclass(one) and type(one) is type(loss))
    )
    return EditRecord(
        method=method,
        loss=next(known, ""),
        config=asdict(config),
        loss_settings=asdict(loss) if is_dataclass(loss) and not isinstance(loss, type) else {},
        edits=tuple(changed.made),
        rows=tuple(changed.rows),
        failed=tuple({"edit": edit.query.prompt, "reason": why} for edit, why in changed.failed),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=command,
    )
