"""Several edited folders, made independently on the same model, put together into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit
from engramlab.base.progress import NamedProgress, Progress
from engramlab.core import deltas
from engramlab.core.deltas import WeightDelta
from engramlab.editing import benchmarks
from engramlab.editing.folders import disk as folders
from engramlab.editing.folders import loading, saving
from engramlab.editing.folders.disk import Saved, State
from engramlab.editing.judge import evaluation, preview
from engramlab.files.locks import held


def merge(
    parts: Sequence[str | Path],
    out: str | Path,
    *,
    delta_only: bool = False,
    device: str | torch.device | None = None,
    base: str | None = None,
    progress: NamedProgress | None = None,
) -> list[dict[str, Any]]:
    """One model with the edits of several folders: the sum of all their changes of weights.

    Every edit keeps a folder of its own in ``out``, in the order of the folders, so that each can be taken off again. Edits
    that act while the model runs (codebooks, demonstrations) can come from one of the folders only: each decides by what the
    model computes, and two of them do not add up.

    Args:
        delta_only: save the deltas alone.
        base: where the unedited model is now, if the first folder holds edits alone and it is not where it was.
        progress: called with ("before" or "after", prompts done, prompts in all).

    Returns:
        The rows of ``evaluation.judge``, with ``folder``, ``number`` and ``holds``: one an edit (role "reliability"), one
        for each thing that it is judged by, and, under the first edit, one for each of a few unrelated ones (as
        ``editing.change`` does). Saved in ``edits/<number>/edit.json`` too.

    Raises:
        UserError: fewer than two folders, folders made on other models, edits that contradict each other (both are named),
        edits in more than one folder that cannot be summed, or ``out`` exists.
    """
    out = Path(out).expanduser()
    if len(parts) < 2:
        raise UserError("merging takes two or more edited folders, for example engramlab merge a b --out both")
    resolved = [Path(part).expanduser().resolve() for part in parts]
    if len(set(resolved)) < len(resolved):
        raise UserError(
            f"{next(p for p, r in zip(parts, resolved, strict=True) if resolved.count(r) > 1)} is given twice"
        )
    with held(out, saving.OTHER_OUT):
        saving.check_out(out, parts[0], delta_only=delta_only)
        if folders.is_edited(out):
            raise UserError(f"{out} is one of the folders to be merged; choose another --out")
        states = [folders.read(part) for part in parts]
        known = [folders.listing(state) for state in states]
        _check(states, known)
        model, tokenizer = loading.load(parts[0], device=device, base=base)
        made = [loading.load_deltas(state, some) for state, some in zip(states, known, strict=True)]
        deltas.remove_all(model)
        cases, of = _cases(states, known)

        def report(part: str) -> Progress | None:
            return None if progress is None else lambda done, total: progress(part, done, total)

        before = evaluation.before(model, tokenizer, cases, least=8, progress=report("before"))
        for delta in (delta for some in made for delta in some):
            deltas.install(model, delta, precision=getattr(torch, states[0].precision))
        judged = evaluation.judge(model, tokenizer, cases, before, progress=report("after"))
        rows = [
            {
                **row,
                "folder": str(of[row["case"]][0].folder),
                "number": of[row["case"]][1].number,
                "holds": preview.holds(row),
            }
            for row in judged
        ]
        records = [
            dataclasses.replace(one.record, rows=tuple(row for row in rows if of[row["case"]] == (state, one)))
            for state, some in zip(states, known, strict=True)
            for one in some
        ]
        name = base or states[0].base
        saving.save(model, tokenizer, out, records=records, source=parts[0], base=name, delta_only=delta_only)
    return rows


def _cases(
    states: Sequence[State], known: Sequence[Sequence[Saved]]
) -> tuple[list[Case], dict[str, tuple[State, Saved]]]:
    """Every edit of every folder as a case, the first with unrelated prompts; and, by the case's id, whose it is."""
    of = {
        f"{state.folder}:{one.number}:{number}": (state, one, edit)
        for state, some in zip(states, known, strict=True)
        for one in some
        for number, edit in enumerate(one.record.edits)
    }
    cases = [Case(name, (edit,)) for name, (_, _, edit) in of.items()]
    return preview.with_unrelated(cases) if cases else [], {name: found[:2] for name, found in of.items()}


def _check(states: Sequence[State], known: Sequence[Sequence[Saved]]) -> None:
    first = states[0]
    for state in states[1:]:
        if (state.model, state.dtype) != (first.model, first.dtype):
            raise UserError(
                f"{first.folder} and {state.folder} were made on different models ({first.base}, fingerprint {first.model}, "
                f"{first.dtype}; {state.base}, fingerprint {state.model}, {state.dtype}): only edits of one model can be merged"
            )
    for state, some in zip(states, known, strict=True):
        if not some:
            raise UserError(f"{state.folder} has no edits: it is the unedited model {state.base}")
    running = [(p, one) for p, some in enumerate(known) for one in some if one.kind != WeightDelta.kind]
    for part, one in running:
        if part != running[0][0]:
            a, b = running[0][1], one
            raise UserError(
                f"{states[running[0][0]].folder}, edit {a.number} ({a.record.method or a.kind}) and {states[part].folder}, "
                f"edit {b.number} ({b.record.method or b.kind}) both act while the model runs and cannot be summed: make the "
                "edits of one of them again on the other (engramlab edit --model ... --out ...)"
            )
    standing = [(part, one, edit) for part, some in enumerate(known) for one, edit in _standing(some)]
    for i, j in benchmarks.contradictions([edit for _, _, edit in standing]):
        (p, a, wish), (q, b, other) = standing[i], standing[j]
        raise UserError(
            f"{states[p].folder}, edit {a.number} and {states[q].folder}, edit {b.number} contradict each other: "
            f"{preview.conflict(wish, other)}; undo one of them first (engramlab undo)"
        )


def _standing(known: Sequence[Saved]) -> list[tuple[Saved, Edit]]:
    """The edits of a folder that no later one of the same folder has replaced by another answer to the same prompt."""
    found = [(one, edit) for one in known for edit in one.record.edits]
    while pairs := benchmarks.contradictions([edit for _, edit in found]):
        replaced = {i for i, _ in pairs}
        found = [pair for i, pair in enumerate(found) if i not in replaced]
    return found
