"""Whom to ask what, and what became of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.arrays import brief
from engramlab.base.facts import Query
from engramlab.core.text.tokens import EncodedQueries, encode_queries
from engramlab.measuring.looking_up import retrieved
from engramlab.measuring.scoring import score


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
            row |= bootstrap.ranged(answers.right[chosen], asked.subject[chosen], seed)
            row["chance"] = chance[group, name]
            if hits is not None and (document[asked.subject[chosen]] >= 0).all():
                row |= bootstrap.ranged(hits[chosen].any(1), asked.subject[chosen], seed, "hit")
                row["hit_1"] = float(hits[chosen, 0].mean())
            yield row


def alike(one: Answers, other: Answers) -> np.ndarray:
    """bool ``[n]``: the same tokens were said."""
    return np.array([a == b for a, b in zip(one.said, other.said, strict=True)])
