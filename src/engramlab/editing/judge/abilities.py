"""General ability before and after edits: the perplexity of a text, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.editing import method
from engramlab.editing.judge.beyond import ORDINARY, nats, passages
from engramlab.files import documents

_TEXTS = 64
#: Of a task, the number that is shown: the first of these it has.
_SCORES = ("acc_norm,none", "acc,none", "exact_match,strict-match", "exact_match,none", "word_perplexity,none")


def check(text: str, tasks: str, methods: Sequence[str] = ()) -> None:
    """Raises UserError for a text that is not there, for tasks without the tool for them, and for tasks after edits by methods
    that the tool would not see."""
    if names(tasks) and (unseen := [name for name in dict.fromkeys(methods) if not method.in_weights(name)]):
        raise UserError(_unseen(", ".join(unseen)))
    if text not in ("", ORDINARY, "sampled"):
        documents.check_source(text)
    if names(tasks) and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-eval: the tasks need lm-evaluation-harness; pip install 'engramlab[oracle]', or leave them out"
        )


def _unseen(who: str) -> str:
    seen = ", ".join(name for name in method.names() if method.in_weights(name))
    return (
        f"lm-eval: what {who} does goes by where a prompt ends, which lm-evaluation-harness does not say; leave the tasks out, "
        f"or edit an unedited model by one of: {seen}"
    )


def names(tasks: str) -> list[str]:
    """Tasks with commas between them."""
    return [one.strip() for one in tasks.split(",") if one.strip()]


@dataclass(frozen=True)
class Tasks:
    """Tasks by name, and how many questions of each are asked at most."""

    names: Sequence[str] = ()
    limit: int | None = None

    def scored(self, model: nn.Module, tokenizer: Any) -> dict[str, float]:
        """By task its score, by lm-evaluation-harness on the model in memory as it is; nothing is computed for no task.

        Raises:
            UserError: the tool is not installed, a task is unknown to it, or its data cannot be had; what is on the model, or
                the network itself, goes by where a prompt ends, which the tool does not say.
        """
        if not self.names:
            return {}
        kinds = dict.fromkeys(d.kind for d in deltas.installed(model) if not isinstance(d, deltas.WeightDelta))
        if kinds or deltas.routed(model):
            raise UserError(_unseen(", ".join(kinds) or "this network"))
        try:
            import lm_eval  # type: ignore[import-not-found, unused-ignore]
            from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise UserError(f"lm-eval: {error.name} is not installed; pip install 'engramlab[oracle]'") from None
        try:
            # A copy: the tool gives a tokenizer without one a pad token, and this one is saved with the edited model.
            wrapped = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal")
            found = lm_eval.simple_evaluate(model=wrapped, tasks=list(self.names), limit=self.limit, bootstrap_iters=0)
        except Exception as error:  # of any kind: tasks are other people's code and data
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UserError(f"lm-eval: {', '.join(self.names)} could not be run: {why}") from None
        results = found["results"]
        return {
            task: float(results[task][name])
            for task in self.names
            for name in _SCORES
            if name in results.get(task, {}) and name == next(one for one in _SCORES if one in results[task])
        }


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
