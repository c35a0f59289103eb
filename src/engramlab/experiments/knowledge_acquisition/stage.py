"""The body of the training loop that pretraining, warm-up and injection share: measure, watch, keep, go on after a kill."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from engramlab.base import random_access
from engramlab.base.errors import UserError
from engramlab.base.progress import Bar
from engramlab.core.text.batches import Stream
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import TrainState, train
from engramlab.files.journal import Journal

ROWS_A_STAGE = 2000  # loss rows kept of a stage
CALM = 10  # first losses whose median later ones are compared with
SUSTAINED = 5  # losses in a row that must be too high
EXPLODED = 3.0  # nats above the calm loss


class Exploded(UserError):
    """The loss rose far above where the run began and stayed there."""


def drive(
    folder: Path,
    state: TrainState,
    stream: Stream,
    *,
    label: str,
    minutes: float,
    seed: int = 0,
    console: Any = None,
    each: Callable[[int], str | None] | None = None,
    rewind: Callable[[int], None] | None = None,
    before_checkpoint: Callable[[], None] | None = None,
    watch: bool = False,
    checkpoint_first: bool = False,
    until: int | None = None,
) -> dict[str, Any]:
    """Trains ``state`` to the end of its recipe, or to step ``until``, from the folder's checkpoint if it has one.

    Args:
        each: called with the number of updates made: at the first state (of a fresh start) and after every step; may return a
            note for the progress bar.
        rewind: called with the step gone on from, -1 for a fresh start.
        before_checkpoint: called before each checkpoint, and once at the end.
        watch: refuse to go on when the loss stays ``EXPLODED`` nats above the first ones.
        checkpoint_first: also before the first step, so that what came before need not be done again.

    Returns:
        ``{"steps", "loss", "tokens", "seconds", "measuring"}``; the last is how many of the seconds were spent in ``each``.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
        Exploded: see ``watch``. In both cases the last checkpoint is kept.
    """
    root = folder / "checkpoints"
    with _own_generators(state, seed):
        totals: dict[str, Any] = {
            "tokens": 0,
            "seconds": 0.0,
            "measuring": 0.0,
            "loss": math.nan,
            "calm": [],
            "last": [],
        }
        found = checkpoints.latest(root)
        if found:
            totals |= checkpoints.load(found, state, stream)
        metrics = Journal(folder / "metrics.jsonl", durable=False)
        metrics.rewind(state.step)
        if rewind:
            rewind(state.step if found else -1)
        if each and not found:
            each(state.step)
        if checkpoint_first and not found:
            _checkpoint(root, state, stream, totals, before_checkpoint)
        steps = state.recipe.steps if until is None else until
        every = max(1, steps // ROWS_A_STAGE)
        before = totals["seconds"]
        started = since = time.monotonic()
        here = 0
        with Bar(label, steps, done=state.step, console=console) as bar:
            for step in train(state, stream) if state.step < steps else ():
                here += step.tokens
                elapsed = time.monotonic() - started
                totals |= {"tokens": totals["tokens"] + step.tokens, "loss": step.loss, "seconds": before + elapsed}
                if step.number % every == 0 or step.number in (1, steps):
                    metrics.add(
                        step=step.number,
                        loss=step.loss,
                        lr=step.learning_rate,
                        gradient_norm=step.gradient_norm,
                        tokens=totals["tokens"],
                        seconds=round(totals["seconds"], 3),
                    )
                if watch:
                    _watch(totals, step.loss, step.number, step.learning_rate)
                begun = time.monotonic()
                note = (each(step.number) if each else None) or ""
                totals["measuring"] += time.monotonic() - begun
                bar.update(step.number, f"loss {step.loss:.3f}  {here / max(elapsed, 1e-9):,.0f} tokens/s  {note}")
                if time.monotonic() - since > 60 * minutes and step.number < steps:
                    _checkpoint(root, state, stream, totals, before_checkpoint)
                    since = time.monotonic()
                if step.number >= steps:
                    break
        totals["seconds"] = before + time.monotonic() - started
        if before_checkpoint:
            before_checkpoint()
    return {name: totals[name] for name in ("loss", "tokens", "seconds", "measuring")} | {"steps": state.step}


def _checkpoint(
    root: Path, state: TrainState, stream: Stream, totals: dict[str, Any], before: Callable[[], None] | None
) -> None:
    if before:
        before()
    checkpoints.save(root, state, stream, totals)


def _watch(totals: dict[str, Any], loss: float, step: int, rate: float) -> None:
    if len(totals["calm"]) < CALM:
        totals["calm"].append(loss)
    totals["last"] = [*totals["last"], loss][-SUSTAINED:]
    calm = statistics.median(totals["calm"])
    if len(totals["last"]) == SUSTAINED and min(totals["last"]) > calm + EXPLODED:
        raise Exploded(
            f"step {step}: the loss rose from {calm:.2f} to {loss:.2f} and stays there; the last good checkpoint is kept: "
            f"lower the learning rate (now {rate:.2g}), inject fewer passages a step, or use a larger batch"
        )


@contextlib.contextmanager
def _own_generators(state: TrainState, seed: int) -> Iterator[None]:
    device = state.accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(random_access.key(seed, "dropout"))
        yield


class Anywhere:
    """Stands for the stream of a checkpoint whose place in its stream does not matter, or is wanted for itself."""

    def __init__(self) -> None:
        self.place: dict[str, Any] = {}

    def take(self, rows: int) -> Any:
        raise AssertionError("this stream has no text")

    def state(self) -> dict[str, Any]:
        return self.place

    def restore(self, state: dict[str, Any]) -> None:
        self.place = state
