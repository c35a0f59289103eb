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
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, evidence_on, lengths_of, write
from engramlab.measuring.candidates import choose


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
    """A row a fact: ``logp`` and ``held``, the object's mean log-probability a token at the edit's prompt and on average over
    held-out wordings; ``margin``, its log-probability over that of the mean wrong object; ``written`` and ``written_held``."""
    if not asked:
        return []
    queries = [Query(prompt, one.fact.object) for one in asked for prompt in (one.prompt, *one.held)]
    chances = [float(np.mean(found.logprobs)) for found in evidence_on(model, tokenizer, queries, None, None)]
    room = Room(min(MOST_NEW_TOKENS, max(lengths_of(tokenizer, queries).values()) + 2))
    texts = write(model, tokenizer, [query.prompt for query in queries], room)
    scores = choose(model, tokenizer, [one.prompt for one in asked], [(one.fact.object, *one.wrong) for one in asked])
    rows, at = [], 0
    for number, one in enumerate(asked):
        names = (one.fact.object, *one.fact.aliases)
        said = [is_answer(text, names) for text in texts[at : at + 1 + len(one.held)]]
        likely = chances[at : at + 1 + len(one.held)]
        at += 1 + len(one.held)
        own, *others = scores.of(number).tolist()
        mean = float(np.logaddexp.reduce(others) - np.log(len(others))) if others else own
        rows.append(
            {
                "logp": likely[0],
                "held": float(np.mean(likely[1:])) if one.held else None,
                "margin": own - mean,
                "written": bool(said[0]),
                "written_held": float(np.mean(said[1:])) if one.held else None,
            }
        )
    return rows
