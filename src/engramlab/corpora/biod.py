"""bioD(N, K, C, D, L, T): people whose values are strings of tokens, with every quantity of what can be known set by itself.

Every one of N people has a name and K attributes; a value is C chunks, each one of the D chunks that its attribute has;
a chunk is a string of L of T tokens, the D of an attribute being drawn without repetition. An entry is the name and
then, in an order of its own, every attribute's token and value. Source: Physics of Language Models, Part 3.3 (arXiv
2404.05405). Ours: names are three tokens of an alphabet of their own, and an attribute is named by one token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.base.options import at_least, check_rules
from engramlab.base.random_access import draw, key, permute, random_words
from engramlab.corpora.layout import entry_indices

NAME, FIRST, REST = 1, 2, 3  # marks of tokens: of the name, of a value's first chunk, of its other chunks
PARTS = 3  # tokens of a name


@dataclass(frozen=True)
class Shape:
    """The quantities of bioD but N, the number of people."""

    attributes: int = 5
    """K: attributes a person."""
    chunks: int = 1
    """C: chunks a value."""
    diversity: int = 100
    """D: different chunks of each attribute."""
    length: int = 2
    """L: tokens a chunk."""
    alphabet: int = 50
    """T: tokens that chunks are written with."""
    name_tokens: int = 20
    """Tokens that names are written with, three a name."""

    def __post_init__(self) -> None:
        at_least(self, 1, *asdict(self), what="biod.")
        strings = self.alphabet**self.length
        check_rules(self, [("length", strings < 1 << 62, "so short that alphabet^length is below 2^62")], "biod.")
        fits = ("diversity", self.diversity <= strings, f"at most alphabet^length, {strings:,}")
        check_rules(self, [fits], "biod.")

    @property
    def names(self) -> int:
        """N0: possible names."""
        return self.name_tokens**PARTS


class Biod:
    """Entries of bioD as token ids: 0 ends a text, then the tokens of names, of attributes, and of chunks.

    Entry number m of person n is entry m * people + n.

    Raises:
        UserError: more people than names.
    """

    def __init__(self, people: int, shape: Shape = Shape(), seed: int = 0, exposures: int = 1) -> None:
        if not 1 <= people <= shape.names:
            raise UserError(f"people: {people} people need as many names, and biod.name_tokens make 1 to {shape.names}")
        self.people, self.shape, self.seed, self.exposures = people, shape, seed, exposures
        self.vocabulary = 1 + shape.name_tokens + shape.attributes + shape.alphabet
        self.width = PARTS + shape.attributes * (1 + shape.chunks * shape.length)

    def __len__(self) -> int:
        return self.people * self.exposures

    def name(self, people: Integers) -> Integers:
        """Tokens of names: int64[n, 3]."""
        numbers = permute(key(self.seed, "biod", "name"), people, self.shape.names)
        return 1 + _digits(numbers, self.shape.name_tokens, PARTS)

    def chosen(self, attribute: int, people: Integers) -> Integers:
        """Which of an attribute's D chunks make up each value: int64[n, C]."""
        shape = self.shape
        places = np.asarray(people)[:, None] * shape.chunks + np.arange(shape.chunks)
        return draw(key(self.seed, "biod", "value", attribute), places, shape.diversity)

    def value(self, attribute: int, people: Integers) -> Integers:
        """Tokens of values: int64[n, C * L]."""
        shape = self.shape
        strings = permute(
            key(self.seed, "biod", "chunks", attribute),
            self.chosen(attribute, people),
            shape.alphabet**shape.length,
        )
        first = 1 + shape.name_tokens + shape.attributes
        return first + _digits(strings, shape.alphabet, shape.length).reshape(len(people), -1)

    def used(self) -> tuple[int, ...]:
        """Of each attribute, how many of its chunks occur in somebody's value."""
        everybody = np.arange(self.people)
        return tuple(len(np.unique(self.chosen(a, everybody))) for a in range(self.shape.attributes))

    def order(self, entries: npt.ArrayLike) -> Integers:
        """The attributes in the order in which entries state them: int64[n, K]; entries may lie beyond the corpus."""
        numbers = np.atleast_1d(np.asarray(entries, np.int64))
        ranks = [random_words(key(self.seed, "biod", "order", a), numbers) for a in range(self.shape.attributes)]
        return np.argsort(np.stack(ranks, axis=1), axis=1)

    def entries(self, entries: npt.ArrayLike) -> tuple[Integers, npt.NDArray[np.int8]]:
        """Token ids and marks of entries, int64 and int8 [n, width].

        An entry's number may go beyond the corpus, to one that is not in it about a person who is.
        """
        shape, numbers = self.shape, np.atleast_1d(np.asarray(entries, np.int64))
        people = entry_indices(numbers % self.people, self.people)
        n, k = len(people), shape.attributes
        size = shape.chunks * shape.length
        stated = np.empty((n, k, 1 + size), np.int64)
        for a in range(k):
            stated[:, a, 0] = 1 + shape.name_tokens + a
            stated[:, a, 1:] = self.value(a, people)
        body = np.take_along_axis(stated, self.order(numbers)[:, :, None], axis=1)
        marks = [NAME] * PARTS + k * ([0] + [FIRST] * shape.length + [REST] * (size - shape.length))
        ids = np.concatenate([self.name(people), body.reshape(n, -1)], axis=1)
        return ids, np.broadcast_to(np.array(marks, np.int8), ids.shape)


def _digits(numbers: npt.ArrayLike, base: int, places: int) -> Integers:
    """Digits of numbers, the highest first: int64[..., places]."""
    rest = np.asarray(numbers, np.int64)
    found = []
    for _ in range(places):
        rest, digit = np.divmod(rest, base)
        found.append(digit)
    return np.stack(found[::-1], axis=-1)
