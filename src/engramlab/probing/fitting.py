"""Probes trained on what a frozen model says about P_train, and what they read about P_test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key
from engramlab.core.forward.hooks import frozen, mode
from engramlab.core.text import batches
from engramlab.core.training.loop import TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.probing.classifier import Probe, Probes, hidden_states, make_probes, random_while_training
from engramlab.probing.examples import NOWHERE, UNKNOWN, Examples, Tasks

TOKENS_AT_ONCE = 16_384  # read in one pass where nothing is trained


class HiddenStateReader:
    """Hidden states of examples, under the embedding update of every task.

    Without updates nothing about them ever changes (dropout aside): they are then computed once a text, here, and kept.
    """

    def __init__(
        self, model: nn.Module, examples: Examples, probe: Probe, probes: Probes, label: str, console: Any
    ) -> None:
        self.model, self.examples, self.probe, self.probes = model, examples, probe, probes
        self.label, self.console = label, console
        self.device = next(model.parameters()).device
        self.fixed = not probe.rank and not (probe.dropout and random_while_training(model))
        self._kept = self._states() if self.fixed else None

    def read(self, numbers: np.ndarray) -> torch.Tensor:
        """Hidden states of examples by number, ``[tasks, B, P, D]``."""
        if self._kept is not None:
            found = self._kept[torch.from_numpy(numbers)].to(self.device)[None]
        else:
            found = hidden_states(
                self.model, *self.examples.batch(numbers, self.device), self.probe.layer, self.probes.updates
            )
        return found.expand(len(self.probes.weight), -1, -1, -1)

    @torch.no_grad()
    def _states(self) -> torch.Tensor:
        parts = list(parts_of(self.examples, np.arange(len(self.examples)), 1))
        found = []
        with mode(self.model, False), self.bar("hidden states", len(parts)) as bar:
            for done, part in enumerate(parts, 1):
                states = hidden_states(self.model, *self.examples.batch(part, self.device), self.probe.layer)
                found.append(states[0].cpu())
                bar.update(done)
        return torch.cat(found)

    def bar(self, what: str, total: int) -> ProgressBar:
        """Progress of reading."""
        return ProgressBar(f"{self.label}, {what}", total, console=self.console)


def parts_of(examples: Examples, numbers: np.ndarray, tasks: int) -> Iterator[np.ndarray]:
    """These examples in parts that fit one pass under ``tasks`` updates."""
    longest = int(examples.texts.lengths[numbers].max()) if len(numbers) else 1
    size = max(1, TOKENS_AT_ONCE // (tasks * longest))
    yield from (numbers[k : k + size] for k in range(0, len(numbers), size))


def fit(
    folder: Path,
    model: nn.Module,
    examples: Examples,
    tasks: Tasks,
    probe: Probe,
    *,
    train: np.ndarray,
    test: np.ndarray,
    accelerator: Accelerator,
    finish: Callable[[np.ndarray], dict[str, Any]],
    label: str,
    seed: int = 0,
    minutes_between_checkpoints: float = 2.0,
    console: Any = None,
) -> dict[str, Any]:
    """Trains the probes of all tasks together, as one stage of a run; the model comes back as it was, but on the device used.

    Args:
        folder: the stage's folder.
        train, test: int64 numbers of the examples to train on, and of those to read afterwards.
        finish: makes the stage's record of the classes read in ``test``, int64 ``[tasks, test, P]``.

    Returns:
        The record; see ``Stage``.
    """
    if (record := finished(folder)) is not None:
        return record
    model.to(accelerator.device)
    read = torch.from_numpy(batches.TokenRows(examples.texts).tokens(train).ids.astype(np.int64))
    classes = [task.classes for task in tasks.tasks]
    probes = make_probes(probe, model, [task.name for task in tasks.tasks], classes, read, seed)
    reader = HiddenStateReader(model, examples, probe, probes, label, console)
    order = batches.Order(len(examples), key(seed, "probed"), subset=train)
    labels = torch.from_numpy(tasks.labels)

    def losses() -> torch.Tensor:
        numbers = order.next(probe.recipe.batch)
        with mode(model, probe.dropout):
            hidden = reader.read(numbers)
        of = labels[:, torch.from_numpy(examples.subjects[numbers])].repeat_interleave(hidden.shape[2], 1)
        of = of.masked_fill(torch.from_numpy(examples.places[numbers].ravel() == NOWHERE), UNKNOWN)
        return probes.losses(hidden.flatten(1, 2), of.to(hidden.device))

    with frozen(model):
        state = TrainState(probes, probe.recipe, accelerator=accelerator, problems=True)
        with Stage(
            folder,
            state,
            order,
            label=label,
            objective=losses,
            minutes=minutes_between_checkpoints,
            seed=key(seed, "dropout", accelerator.process_index),
            console=console,
        ) as stage:
            for _ in stage:
                pass
            stage.record |= finish(predict(reader, train, test))
    return stage.record


@torch.no_grad()
def predict(reader: HiddenStateReader, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class that each task reads at each place of the examples ``test``: int64 ``[tasks, test, P]``.

    A batch norm stands on the mean and variance over all of ``train``, under the probes as they are now.
    """
    examples, probes = reader.examples, reader.probes
    tasks = len(probes.weight)
    with mode(reader.model, False):
        moments = None
        if probes.norm == "batch":
            total = torch.zeros(2, tasks, 1, probes.weight.shape[1], dtype=torch.float64, device=reader.device)
            for part in parts_of(examples, train, tasks):
                hidden = reader.read(part).flatten(1, 2).double()
                total += torch.stack([hidden.sum(1, keepdim=True), hidden.square().sum(1, keepdim=True)])
            mean, square = total / (len(train) * examples.places.shape[1])
            moments = mean.float(), (square - mean.square()).clamp(min=0).float()
        found = []
        parts = list(parts_of(examples, test, tasks))
        with reader.bar("held-out subjects", len(parts)) as bar:
            for done, part in enumerate(parts, 1):
                hidden = reader.read(part)
                best = probes.logits(hidden.flatten(1, 2), moments).argmax(-1)
                found.append(best.view(hidden.shape[:3]).cpu().numpy())
                bar.update(done)
    return np.concatenate(found, axis=1)
