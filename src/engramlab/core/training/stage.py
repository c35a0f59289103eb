"""One training stage of a run: a loop that is resumed, logged and checkpointed, whatever its body does.

Every experiment trains through :class:`Stage`, and the loop body is its own::

    with Stage(folder, state, stream, label="pretrain") as stage:
        for step in stage:
            if step.number in measured_at:
                stage.add(rows_of(model))
        stage.record["score"] = ask(model)

A stage is a folder; when its ``done.json`` is there the stage is never run again (ask ``finished`` before making the model),
and when only a checkpoint is there it goes on from it, to the same numbers. Ctrl-C and SIGTERM end it behind the step it is at,
with a checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import signal
import statistics
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from engramlab.base.errors import UserError
from engramlab.base.interrupts import Interrupted, Request, heeded
from engramlab.base.progress import ProgressBar
from engramlab.core.text.batches import Resumable, Stream
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Objective, TrainState, train
from engramlab.core.training.step import Step
from engramlab.files import records, writing
from engramlab.files.journal import Journal, read_rows

CALM = 10  # first losses whose median later ones are compared with
SUSTAINED = 5  # losses in a row that must be too high
EXPLODED = 3.0  # nats above the calm loss


def evaluation_steps(steps: int, points: int) -> set[int]:
    """``points`` steps to measure at, evenly spaced, the last one included."""
    return {max(1, round(steps * (k + 1) / points)) for k in range(points)}


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage, or None; a caller can then spare itself making the model.

    Raises:
        UserError: it or the stage's metrics are not what was written.
    """
    if not (folder / "done.json").exists():
        return None
    record = _record(folder)
    read_rows(folder / "metrics.jsonl", record.pop("metrics", None))
    writing.clear(folder / "checkpoints")  # a kill may have come before their removal
    return record


def _record(folder: Path) -> dict[str, Any]:
    return records.read_record(folder / "done.json", ("steps", "tokens", "loss", "seconds"))


