"""Biography entries: one sentence an attribute, about any population, in any variant.

Entry number m of subject s is entry m * subjects + s (behind the last, their counterparts in the second vocabulary where the
variant has such): entries of one subject lie as far apart as can be, even
for a reader that does not shuffle. Random draws belong to (purpose, subject, m), so variants nest: the entry
of `single` is also the first entry of `multi5`, and the first five of `multi7` are those of `multi5`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers
from engramlab.base.facts import Passage
from engramlab.base.random_access import draw, key, random_words
from engramlab.corpora.coverage import complete, entry_contexts
from engramlab.corpora.layout import NAME, Layout, Marks, Pieces, as_passages, entry_indices, holes_of
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.variants import Variant


class EntryCorpus:
    """The entries of the subjects [start, stop) of a population: a `Corpus`.

    couples: for "couple" variants, the groups of attributes whose sentences stay together in this order; they
        must name every attribute once. By default consecutive attributes two by two, the last alone where
        their number is odd.
    templates: for each attribute the numbers of the templates to draw from; all by default.
    """

    def __init__(
        self,
        sentences: Sentences,
        variant: Variant,
        seed: int = 0,
        subjects: range | None = None,
        couples: Sequence[Sequence[int]] | None = None,
        templates: Sequence[range] | None = None,
    ) -> None:
        self.sentences = sentences
        self.population = sentences.population
        self.variant = variant
        self.attributes = sentences.attributes
        self.subjects = range(len(self.population)) if subjects is None else subjects
        count = len(self.attributes)
        if variant.kind == "couple":
            groups = couples or [range(a, min(a + 2, count)) for a in range(0, count, 2)]
        else:
            groups = [(a,) for a in range(count)]
        width = max(len(group) for group in groups)
        self._groups = np.array([[*group, *[-1] * (width - len(group))] for group in groups])
        self._shuffles = variant.permute or variant.kind == "couple"
        self._holes = holes_of(self.population)
        self.repeats_name = variant.fullname or not self.population.pronouns
        self._used = self._used_columns()
        self.templates = templates or [range(lines) for lines in sentences.originals]
        self._template_keys = [key(seed, "template", a) for a in range(count)]
        self._order_keys = [key(seed, "order", group) for group in range(len(groups))]

    @property
    def pieces(self) -> Sequence[str]:
        return self.sentences.pieces

    def __len__(self) -> int:
        return len(self.subjects) * self.variant.texts

    def subject(self, entries: npt.ArrayLike) -> Integers:
        """Whom entries are about: int64[n], indices into the population."""
        return entry_indices(entries, len(self)) % len(self.subjects) + self.subjects.start

    def first_entry(self, subjects: npt.ArrayLike) -> Integers:
        """The first entry about each of these subjects, given as indices into the population: int64[n]."""
        return np.asarray(subjects, np.int64) - self.subjects.start

    def drawn(self, entries: npt.ArrayLike) -> tuple[Integers, Integers | None]:
        """How entries are written: two about one subject for which all of it is the same are one text.

        Returns:
            int64 ``[n, attributes]``: the template of each attribute, behind the first vocabulary's that of the second; and the
            attributes in the order of their sentences, None where that is their own.
        """
        indices = entry_indices(entries, len(self))
        number, position = np.divmod(indices, len(self.subjects))
        second, number = np.divmod(number, self.variant.entries)  # 1 in the second vocabulary, with the first's draws
        subjects = position + self.subjects.start
        tag = (subjects << 16) + number
        template_tag = subjects << 16 if self.variant.kind == "single" else tag
        templates = np.empty((len(indices), len(self.attributes)), np.int64)
        for a, (stream, own) in enumerate(zip(self._template_keys, self.templates, strict=True)):
            templates[:, a] = draw(stream, template_tag, len(own)) + own.start + second * self.sentences.originals[a]
        return templates, self._order(tag) if self._shuffles else None

    def layout(self, entries: npt.ArrayLike) -> Layout:
        indices = entry_indices(entries, len(self))
        n, count = len(indices), len(self.attributes)
        subjects = indices % len(self.subjects) + self.subjects.start
        pronoun = self.population.pronoun(subjects)
        later = pronoun if self.repeats_name else pronoun + len(self.population.pronouns)
        templates, order = self.drawn(indices)
        lacking = None
        if self._holes is not None:  # what a subject lacks is no sentence: such come last, and are emptied
            order = np.broadcast_to(np.arange(count), (n, count)) if order is None else order
            lacking = np.take_along_axis(self._holes[subjects], order, axis=1)
            last = np.argsort(lacking, axis=1, kind="stable")
            order = np.take_along_axis(order, last, axis=1)
            lacking = np.take_along_axis(lacking, last, axis=1)

        if self.sentences.moved:
            return self._whole(subjects, templates, (pronoun, later), order, lacking)
        blocks = np.empty((count, n, 2 + self.sentences.value_width), np.int32)
        for a in range(count):
            if order is None:
                form = pronoun if a == 0 else later
            else:
                form = np.where(order[:, 0] == a, pronoun, later)
            self.sentences.sentence(a, form, templates[:, a], self.population.value_pieces(a, subjects), blocks[a])
        names = self.population.name_pieces(subjects)
        if order is None:
            marks = np.broadcast_to(self.sentences.marks, (n, *self.sentences.marks.shape))
            return self._join(names, blocks.transpose(1, 0, 2), marks)
        rows = order * n + np.arange(n)[:, None]
        body = blocks.reshape(count * n, blocks.shape[2]).take(rows, axis=0)
        return self._join(names, body, self.sentences.marks.take(order, axis=0), lacking)

    def _order(self, tag: Integers) -> Integers:
        """The attributes in the order of their sentences: int64[n, attributes], shuffled by groups."""
        ranks = np.stack([random_words(stream, tag) for stream in self._order_keys], axis=1)
        attributes = self._groups[np.argsort(ranks, axis=1)]
        return attributes[attributes >= 0].reshape(len(tag), len(self.attributes))

    def _whole(
        self,
        subjects: Integers,
        templates: Integers,
        forms: tuple[Integers, Integers],
        order: Integers | None,
        lacking: npt.NDArray[np.bool_] | None,
    ) -> Layout:
        """`layout` where a subject may stand anywhere in its sentence; ``forms``: of the first sentence, and of later ones."""
        n, count = templates.shape
        order = np.broadcast_to(np.arange(count), (n, count)) if order is None else order
        names = self.population.name_pieces(subjects)
        said = []
        for a in range(count):
            opens = order[:, 0] == a
            values = self.population.value_pieces(a, subjects)
            said.append(self.sentences.whole(a, np.where(opens, *forms), templates[:, a], values, names, opens))
        pieces = np.stack([part.pieces for part in said])[order.T, np.arange(n)]
        marks = np.stack([part.marks for part in said])[order.T, np.arange(n)]
        if lacking is not None:
            pieces[lacking.T] = 0
        return Layout(pieces.transpose(1, 0, 2).reshape(n, -1), marks.transpose(1, 0, 2).reshape(n, -1))

    def _join(
        self, led: Pieces, body: Pieces, body_marks: Marks, lacking: npt.NDArray[np.bool_] | None = None
    ) -> Layout:
        """Put names before sentences: body and body_marks [n, attributes, w], in the sentences' order; empty those lacking."""
        n, count, width = body.shape
        names = self.sentences.name_width
        opening = self.sentences.name(led, opens=True)
        if self.repeats_name:
            rows = np.empty((n, count, names + width), np.int32)
            marks = np.empty(rows.shape, np.int8)
            rows[:, 0, :names] = opening
            rows[:, 1:, :names] = led[:, None]
            rows[:, :, names:] = body
            marks[:, :, :names] = NAME
            marks[:, :, names:] = body_marks
            if lacking is not None:
                rows[lacking] = 0
            size = count * (names + width)
            layout = Layout(rows.reshape(n, size), marks.reshape(n, size))
        else:
            head = np.full(led.shape, NAME, np.int8)
            if lacking is not None:
                body[lacking] = 0
            layout = Layout(
                np.concatenate([opening, body.reshape(n, count * width)], axis=1),
                np.concatenate([head, body_marks.reshape(n, count * width)], axis=1),
            )
        if self._used is None:
            return layout
        return Layout(layout.pieces.take(self._used, axis=1), layout.marks.take(self._used, axis=1))

    def _used_columns(self) -> Integers | None:
        """The columns that can hold a piece, or None for all: in a fixed order value padding never does."""
        if self._shuffles or self._holes is not None or self.sentences.moved:
            return None
        names, used = self.sentences.name_width, []
        for slot, width in enumerate(self.sentences.value_widths):
            named = self.repeats_name or slot == 0
            padding = self.sentences.value_width - width
            used += [True] * (names * named + 1 + width) + [False] * padding + [True]
        return np.flatnonzero(used)

    def contexts(self) -> Iterator[Layout]:
        """Like `coverage`, but without the pieces that no entry uses."""
        return entry_contexts(self.sentences, self.repeats_name)

    def coverage(self) -> Iterator[Layout]:
        return complete(self.contexts(), len(self.pieces))

    def passage(self, entry: int) -> Passage:
        return as_passages(self.layout([entry]), self.pieces, self.attributes, [str(entry)])[0]
