"""Changes what a model says, shows what became of it, and keeps it: what ``engramlab edit`` does.

changed = editing.change(model, tokenizer, wish, method="rome", out="edited/")
changed.holds(), changed.rows                        # does the edit hold; every query before and after
changed.entry.remove()                               # the model as it was, bit for bit
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit
from engramlab.base.joining import full_stop
from engramlab.base.progress import NamedProgress, Progress
from engramlab.core import deltas
from engramlab.core.deltas import Delta, Installed, Several, WeightDelta
from engramlab.core.text.chat import Chat, has_template
from engramlab.core.training import losses
from engramlab.core.training.losses import Loss
from engramlab.editing import benchmarks
from engramlab.editing.folders import precision as choice
from engramlab.editing.folders import saving
from engramlab.editing.folders.disk import EditRecord, is_edited
from engramlab.editing.judge import evaluation, preview
from engramlab.editing.judge.evaluation import Row
from engramlab.editing.method import EditFailed, load, make, make_each
from engramlab.editing.requests import encode_edits, sharing
from engramlab.files.locks import held

_SEPARATE = 32  # edits of one call that become records of their own: each keeps the matrices that it overwrites


@dataclass(frozen=True)
class Changed:
    """What became of some edits.

    Attributes:
        delta: what was changed; ``entry`` has put it on the model and takes it off.
        rows: every query before and after, see ``judge.evaluation.judge``.
        made: the edits that are in the delta.
        failed: those that could not be made, and why.
        method, loss, config: how they were made; the loss is None for a method that takes none.
        parts: the deltas, each with its edits and their rows, and a record of its own in a folder. Several where the method
            makes edits one by one (``SEPARATE``), so that each can be taken back alone.
    """

    __repr__ = brief

    delta: Delta
    entry: Several
    rows: list[Row]
    made: list[Edit]
    failed: list[tuple[Edit, str]]
    method: str = ""
    loss: Loss | None = None
    config: Any = None
    parts: tuple[tuple[Delta, tuple[Edit, ...], tuple[Row, ...]], ...] = ()

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
    chat: bool = False,
    closing: bool = True,
    out: str | Path | None = None,
    source: str | Path = "",
    delta_only: bool = False,
    precision: str | None = None,
    command: str = "",
    progress: NamedProgress | None = None,
) -> Changed:
    """Edits a model in place, asks it before and after, and saves it if told where.

    Asked are the edits, the judges they carry, under the case of the first a few unrelated things, and, of a model with a chat
    template, every edit in a conversation.

    Args:
        edits: one or several, or cases of them; those that can be made are, where others fail.
        method: a name from ``editing.names()``.
        loss: as ``core/training/losses.parse`` takes it (``overtone:mixing=0.3``), or a loss.
        config: the method's ``Config``; None for its defaults.
        chat: put every prompt as a message of a user, in the model's chat template: to edit, and to ask.
        closing: also teach where an answer ends, by what ends it (``Edit.stop``): a full stop, in a conversation the end of the
            turn; nothing behind an answer that ends in punctuation. Without it a name that the model has never seen may go on
            ("Ostrela" for "Ostrel").
        out: the folder to save in, see ``editing.save``.
        source: where the model came from: the edited folder that is gone on from, a path or a hub id.
        delta_only: save no weights.
        precision: number type to keep the weights in, see ``folders.precision.chosen``.
        command: kept with a saved edit, for the reader.
        progress: see ``NamedProgress``.

    Raises:
        UserError: edits that contradict each other or cannot be encoded, an unknown name, no chat template, or an ``out`` that
            cannot be; before anything is done. ``EditFailed`` where no edit could be made. The model is then as it was.
    """
    kept = None
    if out is not None:
        kept = choice.chosen(model, str(source) or str(getattr(model.config, "_name_or_path", "")), precision)
    work = Work(model, tokenizer, edits, chat=chat, closing=closing, source=source, precision=kept, progress=progress)
    with contextlib.nullcontext() if out is None else held(Path(out).expanduser(), saving.OTHER_OUT):
        work.check(method, loss, out, delta_only=delta_only)
        work.ask()
        changed = work.make(method, loss, config)
        try:
            if out is not None:
                work.save(changed, out, delta_only=delta_only, command=command)
        except BaseException:
            changed.entry.remove()
            raise
    return changed


class Work:
    """Some edits of a model, to be made and judged once or by several methods, each time from the model as it is.

    Args: as of ``change``; ``precision`` is that in which the edits will be kept, so that what is judged is what is kept.

    Attributes:
        wishes: the edits.
        asked: the cases, with all that they are judged by.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        edits: Edit | Case | Sequence[Edit | Case],
        *,
        chat: bool = False,
        closing: bool = True,
        source: str | Path = "",
        precision: str | None = None,
        progress: NamedProgress | None = None,
    ) -> None:
        self.precision = precision
        self.model, self.tokenizer, self.source, self._progress = model, tokenizer, source, progress
        cases = _cases([edits] if isinstance(edits, (Edit, Case)) else edits)
        check(cases)
        form = Chat(tokenizer) if chat else None
        there = form
        if form is None and has_template(tokenizer):
            with contextlib.suppress(UserError):  # a template that fails on a lone message: nobody asked for it
                there = Chat(tokenizer)
        asked = preview.with_unrelated(cases)
        if form is not None:
            cases, asked = list(map(form.case, cases)), list(map(form.case, asked))
        self.wishes = [edit for case in cases for edit in case.edits]
        self.asked = preview.with_chat(asked, there) if form is None and there is not None else asked

        def closed(edit: Edit) -> Edit:
            turn = there.stop if there is not None and there.holds(edit.query.prompt) else ""
            return replace(edit, stop=edit.stop or turn or full_stop(edit.target.rstrip())) if closing else edit

        self._taught = list(map(closed, self.wishes))

    def check(self, method: str, loss: str | Loss, out: str | Path | None, *, delta_only: bool = False) -> None:
        """Raises UserError for whatever can be found wrong before anything is done."""
        module = load(method)
        if isinstance(loss, str):
            losses.parse(loss)
        if out is not None:
            saving.check_out(Path(out).expanduser(), self._older, delta_only=delta_only)
        encode_edits(self.tokenizer, [[edit] for edit in self._taught], subjects=module.NEEDS_SUBJECT)

    @property
    def _older(self) -> Path | None:
        """The edited folder that is gone on from."""
        return Path(self.source).expanduser() if self.source and is_edited(self.source) else None

    def _report(self, what: str) -> Progress:
        return lambda done, total: self._progress(what, done, total) if self._progress is not None else None

    def ask(self) -> None:
        """What the model says as it is."""
        report = self._report("asking the model as it is")
        self.before = evaluation.before(self.model, self.tokenizer, self.asked, least=8, progress=report)

    def make(self, method: str, loss: str | Loss, config: Any = None) -> Changed:
        """Edits the model and asks it again. Raises EditFailed where no edit could be made."""
        module, chosen = load(method), losses.parse(loss) if isinstance(loss, str) else loss
        config = config or module.Config()
        editing = self._report(f"editing with {method}")
        editing(0, 1)
        if module.NEEDS_SUBJECT and module.TOGETHER:
            self._say_shared(method)
        how = {"method": method, "loss": chosen, "config": config}
        found: list[tuple[Delta, list[int], Installed]] = []
        failed: list[tuple[int, str]] = []
        groups = self._groups(module)
        with contextlib.ExitStack() as undo:
            for some in groups:
                try:
                    delta, good, bad = _what_can_be(self.model, self.tokenizer, [self._taught[i] for i in some], how)
                except EditFailed as error:
                    if len(groups) == 1:
                        raise
                    failed += [(i, str(error)) for i in some]
                    continue
                found.append((delta, [some[i] for i in good], self.put(delta)))
                undo.callback(found[-1][-1].remove)
                failed += [(some[i], why) for i, why in bad]
            if not found:
                raise EditFailed("; ".join(why for _, why in failed[:3]))
            editing(1, 1)
            report = self._report("asking the edited model")
            rows = evaluation.judge(self.model, self.tokenizer, self.asked, self.before, progress=report)
            undo.pop_all()
        wishes, taken = self.wishes, chosen if module.TAKES_LOSS else None
        owners = [n for case in self._numbered() for n in case]
        parts = tuple(
            (d, tuple(wishes[i] for i in made), tuple(row for row, i in zip(rows, owners, strict=True) if i in made))
            for d, made, _ in found
        )
        if len(found) == 1:
            parts = ((*parts[0][:2], tuple(rows)),)
        whole = (
            found[0][0] if len(found) == 1 else WeightDelta.sum([d for d, *_ in found if isinstance(d, WeightDelta)])
        )
        why = [(wishes[i], reason) for i, reason in sorted(failed)]
        made = [wishes[i] for _, some, _ in found for i in some]
        return Changed(
            whole, Several(tuple(entry for *_, entry in found)), rows, made, why, method, taken, config, parts
        )

    def put(self, delta: Delta) -> Installed:
        """Puts a delta on the model, its weights as they will be kept."""
        return deltas.install(self.model, delta, precision=getattr(torch, self.precision) if self.precision else None)

    def _groups(self, module: Any) -> list[list[int]]:
        """The edits, by number, that are made together and will be one record."""
        if getattr(module, "SEPARATE", False) and 1 < len(self._taught) <= _SEPARATE:
            return sharing(self.tokenizer, self._taught)
        return [list(range(len(self._taught)))]

    def _numbered(self) -> Iterator[list[int]]:
        """Of each case asked, whose every query is (see ``evaluation.queries_of``): the edit's number."""
        first = 0
        for case in self.asked:
            numbers = range(first, first + len(case.edits))
            yield [*numbers, *(n for n, edit in zip(numbers, case.edits, strict=True) for _ in edit.judges)]
            first += len(case.edits)

    def _say_shared(self, method: str) -> None:
        for some in sharing(self.tokenizer, self.wishes):
            if len(some) > 1:
                warnings.warn(
                    f"{', '.join(repr(self.wishes[i].query.prompt) for i in some)} begin alike up to the end of their subject, "
                    f"which has one place in the memory that {method} writes to: they share one search",
                    stacklevel=3,
                )

    def save(self, changed: Changed, out: str | Path, *, delta_only: bool, command: str) -> None:
        """Saves the model with these edits on it, see ``editing.save``."""
        older = self._older
        base = "" if older is not None else str(self.source)
        base = str(Path(base).expanduser().resolve()) if base and Path(base).expanduser().exists() else base
        saving.save(
            self.model,
            self.tokenizer,
            out,
            records=_records(changed, command),
            source=older,
            base=base,
            delta_only=delta_only,
            precision=self.precision,
        )


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


def _records(changed: Changed, command: str) -> list[EditRecord]:
    """What is kept beside each delta; a loss of the caller's own has no name there."""
    loss = changed.loss
    known = (
        name for name, one in losses.LOSSES.items() if one is loss or (is_dataclass(one) and type(one) is type(loss))
    )
    alike = EditRecord(
        method=changed.method,
        loss=next(known, ""),
        config=asdict(changed.config),
        loss_settings=asdict(loss) if is_dataclass(loss) and not isinstance(loss, type) else {},
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        command=command,
    )
    records = [replace(alike, edits=edits, rows=rows) for _, edits, rows in changed.parts]
    failed = tuple({"edit": edit.query.prompt, "reason": why} for edit, why in changed.failed)
    return [replace(records[0], failed=failed), *records[1:]]
