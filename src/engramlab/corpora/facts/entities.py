"""The subjects of a table of facts as a population.

Names and values are one piece each, so a table of a million entities is three million short strings and
little more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engramlab.base.arrays import Integers
from engramlab.corpora.layout import Pieces
from engramlab.corpora.templates import PRONOUNS


class Entities:
    """A population with one piece for a name and one for a value.

    Args:
        names: of the entities, each once.
        values: by attribute, one for each entity; "" where it has none.
        pronouns: "he", "she", "they" or "it" of each entity; none where sentences repeat the name.
    """

    def __init__(self, names: Sequence[str], values: Mapping[str, Sequence[str]], pronouns: Sequence[str] = ()) -> None:
        self.attributes = tuple(values)
        self.pieces = ["", *(f" {name}" for name in names)]
        self._size = len(names)
        self._values = np.empty((len(names), len(self.attributes)), np.int32)
        known = {"": 0}
        for a, cells in enumerate(values.values()):
            for cell in dict.fromkeys(cells):
                if cell not in known:
                    known[cell] = len(self.pieces)
                    self.pieces.append(f" {cell}")
            self._values[:, a] = [known[cell] for cell in cells]
        lacks = self._values == 0
        #: bool [entities, attributes]: what an entity lacks; None where none lacks anything.
        self.holes = lacks if lacks.any() else None
        said = set(pronouns)
        self.pronouns: tuple[str, ...] = tuple(word for word in PRONOUNS if word in said)
        self._pronoun = np.array([self.pronouns.index(word) for word in pronouns] or [0] * len(names), np.int64)

    def __len__(self) -> int:
        return self._size

    def pronoun(self, subjects: Integers) -> Integers:
        return self._pronoun[subjects]

    def name_pieces(self, subjects: Integers) -> Pieces:
        return (subjects + 1).astype(np.int32)[:, None]

    def value_pieces(self, attribute: int, subjects: Integers) -> Pieces:
        return self._values[subjects, attribute, None]

    def name_examples(self) -> Pieces:
        return np.arange(1, self._size + 1, dtype=np.int32)[:, None]

    def value_examples(self, attribute: int) -> Pieces:
        values = np.unique(self._values[:, attribute])
        return values[values > 0, None]

    def name(self, subject: int) -> str:
        return self.pieces[subject + 1][1:]

    def value(self, subject: int, attribute: int) -> str:
        return self.pieces[self._values[subject, attribute]][1:]
