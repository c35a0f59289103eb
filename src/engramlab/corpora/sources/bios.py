"""bioS: biographies of made-up people in any variant, as a corpus of pieces.

    corpus = bios(Config(people=100_000, seed=0), "multi5+permute")
    corpus.passage(0).text

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2. Templates and pools are our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.base.facts import Passage
from engramlab.corpora.coverage import complete
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.layout import Layout, as_passages, entry_indices
from engramlab.corpora.people import ATTRIBUTES, COUPLES, QUESTIONS, People, Pools
from engramlab.corpora.questions import CelebritySplit, QuestionCorpus, Split
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.templates import Template, parse_templates, read_data
from engramlab.corpora.variants import CELEBRITY, Variant, parse_variant

GIVEN, BESIDE = "", True
RENAMED = {"--templates": "--first-templates"}


@dataclass(frozen=True)
class Config:
    """bioS: biographies of made-up people, six sentences an entry (arXiv 2309.14316)."""

    seed: int = 0
    """Of the people, the entries, their order, the split and whatever is trained."""
    people: int = 100_000
    """bioS people; they do not depend on the variant."""
    celebrities: int = 0
    """People of the second group in +CEL variants, whose questions are trained on instead of half of the people's; 0 means as
    many as people."""
    celebrity_entries: str = str(CELEBRITY)
    """How celebrities' entries are written: any variant without +CEL. Another format than the paper's (`single`,
    `multi5`, `multi5+permute+fullname`) shows how far celebrities help a minority written about in another way."""
    celebrity_templates: Literal["same", "other"] = "same"
    """`other`: celebrities' sentences never have the wording of the minority's. With first_templates N the people get the first
    N templates of each attribute and celebrities the next N, else half of them each."""
    first_templates: int | None = None
    """Only the first so many templates of each attribute; None for all."""
    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""


class BiosCorpus:
    """The entries of people, then those of celebrities: a `Corpus`. Made by `bios`.

    Celebrities are the population's subjects from `people` on.
    """

    def __init__(self, groups: Sequence[EntryCorpus]) -> None:
        self.groups = tuple(groups)
        self.sentences = groups[0].sentences
        self.population = self.sentences.population
        self.attributes = self.sentences.attributes
        self.subjects = groups[0].subjects  # those that are asked about
        self._starts = np.cumsum([0, *(len(group) for group in groups)])

    @property
    def pieces(self) -> Sequence[str]:
        return self.sentences.pieces

    def __len__(self) -> int:
        return int(self._starts[-1])

    def subject(self, entries: npt.ArrayLike) -> Integers:
        """Whom entries are about: int64[n], indices into the population."""
        indices = entry_indices(entries, len(self))
        subjects = np.empty_like(indices)
        for group, rows, local in self._parts(indices):
            subjects[rows] = group.subject(local)
        return subjects

    def first_entry(self, subjects: npt.ArrayLike) -> Integers:
        """The first entry about each of these people: int64[n]."""
        indices = np.asarray(subjects, np.int64)
        if len(self.groups) == 1:
            return self.groups[0].first_entry(indices)
        theirs = self.groups[1].first_entry(indices) + len(self.groups[0])
        return np.where(indices < self.subjects.stop, self.groups[0].first_entry(indices), theirs)

    def layout(self, entries: npt.ArrayLike) -> Layout:
        indices = entry_indices(entries, len(self))
        parts = [(rows, group.layout(local)) for group, rows, local in self._parts(indices)]
        if len(parts) == 1:
            return parts[0][1]
        width = max((layout.pieces.shape[1] for _, layout in parts), default=0)
        joined = Layout(np.zeros((len(indices), width), np.int32), np.zeros((len(indices), width), np.int8))
        for rows, layout in parts:
            joined.pieces[rows, : layout.pieces.shape[1]] = layout.pieces
            joined.marks[rows, : layout.marks.shape[1]] = layout.marks
        return joined

    def _parts(self, indices: Integers) -> Iterator[tuple[EntryCorpus, Integers, Integers]]:
        """Each group that has some of these entries, with their rows and their indices within the group."""
        if len(self.groups) == 1:
            yield self.groups[0], np.arange(len(indices)), indices
            return
        for group, start, stop in zip(self.groups, self._starts, self._starts[1:], strict=False):
            rows = np.flatnonzero((indices >= start) & (indices < stop))
            if rows.size:
                yield group, rows, indices[rows] - start

    def coverage(self) -> Iterator[Layout]:
        unlike = {group.repeats_name: group for group in self.groups}
        contexts = chain.from_iterable(group.contexts() for group in unlike.values())
        return complete(contexts, len(self.pieces))

    def passage(self, entry: int) -> Passage:
        return as_passages(self.layout([entry]), self.pieces, self.attributes, [str(entry)])[0]


def bios_templates(first: int | None = None) -> tuple[tuple[Template, ...], ...]:
    """The templates of each bioS attribute, or the first so many of each."""
    if first is not None and first < 1:
        raise UserError(f"templates: must be at least 1, not {first}")
    every = (parse_templates(read_data("templates", "bios", f"{a}.txt"), f"templates/bios/{a}.txt") for a in ATTRIBUTES)
    return tuple(templates[:first] for templates in every)


def bios(config: Config, variant: str = "multi5+permute") -> BiosCorpus:
    """Make a bioS corpus; nothing is written or kept per person.

    Raises:
        UserError: an unknown variant, more people than names, a size out of range, celebrities without +CEL.
    """
    written = parse_variant(variant)
    if written.text:
        raise UserError(f"variant: {variant} reads text in training, which is no part of the corpus; leave +TEXT out")
    check(config, [written])
    for name in ("people", "celebrities"):
        if getattr(config, name) < (name == "people"):
            raise UserError(f"{name}: cannot be {getattr(config, name)}")
    celebrities = (config.celebrities or config.people) if written.celebrities else 0
    population = People(config.people + celebrities, config.seed, config.pools)
    lines, ours, theirs = _templates(config)
    ordinary, others = replace(written, celebrities=False), _celebrity_entries(config)
    sentences = Sentences(population, lines, ordinary.translated or (bool(celebrities) and others.translated))
    groups = [EntryCorpus(sentences, ordinary, config.seed, range(config.people), COUPLES, ours)]
    if celebrities:
        rest = range(config.people, len(population))
        groups.append(EntryCorpus(sentences, others, config.seed, rest, COUPLES, theirs))
    return BiosCorpus(groups)


def check(config: Config, written: Sequence[Variant]) -> None:
    """Raises UserError for options about celebrities where no variant has any."""
    for name in ("celebrities", "celebrity_entries", "celebrity_templates"):
        if not any(variant.celebrities for variant in written) and getattr(config, name) != getattr(Config, name):
            raise UserError(
                f"{name}: is for +CEL variants, such as {replace(written[0], celebrities=True, text=False)}; there is none in "
                f"{', '.join(map(str, written))}"
            )


def dataset(config: Config, variant: str) -> Dataset:
    """People, or people and celebrities; where these differ from the paper's the name says so, and reports keep it apart."""
    written = parse_variant(variant)
    if not written.celebrities:
        plain = replace(
            Config(), **{name: getattr(config, name) for name in ("seed", "people", "first_templates", "pools")}
        )
        corpus = bios(plain, str(replace(written, text=False)))
        return halves(corpus, QUESTIONS, config.seed, variant, written)
    corpus = bios(config, variant)
    split = CelebritySplit(config.people, len(corpus.population) - config.people, config.seed)
    name = variant
    if config.celebrity_entries != Config.celebrity_entries:
        name += f"={config.celebrity_entries}"
    if config.celebrity_templates == "other":
        name += "+other-templates"
    questions = bios_questions(corpus, split, celebrities=True)
    return Dataset(name, corpus, questions, split, written, celebrities=len(corpus.groups[0]))


