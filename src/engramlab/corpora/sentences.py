"""A population's templates compiled to pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.corpora.layout import Marks, Pieces, PieceTable, Population, check_attributes
from engramlab.corpora.second_vocabulary import SecondTemplate
from engramlab.corpora.templates import Template

STOPS = (".", "!", "?")


class Sentences:
    """A population's templates as pieces: the part of a corpus that does not depend on the variant.

    Several corpora about one population (people and celebrities) share it, and with it their table of pieces.

    Args:
        translated: each attribute's templates a second time behind them, in the second vocabulary.

    Attributes:
        originals: how many templates of each attribute are of the first vocabulary.

    Raises:
        UserError: an attribute has no templates, or there are too many attributes.
    """

    def __init__(
        self, population: Population, templates: Sequence[Sequence[Template]], translated: bool = False
    ) -> None:
        check_attributes(population.attributes)
        for attribute, lines in zip(population.attributes, templates, strict=True):
            if not lines:
                raise UserError(f"attribute {attribute!r} has no templates")
        self.population = population
        self.attributes = population.attributes
        pronouns = population.pronouns or ("it",)
        self.forms = [(p, True) for p in pronouns] + [(p, False) for p in population.pronouns]
        self.originals = [len(lines) for lines in templates]
        self.templates = tuple((*lines, *(map(SecondTemplate, lines) if translated else ())) for lines in templates)

        table = PieceTable(population.pieces)
        self.ends_in_stop = np.array([piece.endswith(STOPS) for piece in population.pieces])
        examples = [population.value_examples(a) for a in range(len(self.attributes))]
        self.name_width = population.name_examples().shape[1]
        self.value_widths = [rows.shape[1] for rows in examples]
        self.value_width = max(self.value_widths)
        # before[a]: int32[forms, templates]; after[a]: int32[2, forms, templates], the second where the value
        # itself ends in a full stop and takes the sentence's ("in Washington, D.C. She ...").
        self.before: list[Pieces] = []
        self.after: list[Pieces] = []
        self.bare: list[npt.NDArray[np.bool_]] = []
        self._bare_values: list[Pieces | None] = []
        for rows, lines in zip(examples, self.templates, strict=True):
            frames = [[line.frame(*form) for line in lines] for form in self.forms]
            before = [[table.add(f.before) for f in form] for form in frames]
            after = [[table.add(f.after) for f in form] for form in frames]
            stopped = bool(self.ends_in_stop[rows[:, -1]].any())
            cut = after
            if stopped:
                cut = [[table.add(f.after.removeprefix(".")) for f in form] for form in frames]
            self.before.append(np.array(before, np.int32))
            self.after.append(np.array([after, cut], np.int32))
            bare = np.array([f.bare for f in frames[0]])
            self.bare.append(bare)
            self._bare_values.append(table.bare(rows[:, 0]) if bare.any() else None)
        self._bare_names = table.bare(population.name_examples()[:, 0])
        self.pieces = table.texts()
        self.marks: Marks = np.zeros((len(self.attributes), 2 + self.value_width), np.int8)  # of `sentence`
        for a, width in enumerate(self.value_widths):
            self.marks[a, 1 : 1 + width] = a + 1

    def name(self, led: Pieces, opens: bool) -> Pieces:
        """Name pieces as they stand at the opening of an entry, or later: int32[n, name_width]."""
        if not opens:
            return led
        return np.concatenate([self._bare_names[led[:, :1]], led[:, 1:]], axis=1)

    def sentence(self, a: int, form: Integers, template: Integers, values: Pieces, out: Pieces) -> None:
        """Write sentences about attribute a into int32[n, 2 + value_width]: before, value, padding, after."""
        width = self.value_widths[a]
        stopped = self.ends_in_stop[values[:, -1]].astype(np.intp)
        out[:, 0] = self.before[a][form, template]
        out[:, 1 : 1 + width] = values
        out[:, 1 + width : -1] = 0
        out[:, -1] = self.after[a][stopped, form, template]
        bare = self._bare_values[a]
        if bare is not None:
            out[:, 1] = np.where(self.bare[a][template], bare[values[:, 0]], values[:, 0])
