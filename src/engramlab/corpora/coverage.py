"""Every piece of an entry corpus in every kind of place it can stand: what a tokenizer must be asked about.

How a piece is cut depends on its own characters and on those right before and after it. Literals, names and
values are therefore each shown before and behind all the characters that can touch them, in rows that read
like short entries. The number of rows grows with templates + names + values, not with their product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from engramlab.corpora.layout import NAME, Layout, Pieces, chunks
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.templates import Frame


class _Pattern(NamedTuple):
    """One template in one form, and its literals."""

    attribute: int
    form: int
    template: int
    before: str
    after: str
    frame: Frame

    def name_between(self) -> tuple[bool, str, bool, str]:
        """What is on either side of the name: the same for templates in which it looks alike."""
        frame = self.frame
        if frame.turned:
            return True, self.before[-1:], frame.bare_name, self.after[:1]
        return False, frame.lead[-1:], frame.bare_name, self.before[:1]

    def value_between(self) -> tuple[bool, str, bool, str]:
        """The same of the value."""
        frame = self.frame
        if frame.turned:
            return True, frame.lead[-1:], frame.bare, self.before[:1]
        return False, self.before[-1:], frame.bare, self.after[:1]


def entry_contexts(sentences: Sentences, repeats_name: bool) -> Iterator[Layout]:
    """Layouts of one to three sentences; with `repeats_name` each of them names the subject, else the first.

    Pieces that no entry uses, such as pronouns where each sentence has the full name, are left out; see
    `complete`.
    """
    return _Coverage(sentences, repeats_name).layouts()


def complete(layouts: Iterable[Layout], pieces: int) -> Iterator[Layout]:
    """Pass layouts on, then show each piece in [0, pieces) that none of them had in a row of its own."""
    shown = np.zeros(pieces, bool)
    shown[0] = True
    for layout in layouts:
        shown[layout.pieces] = True
        yield layout
    for (rest,) in chunks(np.flatnonzero(~shown).astype(np.int32)[:, None]):
        yield Layout(rest, np.zeros(rest.shape, np.int8))


class _Coverage:
    def __init__(self, sentences: Sentences, repeats_name: bool) -> None:
        self.sentences = sentences
        self.repeats_name = repeats_name
        self.names = sentences.population.name_examples()
        self.values = [sentences.population.value_examples(a) for a in range(len(sentences.attributes))]
        self.opening = [form for form, (_, named) in enumerate(sentences.forms) if named]
        self.later = [form for form, (_, named) in enumerate(sentences.forms) if named == repeats_name]
        openings = self._patterns(self.opening)
        # The shortest sentences stand for all that look alike from where a piece is: by what follows the
        # name, by how they end, by what is on either side of the value.
        self.follows = list({p.name_between(): p for p in openings}.values())
        self.endings = list({(p.after[-1:], p.frame.turned and not p.after): p for p in openings}.values())
        every = self._patterns([*self.later, *self.opening])
        self.around = list({(p.attribute, *p.value_between()): p for p in every}.values())

    def _patterns(self, forms: list[int]) -> list[_Pattern]:
        """All patterns in these forms, longest first: a dictionary then keeps the shortest of each kind."""
        frames = [
            (a, form, t, line.frame(*self.sentences.forms[form]))
            for a, lines in enumerate(self.sentences.templates)
            for form in forms
            for t, line in enumerate(lines)
        ]
        patterns = [_Pattern(a, form, t, frame.before, frame.after, frame) for a, form, t, frame in frames]
        return sorted(patterns, key=lambda p: -len(p.before + p.after))

    def layouts(self) -> Iterator[Layout]:
        yield from self._literals()
        yield from self._names()
        yield from self._values()

    def _literals(self) -> Iterator[Layout]:
        """Every template in every form, behind every kind of ending, with and without a sentence after it."""
        for a, templates in enumerate(self.sentences.templates):
            every = np.arange(len(templates))
            for value, name in product(self._typical(a), self._typical_names()):
                for form in self.opening:
                    yield from self._ended(self._sentence(a, form, every, value, name, opens=True))
                for form in self.later:
                    for ending in self.endings:
                        yield from self._ended(self._first(ending), self._sentence(a, form, every, value, name))

    def _names(self) -> Iterator[Layout]:
        """Every name before all that can follow it, at the opening and, where later sentences name, there."""
        for p in self.follows:
            value = self.values[p.attribute][:1]
            for (names,) in chunks(self.names):
                first = self._sentence(p.attribute, p.form, p.template, value, names, opens=True)
                if p.frame.turned:  # the name may end the sentence
                    yield from self._ended(first)
                else:
                    yield first
                for ending in self.endings if self.repeats_name or self._moved(p) else []:
                    later = self._sentence(p.attribute, p.form, p.template, value, names)
                    yield self._join(self._first(ending), later)

    def _values(self) -> Iterator[Layout]:
        """Every value between all that can stand on its two sides."""
        for p in self.around:
            named = self.sentences.forms[p.form][1]
            places = [True, False] if p.frame.turned and not p.frame.lead else [named]  # a value can open a text
            for opens, (values,) in product(places, chunks(self.values[p.attribute])):
                first = [] if opens else [self._first(self.endings[0])]
                said = self._sentence(p.attribute, p.form, p.template, values, self.names[:1], opens=opens)
                # What follows the sentence touches the value only where nothing follows it in the sentence.
                if not p.after or self.sentences.ends_in_stop[values[:, -1]].any():
                    yield from self._ended(*first, said)
                else:
                    yield self._join(*first, said)

    def _ended(self, *parts: Layout) -> Iterator[Layout]:
        """Sentences as the end of an entry, and followed by one more."""
        yield self._join(*parts)
        p = self.endings[0]
        value = self._typical(p.attribute)[0]
        yield self._join(*parts, self._sentence(p.attribute, self.later[0], p.template, value, self.names[:1]))

    def _first(self, p: _Pattern) -> Layout:
        value = self._typical(p.attribute)[0]
        return self._sentence(p.attribute, p.form, p.template, value, self.names[:1], opens=True)

    def _moved(self, p: _Pattern) -> bool:
        return not self.sentences.templates[p.attribute][p.template].opens

    def _typical_names(self) -> list[Pieces]:
        """A name; where a sentence can end in one, also one that ends in a full stop, or does not, as far as there is such."""
        if not self.sentences.moved:
            return [self.names[:1]]
        stopped = self.sentences.ends_in_stop[self.names[:, -1]]
        return [self.names[stopped == kind][:1] for kind in (False, True) if (stopped == kind).any()]

    def _typical(self, a: int) -> list[Pieces]:
        """A value of attribute a that ends in a full stop and one that does not, as far as there are such."""
        stopped = self.sentences.ends_in_stop[self.values[a][:, -1]]
        return [self.values[a][stopped == kind][:1] for kind in (False, True) if (stopped == kind).any()]

    def _sentence(
        self, a: int, form: int, template: object, values: Pieces, names: Pieces, opens: bool = False
    ) -> Layout:
        """Sentences about attribute a, as many as the longest of `template`, `values` and `names` has."""
        templates = np.atleast_1d(np.asarray(template))
        n = max(len(templates), len(values), len(names))
        values = np.broadcast_to(values, (n, values.shape[1]))
        if self.sentences.moved:
            names = np.broadcast_to(names, (n, names.shape[1]))
            forms, numbers = np.full(n, form), np.broadcast_to(templates, n)
            return self.sentences.whole(a, forms, numbers, values, names, np.full(n, opens))
        body = np.zeros((n, 2 + self.sentences.value_width), np.int32)
        self.sentences.sentence(a, np.full(n, form), np.broadcast_to(templates, n), values, body)
        marks = np.broadcast_to(self.sentences.marks[a], body.shape)
        if not self.sentences.forms[form][1]:
            return Layout(body, marks)
        names = np.broadcast_to(self.sentences.name(names, opens), (n, names.shape[1]))
        named = np.full(names.shape, NAME, np.int8)
        return Layout(np.concatenate([names, body], axis=1), np.concatenate([named, marks], axis=1))

    def _join(self, *parts: Layout) -> Layout:
        """Sentences side by side; a single row stands for as many as the others have."""
        n = max(len(part) for part in parts)
        pieces = [np.broadcast_to(part.pieces, (n, part.pieces.shape[1])) for part in parts]
        marks = [np.broadcast_to(part.marks, (n, part.marks.shape[1])) for part in parts]
        return Layout(np.concatenate(pieces, axis=1), np.concatenate(marks, axis=1))
