"""The settings of a method under a loss: each case by itself, one after another (or turn after turn), all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from engramlab.base.facts import Case, Edit
from engramlab.base.interrupts import heeded
from engramlab.base.progress import ProgressBar
from engramlab.base.rows import OVERRULED
from engramlab.base.terminal import Console
from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.core.deltas import files as deltafiles
from engramlab.core.models.costs import device_name, forget_peak, peak_memory
from engramlab.core.training.losses import Loss
from engramlab.editing import benchmarks, method
from engramlab.editing.cases import judged_together, superseded, unjudged
from engramlab.editing.judge import evaluation
from engramlab.editing.judge.abilities import Tasks
from engramlab.editing.judge.beyond import Beyond
from engramlab.editing.judge.evaluation import Before, Row
from engramlab.files import records, writing

Failures = list[dict[str, str]]
#: From a number of cases edited to rows, and what else there is to keep.
Judge = Callable[[int], tuple[list[Row], Row]]


@dataclass
class Part:
    """A method under a loss, on a model and its cases."""

    model: nn.Module
    tokenizer: Any
    cases: Sequence[Case]
    before: Before
    beyond: Beyond
    tasks: Tasks
    name: str
    loss: Loss
    hyper: Any
    folder: Path
    console: Console

    def edit(self, edits: Sequence[Edit]) -> Delta:
        """The delta of some edits on the model as it is now; raises EditFailed."""
        return method.make(self.model, self.tokenizer, edits, method=self.name, loss=self.loss, config=self.hyper)

    def each(self, cases: Sequence[Case]) -> tuple[list[Row], dict[str, Any]]:
        """Edits every case on the model as it is, all at once, and judges each under its own delta.

        Returns:
            The rows of the cases that could be edited, and ``{"seconds", "failed"}``.
        """
        started = time.monotonic()
        found = method.make_each(
            self.model,
            self.tokenizer,
            [case.edits for case in cases],
            method=self.name,
            loss=self.loss,
            config=self.hyper,
        )
        seconds = time.monotonic() - started
        made: list[tuple[Case, Delta]] = []
        failed: Failures = []
        for case, delta in zip(cases, found, strict=True):
            if isinstance(delta, method.EditFailed):
                failed.append({"case": case.id, "reason": str(delta)})
            else:
                made.append((case, delta))
        rows: list[Row] = []
        if made:
            rows = self._judged([c for c, _ in made], [d for _, d in made])
        return [{"edits": 1, **row} for row in rows], {"seconds": seconds, "failed": failed}

    def batch(self, label: str) -> dict[str, Any]:
        """All edits at once, judged together."""
        edits = [edit for case in self.cases for edit in case.edits]
        failed: Failures = []
        scores: list[Row] = []
        with ProgressBar(label, 2, console=self.console) as bar:
            started = time.monotonic()
            try:
                delta = self.edit(edits)
            except method.EditFailed as error:
                failed = [{"case": case.id, "reason": str(error)} for case in self.cases]
                seconds, rows = time.monotonic() - started, []
            else:
                seconds = time.monotonic() - started
                bar.update(1)
                with deltas.active(self.model, delta):
                    rows = self._judged(judged_together(self.cases))
                    scores = self._scores(len(edits))
            bar.update(2)
        rows = [{"edits": len(edits), **row} for row in rows]
        return {"seconds": seconds, "edits": len(edits), "failed": failed, "rows": rows, "tasks": scores}

    def continual(
        self, label: str, counts: Sequence[int], minutes: float, turn: int = 1, judge: Judge | None = None
    ) -> dict[str, Any]:
        """Turns of cases, of one by default, one after another on the same model; after each of ``counts`` cases it is judged.

        The model is as it was afterwards. An interrupted sequence goes on from its last checkpoint to the same numbers; Ctrl-C
        and SIGTERM end it behind the turn it is at, with a checkpoint.

        Args:
            turn: cases edited together; of those that give one prompt different answers, the last.
            judge: from the number of cases edited to the rows, and what else is to be kept of the model; None to judge all
                cases so far.
        """
        counts = sorted({min(count, len(self.cases)) for count in counts})
        state = self._resume()
        again = f"remove {self.folder} to do that part again"
        found = {count: records.read_rows(self._part(count), (), again) for count in counts if count <= state["done"]}
        saved, device = time.monotonic(), next(self.model.parameters()).device
        where = {"device": device_name(device)}
        try:
            with (
                heeded("turn") as asked,
                ProgressBar(label, counts[-1], done=state["done"], console=self.console) as bar,
            ):
                for start in range(state["done"], counts[-1], turn):
                    cases = self.cases[start : min(start + turn, counts[-1])]
                    edits = [edit for case in cases for edit in case.edits]
                    gone = benchmarks.overwritten(edits) if len(cases) > 1 else {}
                    forget_peak(device)
                    started = time.monotonic()
                    try:
                        delta = self.edit([edit for i, edit in enumerate(edits) if i not in gone])
                        deltas.install(self.model, delta, undo=False)
                    except method.EditFailed as error:
                        state["failed"] += [{"case": case.id, "reason": str(error)} for case in cases]
                    state["seconds"] += time.monotonic() - started
                    state["peak_memory"] = max(state.get("peak_memory") or 0, peak_memory(device) or 0) or None
                    state["done"] = start + len(cases)
                    if state["done"] in counts:
                        rows, more = (judge or self._all)(state["done"])
                        found[state["done"]] = [{"edits": state["done"], **row} for row in rows]
                        records.write_rows(self._part(state["done"]), found[state["done"]])
                        state.setdefault("tasks", []).extend(self._scores(state["done"]))
                        if more:
                            state.setdefault("damage", []).append(
                                {**more, **{name: state[name] for name in ("seconds", "peak_memory")}, **where}
                            )
                    if state["done"] in counts or time.monotonic() - saved > 60 * minutes or asked:
                        self._save(state)
                        saved = time.monotonic()
                    bar.update(state["done"])
                    if asked:
                        raise asked.interrupt(f"edit {state['done']} of {counts[-1]} of {label} is saved")
        finally:
            deltas.remove_all(self.model)
        rows = [row for count in counts for row in found[count]]
        about = {"seconds": state["seconds"], "edits": state["done"], "failed": state["failed"]}
        about |= {name: state[name] for name in ("damage", "tasks") if name in state}
        return {**about, "counts": counts, "rows": rows}

    def _all(self, count: int) -> tuple[list[Row], Row]:
        """Every case so far, judged; one that a later one took the place of is asked its own prompt alone, as ``overruled``."""
        cases = judged_together(self.cases[:count])
        gone = superseded(cases)
        rows = self._judged([unjudged(case) if i in gone else case for i, case in enumerate(cases)])
        ids = {cases[i].id for i in gone}
        return [{**row, "role": OVERRULED} if row["case"] in ids else row for row in rows], {}

    def _judged(self, cases: Sequence[Case], own: Sequence[Delta] | None = None) -> list[Row]:
        """The rows of some cases, each under its own delta or all under what is on the model."""
        rows = evaluation.judge(self.model, self.tokenizer, cases, self.before, deltas=own)
        self.beyond.told(self.model, self.tokenizer, cases, rows, self.before, own)
        return rows

    def _scores(self, edits: int) -> list[Row]:
        """A row a task, of the model as it is after so many edits."""
        found = self.tasks.scored(self.model, self.tokenizer)
        return [{"edits": edits, "task": name, "score": score} for name, score in found.items()]

    def _part(self, count: int) -> Path:
        return self.folder / f"part-{count:06d}.parquet"

    def _save(self, state: dict[str, Any]) -> None:
        """Where the sequence stands: changed weights, and the deltas that later edits look at."""
        found = [d for d in deltas.installed(self.model) if _alive(d, self.model)]

        def write(folder: Path) -> None:
            save_file(
                {p: w.contiguous() for p, w in deltas.changed(self.model).items()}, folder / "weights.safetensors"
            )
            for i, delta in enumerate(found):
                deltafiles.save(delta, folder / f"{i:06d}")
            writing.write_json(folder / "state.json", {**state, "deltas": len(found)})

        records.write_sealed(self.folder / "checkpoint", write)

    def _resume(self) -> dict[str, Any]:
        folder = self.folder / "checkpoint"
        if not folder.exists():
            return {"done": 0, "seconds": 0.0, "failed": []}
        again = f"remove {folder} to do that part again"
        records.check_sealed(folder, again)
        state = records.read_record(folder / "state.json", ("done", "seconds", "failed", "deltas"), again)
        kinds = method.kinds()
        found = [deltafiles.load(folder / f"{i:06d}", kinds) for i in range(state.pop("deltas"))]
        try:
            weights = load_file(folder / "weights.safetensors")
        except (SafetensorError, OSError) as error:
            raise records.damaged(folder / "weights.safetensors", str(error), again) from None
        deltas.put(self.model, weights, found)
        return state


def _alive(delta: Delta, model: nn.Module) -> bool:
    """Does later work depend on this delta? Not if a younger one continues it, or it only changed weights."""
    if isinstance(delta, deltas.WeightDelta):
        return bool(delta.extras)
    return all(other.continues is not delta for other in deltas.installed(model))
