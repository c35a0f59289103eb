"""A population's templates compiled to pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.corpora.layout import NAME, Layout, Marks, Pieces, PieceTable, Population, check_attributes
from engramlab.corpora.second_vocabulary import SecondTemplate
from engramlab.corpora.templates import Frame, Template

STOPS = (".", "!", "?")


@dataclass(frozen=True)
class _Moving:
    """What an attribute's templates need beside `Sentences.before` and `after` where a subject may stand anywhere.

    Attributes:
        lead: int32[2, forms, templates], the second where the sentence is not the first of its text.
        before, after: int32[2, forms, templates], the second behind a name or value that ends in a full stop.
        opens, turned, bare_name: bool[templates], as of `Template` and `Frame`.
    """

    lead: Pieces
    before: Pieces
    after: Pieces
    opens: npt.NDArray[np.bool_]
    turned: npt.NDArray[np.bool_]
    bare_name: npt.NDArray[np.bool_]


def _spaced(led: Pieces, bare: npt.NDArray[np.bool_], to: Pieces | None) -> Pieces:
    """Names or values, int32[n, w], without their leading space where they are bare; `to` maps such pieces."""
    if to is None:
        return led
    return np.concatenate([np.where(bare[:, None], to[led[:, :1]], led[:, :1]), led[:, 1:]], axis=1)


class Sentences:
    """A population's templates as pieces: the part of a corpus that does not depend on the variant.

    Several corpora about one population (people and celebrities) share it, and with it their table of pieces.

    Args:
        translated: each attribute's templates a second time behind them, in the second vocabulary.

    Attributes:
        originals: how many templates of each attribute are of the first vocabulary.
        moved: has any template its subject elsewhere than at its start? Then sentences are made by `whole`, and of `marks` and
            `sentence` there is no use.

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
        self._named = np.array([named for _, named in self.forms])
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
            opened = any(f.turned for f in frames[0])  # by a value, which has no space before it then
            self._bare_values.append(table.bare(rows[:, 0]) if bare.any() or opened else None)
        self._bare_names = table.bare(population.name_examples()[:, 0])
        self.moved = any(not line.opens for lines in self.templates for line in lines)
        self._moved = [self._moving(table, a) for a in range(len(self.attributes))] if self.moved else []
        self.pieces = table.texts()
        self.marks: Marks = np.zeros((len(self.attributes), 2 + self.value_width), np.int8)  # of `sentence`
        for a, width in enumerate(self.value_widths):
            self.marks[a, 1 : 1 + width] = a + 1

    def _moving(self, table: PieceTable, a: int) -> _Moving:
        """The rest of what attribute a's templates are made of, where a subject may stand elsewhere than at the start."""
        frames = [[line.frame(*form) for line in self.templates[a]] for form in self.forms]

        def pieces(text: Callable[[Frame], str]) -> Pieces:
            return np.array([[table.add(text(frame)) for frame in of] for of in frames], np.int32)

        def flags(flag: Callable[[Template, Frame], bool]) -> npt.NDArray[np.bool_]:
            return np.array([flag(*both) for both in zip(self.templates[a], frames[0], strict=True)])

        lead = np.stack([pieces(lambda f: f.lead), pieces(lambda f: f.lead and f" {f.lead}")])
        before, after = self.before[a], self.after[a][0]
        cut = before, after
        if self.ends_in_stop.any():
            cut = pieces(lambda f: f.before.removeprefix(".")), pieces(lambda f: f.after.removeprefix("."))
        return _Moving(
            lead=lead,
            before=np.stack([before, cut[0]]),
            after=np.stack([after, cut[1]]),
            opens=flags(lambda line, _: line.opens),
            turned=flags(lambda _, frame: frame.turned),
            bare_name=flags(lambda _, frame: frame.bare_name),
        )

    def whole(
        self,
        a: int,
        form: Integers,
        template: Integers,
        values: Pieces,
        names: Pieces,
        opens: npt.NDArray[np.bool_],
    ) -> Layout:
        """Sentences about attribute a, wherever the templates have their subject; only where there are `moved` ones.

        Args:
            form, template: int64[n].
            values, names: led, int32[n, their width].
            opens: bool[n]: does the sentence open its text?

        Returns:
            n rows: what opens the sentence, the name or the value, a text, the other of the two, and the end; the shorter
            of the two is padded.
        """
        parts, width = self._moved[a], max(self.name_width, self.value_width)
        lead = parts.lead[(~opens).astype(np.intp), form, template]
        plain, turned = parts.opens[template], parts.turned[template]
        starts = lead == 0  # with its name or its value
        bare_name = np.where(starts & ~turned, opens, parts.bare_name[template])
        bare_value = np.where(starts & turned, opens, self.bare[a][template])
        name = _spaced(names, bare_name, self._bare_names) * (~plain | self._named[form])[:, None]
        value = _spaced(values, bare_value, self._bare_values[a])
        name, value = (np.pad(slot, ((0, 0), (0, width - slot.shape[1]))) for slot in (name, value))
        stops = self.ends_in_stop[names[:, -1]], self.ends_in_stop[values[:, -1]]
        first, last = np.where(turned, stops[::-1], stops)
        pieces = np.zeros((len(form), 3 + 2 * width), np.int32)
        marks = np.zeros(pieces.shape, np.int8)
        pieces[:, 0] = lead
        pieces[:, 1 : 1 + width] = np.where(turned[:, None], value, name)
        pieces[:, 1 + width] = parts.before[(first & ~plain).astype(np.intp), form, template]
        pieces[:, 2 + width : -1] = np.where(turned[:, None], name, value)
        pieces[:, -1] = parts.after[last.astype(np.intp), form, template]
        marks[:, 1 : 1 + width] = np.where(turned, a + 1, NAME)[:, None]
        marks[:, 2 + width : -1] = np.where(turned, NAME, a + 1)[:, None]
        return Layout(pieces, marks)

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
