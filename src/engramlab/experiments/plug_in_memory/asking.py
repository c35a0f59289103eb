"""Whom to ask what, and what became of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from engramlab.base import bootstrap
from engramlab.base.arrays import brief
from engramlab.base.facts import Query
from engramlab.core import deltas
from engramlab.core.forward.hooks import mode
from engramlab.core.models import mask_token
from engramlab.core.text.tokens import EncodedQueries, encode_queries
from engramlab.measuring.scoring import score

SAMPLES = 1000
_ROWS = 256  # a pass


@dataclass(frozen=True)
class Asked:
    """Questions about some subjects.

    Attributes:
        encoded: as token rows.
        subject, attribute: int64 ``[n]``: whom each is about, and what it asks for.
        group: str ``[n]``.
        names: of the attributes.
    """

    __repr__ = brief

    encoded: EncodedQueries
    subject: np.ndarray
    attribute: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]

    def take(self, chosen: np.ndarray) -> Asked:
        """Those where ``chosen``, bool ``[n]``."""
        at, whole = np.flatnonzero(chosen), self.encoded
        queries = tuple(whole.queries[i] for i in at)
        encoded = EncodedQueries(queries, np.arange(len(at)), whole.sequences.take(at), (), whole.prompt_ends[at])
        return Asked(encoded, self.subject[at], self.attribute[at], self.group[at], self.names)


@dataclass(frozen=True)
class Answers:
    """What was said.

    Attributes:
        right: bool ``[n]``: all tokens of the answer.
        said: the tokens put in its place.
        found: int64 ``[n, k]``: numbers of the documents read, the nearest first; None without a memory.
    """

    __repr__ = brief

    right: np.ndarray
    said: tuple[tuple[int, ...], ...]
    found: np.ndarray | None


def encoded(tokenizer: Any, queries: Sequence[Query], masked: bool) -> EncodedQueries:
    """Questions as they stand in training: of a causal network with the end token behind the answer."""
    return encode_queries(tokenizer, queries, end=not masked)


def ask(model: nn.Module, asked: Asked) -> Answers:
    """Asks; the network is in evaluation mode, so that rows do not depend on each other."""
    rows, ends = asked.encoded.sequences, asked.encoded.prompt_ends
    scores = score(model, rows, ends=ends)
    said = tuple(
        tuple(scores.predicted[a:b].tolist()) for a, b in zip(scores.offsets, scores.offsets[1:], strict=False)
    )
    return Answers(scores.exact(), said, retrieved(model, asked.encoded) if len(model.memory) else None)  # type: ignore[arg-type]


@torch.inference_mode()
def retrieved(model: Any, asked: EncodedQueries) -> np.ndarray:
    """int64 ``[n, k]``: the documents that the lowest layer that looks up reads for each question, the nearest first."""
    rows, hidden = asked.sequences, mask_token(model)
    device = next(model.parameters()).device
    parts = []
    with mode(model, False):
        for start in range(0, len(rows), _ROWS):
            numbers = range(start, min(start + _ROWS, len(rows)))
            spans = [slice(rows.offsets[i], rows.offsets[i + 1]) for i in numbers]
            ids = pad_sequence([torch.from_numpy(rows.ids[s].astype(np.int64)) for s in spans], batch_first=True)
            inside = torch.arange(ids.shape[1]) < torch.from_numpy(rows.lengths[numbers.start : numbers.stop])[:, None]
            if hidden is not None:
                goals = pad_sequence([torch.from_numpy(rows.marks[s] > 0) for s in spans], batch_first=True)
                ids = ids.masked_fill(goals, hidden)
            ends = torch.from_numpy(asked.prompt_ends[numbers.start : numbers.stop])
            with deltas.routing(model, ends.to(device)):
                model(input_ids=ids.to(device), attention_mask=inside.to(device), use_cache=False)
            parts.append(model.looking()[0].found.numbers.cpu().numpy())
    return np.concatenate(parts)


def ranged(values: np.ndarray, subject: np.ndarray, seed: int, name: str = "exact_match") -> dict[str, Any]:
    """The mean of ``values[n]`` as ``name`` and its 95 % interval over subjects as ``name_low`` and ``name_high``."""
    _, of = np.unique(subject, return_inverse=True)
    sums = np.bincount(of, values.astype(np.float64)).astype(np.float64)[None]
    counts = np.bincount(of)
    (low,), (high,) = bootstrap.intervals(bootstrap.ratios(sums, counts, SAMPLES, seed))
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def rows_of(
    asked: Asked, answers: Answers, document: np.ndarray, chance: dict[tuple[str, str], float], seed: int
) -> Iterator[dict[str, Any]]:
    """A row a group and attribute, and "mean" of all: exact match with its interval, and how often the subject's document was
    the nearest (``hit_1``) or among those read (``hit``).

    Args:
        document: int64 ``[subjects]``: the number of each subject's document; -1 where it has none.
    """
    hits = None if answers.found is None else answers.found == document[asked.subject][:, None]
    for group in dict.fromkeys(asked.group.tolist()):
        for a, name in [*enumerate(asked.names), (None, "mean")]:
            chosen = asked.group == group if a is None else (asked.group == group) & (asked.attribute == a)
            if not chosen.any():
                continue
            row: dict[str, Any] = {"group": group, "attribute": name, "questions": int(chosen.sum())}
            row |= ranged(answers.right[chosen], asked.subject[chosen], seed)
            row["chance"] = chance[group, name]
            if hits is not None and (document[asked.subject[chosen]] >= 0).all():
                row |= ranged(hits[chosen].any(1), asked.subject[chosen], seed, "hit")
                row["hit_1"] = float(hits[chosen, 0].mean())
            yield row


def alike(one: Answers, other: Answers) -> np.ndarray:
    """bool ``[n]``: the same tokens were said."""
    return np.array([a == b for a, b in zip(one.said, other.said, strict=True)])
