"""Questions about a population's attributes, and the division of its subjects into P_train and P_test.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2.2: a model is finetuned on
questions about one half of the people and tested on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engramlab.base.errors import UserError, listed, quoted
from engramlab.base.facts import Passage, Query
from engramlab.base.joining import cut, last_letter, spaceless
from engramlab.base.random_access import key, permute
from engramlab.corpora.coverage import complete
from engramlab.corpora.layout import (
    NAME,
    Integers,
    Layout,
    Marks,
    Pieces,
    PieceTable,
    Population,
    as_passages,
    check_attributes,
    chunks,
    entry_indices,
    holes_of,
)


@dataclass(frozen=True)
class Split:
    """Half of the subjects [0, subjects), drawn by `seed`, to train on (the larger half of an odd number)."""

    subjects: int
    seed: int = 0

    def is_train(self, subjects: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each of these subjects is in P_train; nothing is stored."""
        rank = permute(key(self.seed, "split"), subjects, self.subjects)
        train: npt.NDArray[np.bool_] = rank < (self.subjects + 1) // 2
        return train

    @property
    def train(self) -> Integers:
        """P_train in ascending order."""
        return np.flatnonzero(self.is_train(np.arange(self.subjects)))

    @property
    def test(self) -> Integers:
        """P_test in ascending order."""
        return np.flatnonzero(~self.is_train(np.arange(self.subjects)))

    @property
    def groups(self) -> dict[str, Integers]:
        """The members of each group by its name."""
        return {"train": self.train, "test": self.test}

    def of(self, subjects: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """The name of each subject's group."""
        return np.where(self.is_train(subjects), "train", "test")


@dataclass(frozen=True)
class CelebritySplit:
    """Questions about one half of the celebrities to train on; everybody else is only asked.

    Ordinary people [0, people) are P_test, all of them. Celebrities [people, people + celebrities) are halved by `seed`:
    P_train (the larger half of an odd number), and the group "celebrities", whose questions are held out as well.
    """

    people: int
    celebrities: int
    seed: int = 0

    @property
    def _halves(self) -> Split:
        return Split(self.celebrities, self.seed)

    @property
    def train(self) -> Integers:
        """P_train in ascending order."""
        return self._halves.train + self.people

    @property
    def test(self) -> Integers:
        """P_test: the ordinary people."""
        return np.arange(self.people)

    @property
    def groups(self) -> dict[str, Integers]:
        """The members of each group by its name."""
        return {"train": self.train, "test": self.test, "celebrities": self._halves.test + self.people}

    def of(self, subjects: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """The name of each subject's group."""
        indices = np.asarray(subjects, np.int64)
        famous = self._halves.is_train(np.maximum(indices - self.people, 0))
        return np.where(indices < self.people, "test", np.where(famous, "train", "celebrities"))


class QuestionCorpus:
    """One question per subject and attribute, with its answer: a `Corpus`.

    Entry `subject * attributes + attribute` (subjects counted from the first asked about, and what a subject lacks not
    counted) reads

        What is the birth date of Anya Briar Forger? Answer: October 2, 1996

    and only the answer is marked; no full stop and no end token follow it.

    population: whose attributes are asked for.
    wordings: for each attribute the prompt with `{subject}` in it; by default "What is the ... of {subject}?
    Answer:".
    subjects: those asked about; all by default.
    split: the division whose groups `query` reports.

    Raises:
        UserError: a wording is for no attribute, or does not have `{subject}` exactly once.
    """

    def __init__(
        self,
        population: Population,
        wordings: Mapping[str, str] | None = None,
        subjects: range | None = None,
        split: Split | CelebritySplit | None = None,
    ) -> None:
        check_attributes(population.attributes)
        self.population = population
        self.attributes = population.attributes
        self.subjects = range(len(population)) if subjects is None else subjects
        self.split = split
        holes = holes_of(population)
        asked = self.subjects.start, self.subjects.stop
        self._asked = None if holes is None else np.flatnonzero(~holes[slice(*asked)])
        for attribute, wording in (wordings or {}).items():
            if attribute not in self.attributes:
                raise UserError(
                    f"question for {quoted(attribute)}: no such attribute; there are {listed(self.attributes)}"
                )
            if wording.count("{subject}") != 1:
                raise UserError(f"question for {quoted(attribute)}: needs {{subject}} exactly once: {quoted(wording)}")
        default = {a: f"What is the {a.replace('_', ' ')} of {{subject}}? Answer:" for a in self.attributes}
        self.wordings = {**default, **(wordings or {})}
        table = PieceTable(population.pieces)
        parts = [self.wordings[attribute].strip().split("{subject}") for attribute in self.attributes]
        self._before: Pieces = np.array([table.add(before.removesuffix(" ")) for before, _ in parts], np.int32)
        self._after: Pieces = np.array([table.add(after) for _, after in parts], np.int32)
        self._bare_name = np.array([not before.endswith(" ") for before, _ in parts])
        names = population.name_examples()
        self._bare_value = [spaceless(last_letter(after)) for _, after in parts]
        firsts = [population.value_examples(a)[:, 0] for a, bare in enumerate(self._bare_value) if bare]
        self._bare_values = table.bare(np.concatenate(firsts)) if firsts else None
        self._bare_names = table.bare(names[:, 0]) if self._bare_name.any() else None
        self.pieces: Sequence[str] = table.texts()
        self._name_width = names.shape[1]
        self._value_width = max(population.value_examples(a).shape[1] for a in range(len(self.attributes)))

    def __len__(self) -> int:
        return len(self.subjects) * len(self.attributes) if self._asked is None else len(self._asked)

    def _numbers(self, entries: npt.ArrayLike) -> Integers:
        """Questions numbered as if no subject lacked an attribute."""
        indices = entry_indices(entries, len(self))
        return indices if self._asked is None else self._asked[indices]

    def subject(self, entries: npt.ArrayLike) -> Integers:
        """Whom questions are about: int64[n], indices into the population."""
        return self._numbers(entries) // len(self.attributes) + self.subjects.start

    def attribute(self, entries: npt.ArrayLike) -> Integers:
        """What questions ask for: int64[n], indices into `attributes`."""
        return self._numbers(entries) % len(self.attributes)

    def entries(self, subjects: npt.ArrayLike) -> Integers:
        """All questions about subjects, given as indices into the population, subject by subject: int64[n]."""
        first = (np.asarray(subjects, np.int64) - self.subjects.start) * len(self.attributes)
        every = (first[:, None] + np.arange(len(self.attributes))).ravel()
        if self._asked is None:
            return every
        at = np.searchsorted(self._asked, every)
        return at[self._asked[np.minimum(at, len(self._asked) - 1)] == every]

    def layout(self, entries: npt.ArrayLike) -> Layout:
        subjects, attributes = self.subject(entries), self.attribute(entries)
        names = self.population.name_pieces(subjects)
        rows = np.empty((len(subjects), 2 + self._name_width + self._value_width), np.int32)
        marks = np.empty(rows.shape, np.int8)
        for a in np.unique(attributes).tolist():
            asked = np.flatnonzero(attributes == a)
            rows[asked], marks[asked] = self._rows(a, names[asked], self.population.value_pieces(a, subjects[asked]))
        return Layout(rows, marks)

    def _rows(self, a: int, names: Pieces, values: Pieces) -> tuple[Pieces, Marks]:
        """Questions for attribute a: prompt, name, rest of the prompt, answer, padding."""
        n, width = max(len(names), len(values)), self._name_width
        rows = np.zeros((n, 2 + width + self._value_width), np.int32)
        rows[:, 0] = self._before[a]
        rows[:, 1 : 1 + width] = names
        if self._bare_names is not None and self._bare_name[a]:
            rows[:, 1] = self._bare_names[names[:, 0]]
        rows[:, 1 + width] = self._after[a]
        rows[:, 2 + width : 2 + width + values.shape[1]] = values
        if self._bare_values is not None and self._bare_value[a]:
            rows[:, 2 + width] = self._bare_values[values[:, 0]]
        marks = np.zeros(rows.shape, np.int8)
        marks[:, 1 : 1 + width] = NAME
        marks[:, 2 + width : 2 + width + values.shape[1]] = a + 1
        return rows, marks

    def coverage(self) -> Iterator[Layout]:
        return complete(self._contexts(), len(self.pieces))

    def _contexts(self) -> Iterator[Layout]:
        """Every answer to its question; every name in each question with other characters around it."""
        names = self.population.name_examples()
        for a in range(len(self.attributes)):
            for (values,) in chunks(self.population.value_examples(a)):
                yield Layout(*self._rows(a, names[:1], values))
        kinds = {}
        for a in range(len(self.attributes)):
            before, after = self.pieces[self._before[a]], self.pieces[self._after[a]]
            kinds[before[-1:], bool(self._bare_name[a]), after[:1]] = a
        for a in kinds.values():
            value = self.population.value_examples(a)[:1]
            for (some,) in chunks(names):
                yield Layout(*self._rows(a, some, value))

    def query(self, entry: int) -> Query:
        """The question as a prompt and its target; the group is the split's, if there is one."""
        return self.queries([entry])[0]

    def queries(self, entries: npt.ArrayLike) -> list[Query]:
        """These questions, made together: much faster than one by one."""
        subjects, ids = self.subject(entries), np.atleast_1d(np.asarray(entries)).tolist()
        groups = self.groups(subjects)
        queries = []
        for passage, id, group in zip(self.passages(entries), ids, groups, strict=True):
            name, answer = passage.spans
            prompt, target = cut(passage.text, answer.start, answer.end)
            queries.append(
                Query(
                    prompt=prompt,
                    target=target,
                    id=str(id),
                    subject=passage.quote(name),
                    relation=answer.relation,
                    role="question",
                    group=group,
                )
            )
        return queries

    def groups(self, subjects: Integers) -> list[str]:
        """By the split, such as "train" or "test"; empty without one, and for subjects that are not asked about."""
        asked = (subjects >= self.subjects.start) & (subjects < self.subjects.stop)
        if self.split is None or not asked.any():
            return [""] * len(subjects)
        return np.where(asked, self.split.of(np.where(asked, subjects, self.subjects.start)), "").tolist()

    def passages(self, entries: npt.ArrayLike) -> list[Passage]:
        """These questions with their answers as texts with spans."""
        ids = map(str, np.atleast_1d(np.asarray(entries)).tolist())
        return as_passages(self.layout(entries), self.pieces, self.attributes, ids)

    def passage(self, entry: int) -> Passage:
        return self.passages([entry])[0]
