"""General ability before and after edits: the perplexity of a text, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.editing.judge import harness
from engramlab.editing.judge.beyond import ORDINARY, nats, passages
from engramlab.files import documents

_TEXTS = 64


def check(text: str, tasks: str) -> None:
    """Raises UserError for a text or a task's file that is not there, and for tasks without the tool for them."""
    if text not in ("", ORDINARY, "sampled"):
        documents.check_source(text)
    harness.check(names(tasks))


def names(tasks: str) -> list[str]:
    """Tasks with commas between them."""
    return [one.strip() for one in tasks.split(",") if one.strip()]


@dataclass(frozen=True)
class Tasks:
    """Tasks by name, and how many questions of each are asked at most."""

    names: Sequence[str] = ()
    limit: int | None = None

    def scored(self, model: nn.Module, tokenizer: Any) -> dict[str, float]:
        """By task its score (see ``harness.scored``) of the model in memory as it is; nothing is computed for no task."""
        return harness.scored(model, tokenizer, self.names, self.limit) if self.names else {}


@dataclass(frozen=True)
class Ability:
    """What a model could do before: perplexity of ``texts``, and scores of tasks by name."""

    texts: Sequence[str]
    perplexity: float | None
    tasks: Tasks
    scores: dict[str, float]

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, text: str, tasks: str, limit: int | None) -> Ability:
        """Of the model as it is; raises UserError for tasks that cannot be had."""
        texts = passages(model, tokenizer, text, _TEXTS, 0) if text else []
        listed = Tasks(names(tasks), limit)
        return cls(texts, _perplexity(model, tokenizer, texts), listed, listed.scored(model, tokenizer))

    def moved(self, model: nn.Module, tokenizer: Any) -> list[tuple[str, float | None, float | None]]:
        """Name, before and after, of the model as it is now."""
        found: list[tuple[str, float | None, float | None]] = []
        if self.texts:
            found.append(("Perplexity of ordinary text", self.perplexity, _perplexity(model, tokenizer, self.texts)))
        now = self.tasks.scored(model, tokenizer)
        return found + [(f"lm-eval {name}", self.scores.get(name), now.get(name)) for name in self.tasks.names]


def _perplexity(model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> float | None:
    found = nats(model, tokenizer, texts) if texts else None
    return None if found is None else math.exp(min(found, 700.0))
