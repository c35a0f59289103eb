"""Passages put into a stream of batches: stream + schedule -> stream.

At planned steps the front of some rows is replaced: passage, end token, and then the row's own text, cut at the window. A
batch keeps its shape, documents are not masked from each other, and everything is a target of training, the passage too.

    plan = plan_injections(groups, encode_passages(tokenizer, texts), rows=128, window=512, steps=2500, end=0)
    stream = Injected(packed, plan)

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813), "Experimental setup",
and the placement of its released code: the front of a row, one passage a row, several when there are more passages than rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from engramlab.acquisition.schedule import Encounter, Group, check_groups, fill_rows, injections_by_step
from engramlab.base import random_access
from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.core.text.batches import ALL, IGNORE, Batch, Stream
from engramlab.core.text.tokens import encode

Versions = Sequence[Sequence[Sequence[int]]]


def encode_passages(tokenizer: Any, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Token ids of each passage's original and paraphrases, without special tokens, from ``texts[passage][version]``."""
    ids, _ = encode(tokenizer, [text for versions in texts for text in versions])
    rest = iter(ids)
    return [[next(rest) for _ in versions] for versions in texts]


@dataclass(frozen=True)
class Plan:
    """Every encounter of a run, known before its first step.

    Attributes:
        groups: passages and their schedules.
        versions: token ids of ``[passage][version]``.
        encounters: by step, then row, then place: the table of what is met where.
        rows: of a batch over all workers.
        window: tokens a row.
        end: id of the token put behind each passage.
    """

    __repr__ = brief

    groups: tuple[Group, ...]
    versions: Versions
    encounters: tuple[Encounter, ...]
    rows: int
    window: int
    end: int
    _at: dict[int, list[Encounter]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for encounter in self.encounters:
            self._at.setdefault(encounter.step, []).append(encounter)

    def at(self, step: int) -> Sequence[Encounter]:
        """The encounters that enter update ``step`` -> ``step + 1``."""
        return self._at.get(step, [])

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that have any encounter, rising."""
        return tuple(self._at)

    def fingerprint(self) -> str:
        """A name of what is injected where; two plans share it only if they make the same batches."""
        text = repr((self.rows, self.window, self.end, self.encounters, [list(map(list, v)) for v in self.versions]))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def plan_injections(
    groups: Sequence[Group],
    versions: Versions,
    *,
    rows: int,
    window: int,
    steps: int,
    end: int,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> Plan:
    """Decides every encounter: which passage, in which words, in which row of which step.

    Each passage gets a row of its own, drawn by the seed and the step alone; when a step has more passages than rows, several
    are laid end to end in one.

    Args:
        groups: no passage in two of them.
        versions: token ids of ``[passage][version]``, the original first.
        rows: of a batch over all workers.
        window: tokens a row.
        steps: updates of the run.
        end: id of the token put behind each passage.
        names: of the passages, for messages; their numbers when None.

    Raises:
        UserError: a passage longer than the window or without a token, in two groups or with too few paraphrases; a last
            injection beyond the last step; more passages in a step than fit into its rows.
    """
    names = names if names is not None else [str(p) for p in range(len(versions))]
    check_groups(groups, [len(texts) for texts in versions], steps, names)
    by_step = injections_by_step(groups)
    for found in by_step.values():
        for passage, version, _ in found:
            _check_length(len(versions[passage][version]), window, names[passage], version)
    encounters: list[Encounter] = []
    for step in sorted(by_step):
        found = by_step[step]
        key = random_access.key(seed, "injection", step)
        order = random_access.permute(key, np.arange(len(found)), len(found))
        met = [found[i] for i in order.tolist()]
        lengths = [len(versions[passage][version]) for passage, version, _ in met]
        filled = fill_rows([length + 1 for length in lengths], rows, window)
        if filled is None:
            raise UserError(
                f"step {step}: {len(met)} passages ({sum(lengths) + len(met)} tokens with their end tokens) do not fit into "
                f"{rows} rows of {window} tokens; use a larger batch or window, fewer passages, or groups that start at "
                "different steps"
            )
        places = random_access.permute(key + 1, np.arange(rows), rows).tolist()
        for row, items in sorted(zip(places, filled, strict=True)):
            place = 0
            for item in items:
                passage, version, group = met[item]
                encounters.append(Encounter(step, row, place, passage, version, group, lengths[item]))
                place += lengths[item] + 1
    return Plan(tuple(groups), versions, tuple(encounters), rows, window, end)


def _check_length(tokens: int, window: int, name: str, version: int) -> None:
    which = f"passage {name}" + (f", paraphrase {version}" if version else "")
    if not tokens:
        raise UserError(f"{which}: has no token; write a text")
    if tokens + 1 > window:
        raise UserError(
            f"{which}: has {tokens} tokens and needs one more for the end token, but the window is {window}; use a window "
            f"of at least {tokens + 1} tokens or a shorter text"
        )


class Injected:
    """A stream with a plan's passages in it: the step counts the batches taken, from 0.

    Args:
        stream: packed rows of exactly the plan's window.
        plan: what to inject.
    """

    def __init__(self, stream: Stream, plan: Plan) -> None:
        self.stream, self.plan = stream, plan
        self.step = 0

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The stream's next batch (of its rows ``own``), with this step's passages.

        Raises:
            UserError: the batch has other rows than were planned for, or they are not full.
        """
        if rows != self.plan.rows:
            raise UserError(
                f"step {self.step}: {rows} rows a step, but the injections were planned for {self.plan.rows}"
            )
        batch = self.stream.take(rows, own)
        first, last, _ = own.indices(rows)
        if batch.input_ids.shape != (last - first, self.plan.window) or batch.tokens != batch.input_ids.numel():
            raise UserError(
                f"step {self.step}: the stream's batch is {tuple(batch.input_ids.shape)} with {batch.tokens} tokens, but "
                f"injection needs {last - first} full rows of {self.plan.window} tokens; pack the stream"
            )
        found = self.plan.at(self.step)
        self.step += 1
        return _inject(batch, found, self.plan, first) if found else batch

    def state(self) -> dict[str, Any]:
        """The step, the stream's own state and the plan's fingerprint."""
        return {"step": self.step, "plan": self.plan.fingerprint(), "stream": self.stream.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a saved place; raises UserError if other injections were planned when it was saved."""
        if state["plan"] != self.plan.fingerprint():
            raise UserError(
                f"checkpoint of step {state['step']}: was made with other injections (passages, schedule, batch, window or "
                "seed); go on with the same ones, or start a new run"
            )
        self.step = int(state["step"])
        self.stream.restore(state["stream"])


def _inject(batch: Batch, encounters: Sequence[Encounter], plan: Plan, first: int) -> Batch:
    """The batch with the encounters of its rows, which are ``first`` and the following of the whole batch."""
    ids, targets = batch.input_ids.clone(), batch.targets.clone()
    fronts: dict[int, list[int]] = {}
    for encounter in encounters:  # by row and place
        if first <= encounter.row < first + len(ids):
            text = plan.versions[encounter.passage][encounter.version]
            fronts.setdefault(encounter.row - first, []).extend([*text, plan.end])
    for row, front in fronts.items():
        n, kept = len(front), plan.window - len(front)
        ids[row, :n] = torch.tensor(front, dtype=ids.dtype)
        ids[row, n:] = batch.input_ids[row, :kept]
        # The own text keeps its own targets, moved along with it; before them every token of the front and the first of the
        # own text are to be predicted. What would be predicted after the last token is left out where it was left out.
        targets[row, n:] = batch.targets[row, :kept]
        targets[row, : n - 1] = ids[row, 1:n]
        targets[row, n - 1] = batch.input_ids[row, 0]
        if batch.targets[row, -1] == IGNORE:
            targets[row, -1] = IGNORE
    return Batch(ids, targets, batch.tokens, batch.source)
