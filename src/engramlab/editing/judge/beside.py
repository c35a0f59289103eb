"""What every experiment that edits can measure beside its answers: options, what is kept of the unedited model, means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.facts import Case
from engramlab.base.options import at_least
from engramlab.base.rows import Row
from engramlab.core import deltas
from engramlab.core.deltas import Delta, WeightDelta
from engramlab.editing.judge.abilities import Tasks, check, names
from engramlab.editing.judge.beyond import Beyond, passages
from engramlab.editing.judge.metrics import BEYOND
from engramlab.files import records

#: What ``Beyond.measured`` says of a case.
MEASURED = BEYOND[:4]


@dataclass(frozen=True)
class BesideOptions:
    """What is measured of edited models beside their answers."""

    READS: ClassVar[tuple[str, ...]] = ("drift_text",)

    fluency: int = 50
    """Tokens written behind each edit's prompt, whose n-grams say how fluent the model is; 0 for none."""
    drift_text: str | None = None
    """Also measure, under every edit, the perplexity of a text: `ordinary` (a page of ours, embedded), `sampled` (the unedited
    model's own), a file, or hub:owner/name."""
    text_rows: int = 64
    """So many passages of that text, of at most 128 tokens."""
    lm_eval: str = ""
    """Tasks of lm-evaluation-harness (pip install 'engramlab[oracle]') that are scored before and after the edits, with commas
    between them, for example arc_easy,piqa; not of single edits, of which each is a model of its own."""
    lm_eval_limit: int | None = 100
    """Questions of each of these tasks; None for all."""

    def check_beside(self, many: bool, instead: str = "") -> None:
        """Checks these options.

        Args:
            many: are several edits made on one model?
            instead: what to choose so that they are; nothing where they never are.

        Raises:
            UserError: a number out of range, a text that is not there, tasks without their tool or of single edits.
        """
        at_least(self, 0, "fluency")
        at_least(self, 1, "text_rows", "lm_eval_limit")
        if self.lm_eval and not many:
            raise UserError(
                f"lm_eval: is of many edits on one model; leave it out{f', or take {instead}' * bool(instead)}"
            )
        check(self.drift_text or "", self.lm_eval)

    @property
    def tasks(self) -> Tasks:
        """The tasks by name."""
        return Tasks(names(self.lm_eval), self.lm_eval_limit)


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


def scored_before(path: Path, tasks: Tasks, load: Callable[[], tuple[nn.Module, Any]]) -> dict[str, float]:
    """The tasks' scores of the unedited model, found once, and kept in a file; nothing without tasks."""
    if tasks.names and not path.exists():
        records.write_record(path, tasks.scored(*load()))
    return records.read_record(path, ()) if tasks.names else {}


def scored_under(tasks: Tasks, model: nn.Module, tokenizer: Any, delta: Delta) -> list[Row]:
    """A row a task, of a model under an edit; none where that is no change of weights, which the tool would not see."""
    if not isinstance(delta, WeightDelta):
        return []
    with deltas.active(model, delta):
        return [{"task": name, "score": score} for name, score in tasks.scored(model, tokenizer).items()]


def means(rows: Iterable[Mapping[str, Any]], seed: int) -> Row:
    """Means over cases, and their 95 % intervals, of what ``Beyond.measured`` says; None where nothing was measured."""
    listed, found = list(rows), dict[str, Any]()
    for name in MEASURED:
        found |= bootstrap.mean(name, [row.get(name) for row in listed], seed)
    return found
