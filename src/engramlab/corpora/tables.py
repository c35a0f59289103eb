"""The population of a user's table: one row an entity, one column an attribute.

Names and values are one piece each, so a table of a million entities is three million short strings and
little more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base.errors import UserError
from engramlab.corpora.layout import Integers, Pieces, check_attributes
from engramlab.corpora.templates import PRONOUNS
from engramlab.files.tables import Table


class Entities:
    """The population of a table: its entities, with one piece for a name and one for a value.

    Raises:
        UserError: a duplicate entity, an empty cell, an unknown pronoun, no attribute, an attribute twice.
    """

    def __init__(self, table: Table, key: str, attributes: Sequence[str], pronoun_column: str | None = None) -> None:
        self.attributes = tuple(attributes)
        check_attributes(self.attributes)
        if not self.attributes:
            raise UserError(f"{table.path}: needs at least one column besides {key!r}")
        for attribute in self.attributes:
            if self.attributes.count(attribute) > 1 or attribute == key:
                raise UserError(f"attributes: {attribute!r} is there twice, or is the key")
        names = table.full_column(key)
        _check_unique(table, key, names)
        self.pieces = ["", *(f" {name}" for name in names)]
        self._size = len(names)
        self._values = np.empty((len(names), len(self.attributes)), np.int32)
        known: dict[str, int] = {}
        for a, attribute in enumerate(self.attributes):
            cells = table.full_column(attribute)
            for cell in dict.fromkeys(cells):
                if cell not in known:
                    known[cell] = len(self.pieces)
                    self.pieces.append(f" {cell}")
            self._values[:, a] = [known[cell] for cell in cells]
        self.pronouns: tuple[str, ...] = ()
        self._pronoun = np.zeros(len(names), np.int64)
        if pronoun_column is not None:
            self._read_pronouns(table, pronoun_column)

    def _read_pronouns(self, table: Table, column: str) -> None:
        said = [cell.lower() for cell in table.full_column(column)]
        for row, word in enumerate(said):
            if word not in PRONOUNS:
                raise UserError(
                    f"{table.where(row, column)}: {word!r} is no pronoun; write one of {', '.join(PRONOUNS)}"
                )
        self.pronouns = tuple(word for word in PRONOUNS if word in said)
        self._pronoun = np.array([self.pronouns.index(word) for word in said])

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
        return np.unique(self._values[:, attribute])[:, None]

    def name(self, subject: int) -> str:
        return self.pieces[subject + 1][1:]

    def value(self, subject: int, attribute: int) -> str:
        return self.pieces[self._values[subject, attribute]][1:]


def _check_unique(table: Table, key: str, names: Sequence[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        first = seen.setdefault(name, row)
        if first != row:
            place = f"{table.where(row, key)}: {name!r}"
            raise UserError(f"{place} is already on {table.places[first]}; every entity needs one row")
