"""How many bits of biographies a model stores at least, from its losses.

Source: Physics of Language Models, Part 3.3 (arXiv 2404.05405): of N people whose names were drawn from N0 possible ones and
whose values from S0 possible combinations, a model with loss p1 on names and p2 on values (nats a person, summed over tokens)
stores at least about

    N log2(N0 / e^p1) + N log2(S0 / e^p2)   bits.

Why: with the model as a code, the people can be written down in N (p1 + p2) / ln 2 bits, and without it they need
N log2(N0 S0). The difference must be in the model. A model that knows which N names there are still has p1 >= ln N, since its
N probabilities add up to 1 at most; so at most N log2(N0 / N) bits are counted for names. That is a little less than the
log2 C(N0, N) bits there are, by at most N log2(e): the order of people in a list is no knowledge.

Ours:

- Pools are ours: by default N0 = 400 x 400 x 1000 names; 200 x 12 x 28 birth dates, 200 birth cities, 300 universities, 100
  majors, 263 employers, so log2 S0 = 46.6 bits a person (the paper has 47.6: it counts a gender, which we leave out although
  our people have pronouns; the bound stays one). The work city is a function of the employer and carries no bits of its own.
- Values are measured in entries of fixed order, where the employer stands before its city: nothing that is read before a value
  says anything about it but the name. All tokens of a value are summed and averaged over people.
- Each attribute is counted for itself and none below zero. That keeps the bound, since attributes are independent.
- Where a value's tokens begin another's (Texas A&M University, Texas A&M University-Corpus Christi) a guesser who knows
  nothing has a lower loss than ln of the pool's size; ``guess`` is that loss, and stands in the pool's place, so that
  guessing stores exactly nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def guess(values: Sequence[tuple[int, ...]]) -> float:
    """Mean loss in nats of the uniform distribution over these token rows, which are read up to their own last token."""
    if len(set(values)) != len(values):
        raise ValueError("values must differ")
    begins: dict[tuple[int, ...], int] = {}
    for value in values:
        for end in range(1, len(value) + 1):
            begins[value[:end]] = begins.get(value[:end], 0) + 1
    return float(np.mean([math.log(len(values) / begins[value]) for value in values]))


def stored(people: int, guesses: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, float]:
    """Bits stored at least, of names and of each attribute.

    Args:
        people: N.
        guesses: by attribute (and "name"), the loss of a guesser who knows nothing, nats a person.
        losses: by attribute (and "name"), the model's.
    """
    return {name: people * max(0.0, guesses[name] - losses[name]) / math.log(2) for name in guesses}


def possible(people: int, guesses: Mapping[str, float]) -> dict[str, float]:
    """The most that ``stored`` can say: names known as a set (a loss of ln N), and every value known."""
    return stored(people, guesses, {name: math.log(people) if name == "name" else 0.0 for name in guesses})
