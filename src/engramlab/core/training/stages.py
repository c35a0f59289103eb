"""One training stage of a run: train, measure on the way, checkpoint, resume, finish once.

Every experiment trains through :func:`train_stage`. A stage is a folder; when its ``done.json`` is there the stage is never
run again, and when only a checkpoint is there it goes on from it, to the same numbers.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from engramlab.base import random_access
from engramlab.base.progress import Bar
from engramlab.core.text.batches import Place, Stream
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Objective, Recipe, TrainState, train
from engramlab.files import writing
from engramlab.files.journal import Journal

Rows = list[dict[str, Any]]
ROWS_A_STAGE = 400  # loss rows kept of a long training


def evaluation_steps(steps: int, points: int) -> list[int]:
    """``points`` steps to measure at, evenly spaced, the last one included."""
    return sorted({max(1, round(steps * (k + 1) / points)) for k in range(points)}) if points else []


def finished(folder: Path) -> dict[str, Any] | None:
    """The record of a finished stage, or None; a caller can then spare itself making the model."""
    if not (folder / "done.json").exists():
        return None
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # a kill may have come before their removal
    return dict(writing.read_json(folder / "done.json"))


def train_stage(
    folder: Path,
    model: nn.Module,
    stream: Stream | Place,
    recipe: Recipe,
    *,
    accelerator: Accelerator,
    label: str,
    parameters: Iterable[nn.Parameter] | None = None,
    objective: Objective | None = None,
    evaluate: Callable[[], Rows] | None = None,
    evaluate_at: Iterable[int] = (),
    finish: Callable[[], dict[str, Any]] | None = None,
    save_model: Callable[[Path], None] | None = None,
    minutes_between_checkpoints: float = 2.0,
    seed: int = 0,
    console: Any = None,
) -> dict[str, Any]:
    """Trains ``model`` in place and returns the stage's record.

    Args:
        folder: the stage's folder: ``metrics.jsonl``, ``checkpoints/``, ``model/``, ``done.json``.
        stream: batches; where an objective is given, the place it draws its examples from.
        objective: minimised instead of the stream's loss: one loss for each of several independent problems, stacked in every
            parameter as a leading row.
        evaluate: returns rows to add to the metrics; called at the steps of ``evaluate_at``.
        finish: called once after the last step, model on its device; what it returns goes into the record.
        save_model: writes the trained model into a folder it is given; None keeps no model.
        minutes_between_checkpoints: wall-clock time after which a checkpoint is due.
        seed: of dropout; torch's own generators are left as they were.

    Returns:
        ``{"steps", "loss", "tokens", "seconds", **finish()}``; the same after a resume but for the seconds. ``failed`` are the
        numbers of independent problems that stopped at a loss or gradient that was not finite.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite; the last checkpoint is kept.
    """
    if (record := finished(folder)) is not None:
        return record
    done = folder / "done.json"
    main = accelerator.is_main_process
    state = TrainState(model, recipe, parameters=parameters, accelerator=accelerator, problems=objective is not None)
    with _own_generators(accelerator, seed):
        totals: dict[str, Any] = {"tokens": 0, "seconds": 0.0, "loss": math.nan}
        found = checkpoints.latest(folder / "checkpoints")
        if found:
            totals = checkpoints.load(found, state, stream)
        metrics = Journal(folder / "metrics.jsonl", durable=False)
        if main:
            metrics.rewind(state.step)
        at, every = set(evaluate_at), max(1, recipe.steps // ROWS_A_STAGE)
        before, since, started = totals["seconds"], time.monotonic(), time.monotonic()
        tokens_here = 0
        with Bar(label, recipe.steps, done=state.step, enabled=main, console=console) as bar:
            steps = train(state, objective=objective) if objective else train(state, cast(Stream, stream))
            for step in steps:
                totals["tokens"] += step.tokens
                tokens_here += step.tokens
                totals["loss"] = step.loss
                elapsed = time.monotonic() - started
                totals["seconds"] = before + elapsed
                speed = f"  {tokens_here / elapsed:,.0f} tokens/s" if tokens_here else ""
                bar.update(step.number, f"loss {step.loss:.3f}{speed}")
                if main and (step.number % every == 0 or step.number in (1, recipe.steps)):
                    metrics.add(
                        step=step.number,
                        loss=step.loss,
                        lr=step.learning_rate,
                        gradient_norm=step.gradient_norm,
                        tokens=totals["tokens"],
                        seconds=round(totals["seconds"], 3),
                    )
                if main and evaluate and step.number in at:
                    for row in evaluate():
                        metrics.add(step=step.number, **row)
                # Every process must take the same branch, so the main one's clock decides.
                if _due(accelerator, time.monotonic() - since > 60 * minutes_between_checkpoints):
                    checkpoints.save(folder / "checkpoints", state, stream, totals)
                    since = time.monotonic()
    totals["seconds"] = before + time.monotonic() - started
    record = {"steps": state.step, **totals}
    if state.failed:
        record["failed"] = sorted(state.failed)
    if main:
        record |= finish() if finish else {}
        if save_model:
            writing.write_folder(folder / "model", save_model)
        writing.write_json(done, record)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()
    return record if main else dict(writing.read_json(done))


@contextlib.contextmanager
def _own_generators(accelerator: Accelerator, seed: int) -> Iterator[None]:
    """Inside the block torch draws from generators seeded for this process, so that a stage killed before its first
    checkpoint starts over to the same numbers."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(random_access.key(seed, "dropout", accelerator.process_index))
        yield


def _due(accelerator: Accelerator, clock: bool) -> bool:
    if accelerator.num_processes == 1:
        return clock
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([clock])[0])
