"""What a model says of some facts at a moment: how likely their objects are, by how much above wrong ones, whether written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Fact, Query
from engramlab.base.random_access import key, permute
from engramlab.base.rows import Row
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, lengths_of, write
from engramlab.measuring.candidates import choose_by


@dataclass(frozen=True)
class Asked:
    """A fact and how it is asked for.

    Attributes:
        prompt: the wording that is edited with.
        held: wordings that nothing is ever edited with or trained on.
        wrong: objects of the relation that are not the fact's.
    """

    fact: Fact
    prompt: str
    held: tuple[str, ...]
    wrong: tuple[str, ...]


def wrong_objects(fact: Fact, choices: Mapping[str, Sequence[str]], most: int, seed: int) -> tuple[str, ...]:
    """At most so many of the relation's other objects, drawn by the seed; none that is a spelling of the fact's own."""
    own = {name.strip().casefold() for name in (fact.object, *fact.aliases)}
    others = [one for one in choices[fact.relation] if one.strip().casefold() not in own]
    if not others:
        return ()
    order = permute(key(seed, "wrong objects", fact.relation, fact.subject), range(len(others)), len(others))
    return tuple(others[i] for i in order.tolist()[:most])


def look(model: nn.Module, tokenizer: Any, asked: Sequence[Asked]) -> list[Row]:
    """A row a fact, at the edit's prompt: ``logp``, the object's mean log-probability a token; ``margin``, its log-probability
    over that of the mean wrong object; ``written``, is it what the model writes.

    A run looks dozens of times, so nothing is read that no result is made of, and each prompt is read once for all its options.
    """
    if not asked:
        return []
    prompts = [one.prompt for one in asked]
    room = lengths_of(tokenizer, [Query(one.prompt, one.fact.object) for one in asked])
    texts = write(model, tokenizer, prompts, Room(min(MOST_NEW_TOKENS, max(room.values()) + 2)))
    scores = choose_by(model, tokenizer, prompts, [(one.fact.object, *one.wrong) for one in asked], ["sum", "mean"])
    rows = []
    for number, one in enumerate(asked):
        own, *others = scores["sum"].of(number).tolist()
        mean = float(np.logaddexp.reduce(others) - np.log(len(others))) if others else own
        rows.append(
            {
                "logp": float(scores["mean"].of(number)[0]),
                "margin": own - mean,
                "written": is_answer(texts[number], (one.fact.object, *one.fact.aliases)),
            }
        )
    return rows
