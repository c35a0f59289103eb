"""How many bits a network has stored at least, from its losses: the paper's definition, its theorem's, and ours.

Source: Physics of Language Models, Part 3.3 (arXiv 2404.05405). N people have names drawn from N0 possible ones and
values from S0 possible combinations; p1 is the loss on names and p2 that on values, in nats a person, summed over
tokens. The paper's

- definition is R = (N log2(N0 / e^p1) + N log2(S0 / e^p2)) / parameters, and Rmax = (N log2(N0 / N) + N log2 S0) / parameters;
- theorem, which a bound must rest on, has N0 - N in the place of N0 (``theorem``).

Ours is exact: with the network as a code, the people can be written down in N (p1 + p2) / ln 2 bits, and without it a
list of N different names takes log2(N0 (N0 - 1) ... (N0 - N + 1)) bits and values N log2 S0. The difference must be in
the network. One that knows which N names there are still has p1 >= ln N, so at most log2 C(N0, N) bits are counted for
names, less what the order of a list takes, which is no knowledge. Beside the sum there are

- ``unclamped``: the same sum, which a bad network brings far below zero;
- ``bits``: every attribute for itself and none below zero. That keeps the bound, since attributes are independent.

Where a value's tokens begin another's (Texas A&M University, Texas A&M University-Corpus Christi) a guesser who knows
nothing has a lower loss than ln of the pool's size; ``guess`` is that loss, and stands in the pool's place in ours, so
that guessing stores exactly nothing.

bioD(N, K, C, D, L, T) has N people with K attributes, every value made of C chunks out of the D that its attribute has,
a chunk being L of T tokens. The paper's theorem has three terms, of names, values and the sets of chunks ("diversity"):

    N log2((N0 - N) / e^p1) + N K log2(D^C / e^p2) + K D log2((T^L - D) / (D e^p3))

with p2 the loss on a whole value and p3 that on its first chunk; its R has N0 and T^L in the places of the differences.
Ours needs no third loss: written down value by value, with the network as a code, the values show their chunks as well,
and together they are one of so many possible worlds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def log2_lists(total: int, taken: int) -> float:
    """log2 of the number of lists of so many different ones of a total: total (total - 1) ... (total - taken + 1)."""
    if taken > total:
        return -math.inf
    if total > 1 << 40:  # where lgamma has no digits left
        return taken * math.log2(total) + math.log2(math.e) * -taken * (taken - 1) / 2 / total
    return (math.lgamma(total + 1) - math.lgamma(total - taken + 1)) / math.log(2)


def _theorem(names: int, people: int, loss: float) -> float:
    """The theorem's term of names; where every name is taken it says nothing, not even for a loss of 0."""
    return people * (math.log2(max(names - people, 1)) - loss / math.log(2))


@dataclass(frozen=True)
class Biographies:
    """What can be known of people: the sizes of pools, and what a guesser loses.

    names: N0. sizes: by attribute, how many values there are. guesses: by attribute and "name", nats a person.
    """

    names: int
    sizes: Mapping[str, int]
    guesses: Mapping[str, float]

    def parts(self, people: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Bits of names and of each attribute, which may lie below zero."""
        found = {name: people * (guess - losses[name]) / math.log(2) for name, guess in self.guesses.items()}
        found["name"] += log2_lists(self.names, people) - people * math.log2(self.names)
        return found

    def bits(self, people: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Everything a row says of bits; ``losses`` by attribute and "name", nats a person."""
        values = people * sum(math.log2(size) - losses[name] / math.log(2) for name, size in self.sizes.items())
        known = {name: math.log(people) if name == "name" else 0.0 for name in self.guesses}
        parts = self.parts(people, losses)
        return {
            "bits": sum(max(0.0, part) for part in parts.values()),
            "possible_bits": sum(max(0.0, part) for part in self.parts(people, known).values()),
            "bits_unclamped": sum(parts.values()),
            "bits_paper": people * (math.log2(self.names) - losses["name"] / math.log(2)) + values,
            "bits_theorem": _theorem(self.names, people, losses["name"]) + values,
            "possible_paper": people * (math.log2(self.names / people) + sum(map(math.log2, self.sizes.values()))),
            **{f"bits_{name}": max(0.0, part) for name, part in parts.items()},
        }


@dataclass(frozen=True)
class Chunks:
    """What can be known of the values of bioD.

    names: N0. attributes: K. chunks: C. diversity: D. length: L. alphabet: T. used: of each attribute, how many of its
    D chunks occur among the people.
    """

    names: int
    attributes: int
    chunks: int
    diversity: int
    length: int
    alphabet: int
    used: tuple[int, ...]

    def worlds(self, people: int) -> float:
        """log2 of 1 / the probability of just these values: chunks drawn without, values with replacement."""
        strings, places = self.alphabet**self.length, people * self.chunks
        return sum(
            log2_lists(strings, d) - log2_lists(self.diversity, d) + places * math.log2(self.diversity)
            for d in self.used
        )

    def bits(self, people: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Everything a row says of bits; ``losses``: "name" a person, "value" and "first_chunk" a value, nats."""
        k, d, strings = self.attributes, self.diversity, self.alphabet**self.length
        nats = {name: loss / math.log(2) for name, loss in losses.items()}
        names = log2_lists(self.names, people) - people * nats["name"]
        values = self.worlds(people) - people * k * nats["value"]
        terms = {
            "paper_name": _theorem(self.names, people, losses["name"]),
            "paper_value": people * k * (self.chunks * math.log2(d) - nats["value"]),
            "paper_diversity": k * d * (math.log2(max(strings - d, 1) / d) - nats["first_chunk"]),
        }
        most = max(0.0, log2_lists(self.names, people) - people * math.log2(people))
        theirs = people * math.log2(self.names / people) + people * k * self.chunks * math.log2(d)
        defined = terms | {
            "paper_name": people * (math.log2(self.names) - nats["name"]),
            "paper_diversity": k * d * (math.log2(strings / d) - nats["first_chunk"]),
        }
        return {
            "bits": max(0.0, names) + max(0.0, values),
            "possible_bits": most + self.worlds(people),
            "bits_unclamped": names + values,
            "bits_paper": sum(defined.values()),
            "bits_theorem": sum(terms.values()),
            "possible_paper": theirs + k * d * math.log2(strings / d),
            "bits_name": max(0.0, names),
            "bits_values": max(0.0, values),
            **terms,
        }