class Stage:
    """Trains ``state`` as it is iterated over, and writes the stage's record when its block ends without an error.

    Between entering the block and the first step the caller may measure the state that training begins or goes on with.
    A caller that has seen enough leaves the loop with ``break`` (every process of a launch at the same step). An error that
    leaves the block leaves the last checkpoint, and the stage unfinished.

    Args:
        folder: the stage's folder: ``metrics.jsonl``, ``checkpoints/``, ``done.json``, and what the caller keeps there.
        state: what is trained; brought to the newest checkpoint of the folder, if there is one, when the block is entered.
        place: the stream of batches; where an objective is given, the place it draws its examples from.
        label: what the progress bar is called.
        objective: minimised instead of the stream's loss. Say ``TrainState(problems=True)`` if it gives one loss for each of
            several independent problems.
        until: the last step; None for all that the recipe has.
        rows: loss rows kept in the metrics; 400 draw a smooth curve, a stage whose single steps matter keeps more.
        minutes: wall-clock time after which a checkpoint is due.
        before: called before each checkpoint, to put on the disk what the loop body has and a checkpoint does not hold.
        seed: of torch's generators inside the block (dropout), so that a stage killed before its first checkpoint starts over
            to the same numbers; outside they are left as they were.

    Attributes:
        main: is this the process of the launch that measures and writes?
        resumed: did it go on from a checkpoint?
        totals: ``tokens``, ``seconds``, ``measuring`` (of them spent in the loop body) and ``loss`` so far. It is saved with
            every checkpoint; a loop body may keep more there, as JSON.
        record: what the caller adds to the stage's record, on the main process. When the block is left it is the whole record:
            ``{"steps", "tokens", "seconds", "measuring", "loss", ...}``, the same after a resume but for the seconds;
            ``failed`` are the numbers of independent problems that stopped at a loss or gradient that was not finite.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
        Interrupted: a signal asked to end; the last step is saved.
        UserError: the checkpoint is of another training, or a file is not what was written.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        place: Resumable,
        *,
        label: str,
        objective: Objective | None = None,
        until: int | None = None,
        rows: int = 400,
        minutes: float = 2.0,
        before: Callable[[], None] | None = None,
        seed: int = 0,
        console: Any = None,
    ) -> None:
        if objective is None and not isinstance(place, Stream):
            raise TypeError("a stage trains on a stream, or on an objective beside the place its examples come from")
        self.folder, self.state, self.place, self.label, self.objective = folder, state, place, label, objective
        self.last = state.recipe.steps if until is None else until
        self._every = max(1, self.last // rows)
        self._minutes, self._seed, self._before, self._console = minutes, seed, before, console
        self.main, self.resumed = state.accelerator.is_main_process, False
        self.totals: dict[str, Any] = {"tokens": 0, "seconds": 0.0, "measuring": 0.0, "loss": math.nan}
        self.record: dict[str, Any] = {}
        self._own_generators = contextlib.ExitStack()
        self._loop: weakref.ref[Generator[Step]] | None = None

    def __enter__(self) -> Stage:
        device = self.state.accelerator.device
        self._own_generators.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        torch.manual_seed(self._seed)
        if found := checkpoints.newest_whole(self.folder / "checkpoints", self._say):
            self.totals |= checkpoints.load(found, self.state, self.place)
            self.resumed = True
        self._metrics = Journal(self.folder / "metrics.jsonl", durable=False)
        if self.main:
            self._metrics.rewind(self.state.step, self.totals.get("metrics"))
        self._since, self._saved, self._over = time.monotonic(), self.state.step, False
        return self

    def __iter__(self) -> Iterator[Step]:
        loop = self._steps()
        self._loop = weakref.ref(loop)  # only a weak one: a loop that is left by `break` shall end there
        return loop

    def _steps(self) -> Generator[Step]:
        before, started, here = self.totals["seconds"], time.monotonic(), 0
        bar = ProgressBar(self.label, self.last, done=self.state.step, enabled=self.main, console=self._console)
        try:
            with heeded() as asked, bar, contextlib.closing(self._trained()) as steps:
                for step in steps:
                    here += step.tokens
                    elapsed = time.monotonic() - started
                    self.totals["tokens"] += step.tokens
                    self.totals |= {"loss": step.loss, "seconds": before + elapsed}
                    speed = f"  {here / max(elapsed, 1e-9):,.0f} tokens/s" if here else ""
                    bar.update(step.number, f"loss {step.loss:.3f}{speed}")
                    if self.main and (step.number % self._every == 0 or step.number in (1, self.last)):
                        self._log(step)
                    due, stop = self._plan(asked)
                    begun = time.monotonic()
                    try:
                        yield step
                    finally:
                        self.totals["measuring"] += time.monotonic() - begun
                    stop = stop or (self.state.world == 1 and bool(asked))
                    if due or stop:
                        self.checkpoint()
                    if stop:
                        raise asked.interrupt(self._kept())
            self._over = True
        finally:
            self.totals["seconds"] = before + time.monotonic() - started

    def _trained(self) -> Generator[Step]:
        return train(self.state, self.place if isinstance(self.place, Stream) else None, self.objective, self.last)

    def _kept(self) -> str:
        return f"step {self.state.step} of {self.last} of {self.label} is saved"

    def _log(self, step: Step) -> None:
        self._metrics.add(
            step=step.number,
            loss=step.loss,
            lr=step.learning_rate,
            gradient_norm=step.gradient_norm,
            tokens=self.totals["tokens"],
            seconds=round(self.totals["seconds"], 3),
        )

    def _plan(self, asked: Request) -> list[bool]:
        """Is a checkpoint due, and must the loop end? All processes do the same: the main one's clock and signals decide."""
        plan = [time.monotonic() - self._since > 60 * self._minutes, bool(asked)]
        if self.state.world > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(plan)
        return plan

    def _say(self, text: str) -> None:
        if self.main:
            console = ProgressBar(self.label, 0, console=self._console).console
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows to the metrics, of the step the loop is at; on the main process."""
        for row in rows:
            self._metrics.add(step=self.state.step, **row)

    def checkpoint(self) -> None:
        """Saves a checkpoint now; on every process."""
        if self._before is not None:
            self._before()
        if self.main:
            self._metrics.flush()
            self.totals["metrics"] = self._metrics.count
        checkpoints.save(self.folder / "checkpoints", self.state, self.place, self.totals)
        self._since, self._saved = time.monotonic(), self.state.step

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop and (loop := self._loop()):
            loop.close()
        with self._own_generators:
            if (
                isinstance(error, KeyboardInterrupt)
                and self._over
                and self.state.world == 1
                and self._saved < self.last
            ):
                self.checkpoint()  # training was done, and what comes behind it was interrupted
                raise Interrupted(self._kept(), getattr(error, "number", signal.SIGINT)) from error
        if kind is not None:
            return
        if self.main:
            failed = {"failed": sorted(self.state.failed)} if self.state.failed else {}
            so_far = {name: self.totals[name] for name in ("tokens", "seconds", "measuring", "loss")}
            self.record = {"steps": self.state.step, **so_far, **failed, **self.record}
            self._metrics.flush()
            records.write_record(self.folder / "done.json", {**self.record, "metrics": self._metrics.count})
            writing.clear(self.folder / "checkpoints")
        self.state.accelerator.wait_for_everyone()
        if not self.main:
            self.record = _record(self.folder)
            del self.record["metrics"]


class Exploded(UserError):
    """The loss rose far above where the run began and stayed there."""


def refuse_explosion(totals: dict[str, Any], step: Step) -> None:
    """For a loop body: refuses to go on when the loss stays ``EXPLODED`` nats above the first ones.

    Args:
        totals: of the stage; keeps the losses to compare with, so that a resumed stage refuses at the same step.

    Raises:
        Exploded: the last ``SUSTAINED`` losses were all that high.
    """
    calm, last = totals.setdefault("calm", []), totals.setdefault("last", [])
    if len(calm) < CALM:
        calm.append(step.loss)
    totals["last"] = last = [*last, step.loss][-SUSTAINED:]
    usual = statistics.median(calm)
    if len(last) == SUSTAINED and min(last) > usual + EXPLODED:
        raise Exploded(
            f"step {step.number}: the loss rose from {usual:.2f} to {step.loss:.2f} and stays there; the last good checkpoint "
            f"is kept: lower the learning rate (now {step.learning_rate:.2g}), use a larger batch, or put less that is new "
            "into a step"
        )
