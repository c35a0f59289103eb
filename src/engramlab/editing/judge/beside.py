"""What every experiment that edits can measure beside its answers: what is kept of the unedited model, tasks, means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base import bootstrap
from engramlab.base.facts import Case
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.editing.judge.abilities import Tasks, names
from engramlab.editing.judge.beyond import Beyond, passages
from engramlab.editing.judge.metrics import BEYOND
from engramlab.editing.judge.options import BesideOptions
from engramlab.files import records

#: What ``Beyond.measured`` says of a case.
MEASURED = BEYOND[:4]


def unedited(
    path: Path, options: BesideOptions, load: Callable[[], tuple[nn.Module, Any]], cases: Sequence[Case], seed: int
) -> Beyond:
    """What is measured beside answers, of the unedited model: found once, and kept in a file.

    Args:
        load: gives the model and its tokenizer, where they are needed.
        seed: of text that the model itself writes.
    """
    if not path.exists():
        about, text = load(), options.drift_text
        texts = [] if text is None else passages(*about, text, options.text_rows, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        records.write_record(path, vars(Beyond.of(*about, cases, options.fluency, texts)))
    return Beyond(**records.read_record(path, ("tokens", "texts", "fluent", "nats")))


def scored_before(path: Path, options: BesideOptions, load: Callable[[], tuple[nn.Module, Any]]) -> dict[str, float]:
    """The tasks' scores of the unedited model, found once, and kept in a file; nothing without tasks."""
    tasks = tasks_of(options)
    if tasks.names and not path.exists():
        records.write_record(path, tasks.scored(*load()))
    return records.read_record(path, ()) if tasks.names else {}


def scored(options: BesideOptions, model: nn.Module, tokenizer: Any, delta: Delta | None = None) -> list[Row]:
    """A row a task, of a model as it is, or under an edit."""
    with contextlib.nullcontext() if delta is None else deltas.active(model, delta):
        return [{"task": name, "score": score} for name, score in tasks_of(options).scored(model, tokenizer).items()]


def tasks_of(options: BesideOptions) -> Tasks:
    """The tasks that are asked for."""
    return Tasks(names(options.lm_eval), options.lm_eval_limit)


def means(rows: Iterable[Mapping[str, Any]], seed: int) -> Row:
    """Means over cases, and their 95 % intervals, of what ``Beyond.measured`` says; None where nothing was measured."""
    listed, found = list(rows), dict[str, Any]()
    for name in MEASURED:
        found |= bootstrap.mean(name, [row.get(name) for row in listed], seed)
    return found
