"""lm-evaluation-harness over a model with edits on it: its tasks, prompts and tokens; probabilities and texts by ours.

The tool by itself hands a model whole rows, which says nothing of where a prompt ends. Here it asks ``measuring.scoring`` and
``core.forward.generation``, which every other answer comes from: methods that decide at the end of a prompt, or put something
before it, take part. Of a model without such an edit the numbers are the tool's own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.generation import continuations
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import Sequences
from engramlab.files.text import read_text
from engramlab.measuring.asking import as_read
from engramlab.measuring.scoring import score

MISSING = "pip install 'engramlab[oracle]'"
#: Tokens that are written where a task names no number: the tool's own.
_NEW = 256
#: Of a task, the number that is shown: the first of these it has.
_SCORES = ("acc_norm,none", "acc,none", "exact_match,strict-match", "exact_match,none", "word_perplexity,none")


def check(tasks: Sequence[str]) -> None:
    """Raises UserError where the tool is not installed, or a task's file is not there or names no task."""
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise UserError(f"lm-eval: the tasks need lm-evaluation-harness; {MISSING}, or leave them out")
    for one in tasks:
        _named(one)


def _named(task: str) -> str:
    """A task's name: of a file what it says, or what was given."""
    if not task.endswith((".yaml", ".yml")):
        return task
    found = re.search(r"^task:\s*['\"]?([^\s'\"#]+)", read_text(task), re.MULTILINE)
    if found is None:
        raise UserError(f"lm-eval: {task} names no task; it wants a line such as task: {Path(task).stem}")
    return found[1]


@functools.cache
def _manager(folders: tuple[str, ...]) -> Any:
    """The tool's list of tasks, with those in folders of the user; it takes seconds to be made."""
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found, unused-ignore]

    return TaskManager(include_path=list(folders))


def scored(model: nn.Module, tokenizer: Any, tasks: Sequence[str], limit: int | None) -> dict[str, float]:
    """By task, as it was given, its score of the model as it is.

    Raises:
        UserError: the tool is not installed, a task is unknown to it, its data cannot be had, it draws what is written.
    """
    try:
        import lm_eval  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UserError(f"lm-eval: {error.name} is not installed; {MISSING}") from None
    named = {task: _named(task) for task in tasks}
    folders = tuple(sorted({str(Path(task).parent) for task, name in named.items() if task != name}))
    try:
        with _seeded_by_others():
            results = lm_eval.simple_evaluate(
                model=_asked(model, tokenizer),
                tasks=list(named.values()),
                limit=limit,
                bootstrap_iters=0,
                task_manager=_manager(folders),
            )["results"]
    except UserError:
        raise
    except Exception as error:  # of any kind: tasks are other people's code and data
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"lm-eval: {', '.join(tasks)} could not be run: {why}") from None
    return {
        task: float(results[name][kind])
        for task, name in named.items()
        if (kind := next((kind for kind in _SCORES if kind in results.get(name, {})), None))
    }


@contextlib.contextmanager
def _seeded_by_others() -> Iterator[None]:
    """Behind the block the generators of Python, NumPy and torch are where they were: the tool seeds all three."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _asked(model: nn.Module, tokenizer: Any) -> Any:
    """The model as the tool asks it."""
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found, unused-ignore]

    class Asked(HFLM):  # type: ignore[misc, unused-ignore]
        """Its tokens and its rolling windows; our passes."""

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **more: Any
        ) -> list[tuple[float, bool]]:
            # Running text comes without a text of its own, and has no prompt that something could stand before.
            texts = [text[0] if text and text[0] else "" for text, _, _ in requests]
            rows, marks = [], []
            for (text, prompt, target), before, read in zip(requests, texts, self._read(texts), strict=True):
                if read != before:
                    prompt, target = self._encode_pair(read, text[1])
                row = [*prompt, *target][-self.max_length - 1 :]
                rows.append(row)
                marks.append([int(k >= max(1, len(row) - len(target))) for k in range(len(row))])
            found = score(model, Sequences.of(rows, marks))
            return list(zip(found.sum_logprob().tolist(), found.exact().tolist(), strict=True))

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            given = [request.args for request in requests]
            written = [""] * len(given)
            for number, some in _by_room([how for _, how in given]).items():
                kept = max(1, self.max_length - number)
                read = self._read([given[i][0] for i in some])
                prompts = [self.tok_encode(text)[-kept:] for text in read]
                found = continuations(model, tokenizer, prompts, max_new_tokens=number, stripped=False)
                for i, (text, _) in zip(some, found, strict=True):
                    written[i] = _cut(text, given[i][1])
            return written

        def _read(self, texts: Sequence[str]) -> list[str]:
            """The texts as the model reads them; one that is empty stays so."""
            some = [i for i, text in enumerate(texts) if text]
            read = dict(zip(some, as_read(model, tokenizer, [texts[i] for i in some]), strict=True))
            return [read.get(i, text) for i, text in enumerate(texts)]

    limit = context_limit(model)
    more = (
        {} if limit is None else {"max_length": limit - 1}
    )  # its rows have a token more than it means the model to read
    # A copy: the tool gives a tokenizer without one a pad token, and this one is saved with the edited model.
    return Asked(pretrained=model, tokenizer=copy.deepcopy(tokenizer), backend="causal", **more)


def _by_room(given: Sequence[Mapping[str, Any]]) -> dict[int, list[int]]:
    """The requests by how many tokens may be written. Raises UserError for one that is to be drawn."""
    found: dict[int, list[int]] = {}
    for i, how in enumerate(given):
        if how.get("do_sample") and how.get("temperature", 1.0):
            raise UserError(
                "lm-eval: a task that draws what is written is not asked here; choose one that takes the likeliest"
            )
        number = next((how[name] for name in ("max_gen_toks", "max_new_tokens") if how.get(name)), _NEW)
        found.setdefault(int(number), []).append(i)
    return found


def _cut(text: str, how: Mapping[str, Any]) -> str:
    """What was written, up to the first of a task's stops."""
    stops = how.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
