"""Shown other facts of its relation as a bare list, does the model put the right object first?

No word says what the relation is: ``x1 : y1 , x2 : y2 , ... , xn : yn , x :``. Scored are the relation's objects behind it.

Source: ZP-LKE, arXiv 2404.12957 and its released code (zero-prompt latent knowledge estimation; a context for every fact, the
sum of log-probabilities, no correction for length). Ours: several draws of the list, ties counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.options import at_least
from engramlab.base.random_access import key, permute
from engramlab.core.forward.decoding import Decoding
from engramlab.measuring.candidates import By, Choices, choose

UNIT = "share"
Form = Literal["list", "lines"]
Pair = tuple[str, str]
#: Between subject and object, and between pairs.
SEPARATORS: dict[Form, Pair] = {"list": (" :", " , "), "lines": (":", "\n")}


@dataclass(frozen=True)
class Config:
    """How the list is made."""

    shown: int = 50
    """Pairs in the list, as far as the relation has others; 0 for the bare subject."""
    form: Form = "list"
    """`list`: all in one line, as in the paper; `lines`: a pair a line (ours)."""
    draws: int = 1
    """Lists drawn; the share is a mean over them."""
    options: int = 100
    """Objects of the relation to choose from, the right one among them."""
    by: By = "sum"
    """What of an option counts: its log-probability, that of a token, of a character, or less what it has by itself."""
    seed: int = 0
    """Of the lists and the options."""

    def __post_init__(self) -> None:
        at_least(self, 0, "shown")
        at_least(self, 1, "draws")
        at_least(self, 2, "options")


def context(shown: Sequence[Pair], subject: str, form: Form = "list") -> str:
    """The list, and the subject that is asked for.

    >>> context([("France", "Paris"), ("Japan", "Tokyo")], "Italy")
    'France : Paris , Japan : Tokyo , Italy :'
    """
    inside, between = SEPARATORS[form]
    return between.join([*(f"{x}{inside} {y}" for x, y in shown), f"{subject}{inside}"])


def options(truth: Sequence[str], pool: Sequence[str], most: int, stream: int) -> list[list[str]]:
    """For each truth, itself and others of the pool, in the pool's order: all of it, or the same draw for every truth.

    Raises:
        UserError: the pool has nothing beside a truth.
    """
    every = list(dict.fromkeys(pool))
    if len(every) < 2:
        raise UserError(f"there is one object only ({', '.join(every)}): nothing to choose from")
    if len(every) > most:
        order = permute(stream, np.arange(len(every)), len(every))
        drawn = [every[i] for i in order]
        return [
            [o for o in every if o in kept] for kept in ({t, *[o for o in drawn if o != t][: most - 1]} for t in truth)
        ]
    return [every] * len(truth)


def ranked(
    model: nn.Module,
    tokenizer: Any,
    contexts: Sequence[str],
    truth: Sequence[str],
    offered: Sequence[Sequence[str]],
    *,
    by: By = "sum",
    decoding: Decoding | None = None,
) -> tuple[np.ndarray, np.ndarray, Choices]:
    """For each context: how right the choice is (1, a tied share, 0), the probability of the truth among the options, and all
    scores."""
    found = choose(model, tokenizer, contexts, offered, by=by, decoding=decoding)
    at = np.array([list(listed).index(one) for listed, one in zip(offered, truth, strict=True)])
    return found.right(at.tolist()), found.probabilities()[found.offsets[:-1] + at], found


def estimate(
    model: nn.Module, tokenizer: Any, queries: Sequence[Query], config: Config, *, decoding: Decoding | None = None
) -> np.ndarray:
    """float64 ``[queries]``: share of the lists behind which a query's target is the likeliest object of its relation.

    Lists and options are made of the other queries of the relation: their subjects (or prompts, where they name none) and
    targets. A query is never in its own list.

    Raises:
        UserError: a relation with a single object; a list beyond the model's context.
    """
    found = np.zeros(len(queries))
    relations: defaultdict[str, list[int]] = defaultdict(list)
    for i, query in enumerate(queries):
        relations[query.relation].append(i)
    for relation, members in relations.items():
        pairs = [(queries[i].subject or queries[i].prompt, queries[i].target) for i in members]
        try:
            offered = options(
                [y for _, y in pairs], [y for _, y in pairs], config.options, key(config.seed, "options", relation)
            )
        except UserError as error:
            raise UserError(f"relation {relation!r}: {error}") from None
        for drawn in range(config.draws):
            order = permute(key(config.seed, "list", relation, drawn), np.arange(len(pairs)), len(pairs))
            contexts = [
                context([pairs[k] for k in order if k != own][: config.shown], pairs[own][0], config.form)
                for own in range(len(pairs))
            ]
            right, _, _ = ranked(
                model, tokenizer, contexts, [y for _, y in pairs], offered, by=config.by, decoding=decoding
            )
            found[members] += right / config.draws
    return found
