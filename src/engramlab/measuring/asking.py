"""Asking a model: what it writes after a prompt, and how a target fares token by token; under one delta or many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Query
from engramlab.base.progress import Progress
from engramlab.core.deltas import Delta, installed
from engramlab.core.forward.generation import generate
from engramlab.core.text.tokens import encode_queries
from engramlab.measuring.scoring import score


@dataclass(frozen=True)
class Evidence:
    """A target after its prompt, token by token.

    Attributes:
        target: the text that was scored: the query's target, or what the unedited model wrote where a locality query has none.
        tokens: its token ids.
        logprobs: natural log-probability of each, given the true ones before it.
        ranks: how many tokens of the vocabulary are likelier.
        predicted: the likeliest token at each place.
    """

    target: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()

    @property
    def greedy(self) -> list[bool]:
        """Is the token the likeliest one?"""
        return [a == b for a, b in zip(self.tokens, self.predicted, strict=True)]


def contexts(model: nn.Module) -> tuple[Delta, ...]:
    """The deltas on a model that have a say in what it reads: those that no later one has taken over from."""
    there = installed(model)
    over = {id(delta.continues) for delta in there}
    return tuple(delta for delta in there if id(delta) not in over)


def in_context(deltas: Sequence[Delta], prompt: str) -> str:
    """The prompt as the model reads it under these deltas."""
    for delta in deltas:
        prompt = delta.context(prompt)
    return prompt


def write(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    new_tokens: int,
    owner: np.ndarray | None,
    progress: Progress | None,
) -> list[str]:
    """The first line (or its first ``new_tokens`` tokens) that the model writes after each prompt."""
    return generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=new_tokens,
        batch=256,
        stop_at_line_end=True,
        owner=owner,
        progress=progress,
    )


def evidence_on(
    model: nn.Module, tokenizer: Any, queries: Sequence[Query], owner: np.ndarray | None, progress: Progress | None
) -> list[Evidence]:
    """Evidence on each query's target; nothing on blank ones."""
    found = [Evidence(query.target) for query in queries]
    solid = [i for i, query in enumerate(queries) if query.target.strip()]
    encoded = encode_queries(tokenizer, [queries[i] for i in solid])
    rows = encoded.sequences
    scores = score(
        model, rows, owner=None if owner is None else owner[solid], ends=encoded.prompt_ends, progress=progress
    )
    tokens = rows.ids[rows.marks > 0]
    for i, a, b in zip(solid, scores.offsets, scores.offsets[1:], strict=False):
        columns = (v[a:b].tolist() for v in (tokens, scores.logprobs, scores.ranks, scores.predicted))
        found[i] = Evidence(queries[i].target, *map(tuple, columns))
    return found


def lengths_of(tokenizer: Any, queries: Sequence[Query]) -> dict[str, int]:
    """Tokens of every target and alias, as they are after a prompt that ends in a word."""
    texts = list(dict.fromkeys(text for query in queries for text in (query.target, *query.aliases)))
    ids = tokenizer([f" {text.strip()}" for text in texts], add_special_tokens=False)["input_ids"] if texts else []
    return {text: len(row) if text.strip() else 0 for text, row in zip(texts, ids, strict=True)}


class TokenTexts:
    """Tokens as text, each decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}

    def __call__(self, tokens: Iterable[int]) -> list[str]:
        listed = list(tokens)
        for token in listed:
            if token not in self.known:
                self.known[token] = self.tokenizer.decode([token])
        return [self.known[token] for token in listed]