def _celebrity_entries(config: Config) -> Variant:
    try:
        variant = parse_variant(config.celebrity_entries)
    except UserError as error:
        raise UserError(f"celebrity_entries: {error}") from None
    if variant.celebrities or variant.text:
        raise UserError(f"celebrity_entries: {config.celebrity_entries!r} has others beside it; leave +CEL out")
    return variant


def _templates(config: Config) -> tuple[tuple[tuple[Template, ...], ...], list[range] | None, list[range] | None]:
    """The templates of a corpus, and which numbers of them ordinary people and celebrities use (None: all)."""
    if config.celebrity_templates == "same":
        return bios_templates(config.first_templates), None, None
    every = bios_templates(None if config.first_templates is None else 2 * config.first_templates)
    ours = [range(config.first_templates or len(lines) // 2) for lines in every]
    theirs = [range(mine.stop, len(lines)) for mine, lines in zip(ours, every, strict=True)]
    for attribute, mine, rest in zip(ATTRIBUTES, ours, theirs, strict=True):
        if config.first_templates is not None and len(rest) < config.first_templates:
            most = (mine.stop + len(rest)) // 2
            raise UserError(
                f"first_templates: {config.first_templates} for each group are more than {attribute} has; with "
                f"celebrity_templates 'other' at most {most}"
            )
    return every, ours, theirs


def bios_questions(
    corpus: BiosCorpus, split: Split | CelebritySplit | None = None, *, celebrities: bool = False
) -> QuestionCorpus:
    """Six questions about each ordinary person, in the paper's wording; about celebrities too only where asked for."""
    return QuestionCorpus(corpus.population, QUESTIONS, None if celebrities else corpus.subjects, split)
