"""bioR: biographies that a chat model has written, from the folder that `engramlab corpus bior` wrote.

Its variants are `bior`, all texts about each person, and `biorM`, the first M of them (`bior1` is the paper's bioR single);
then `+fullname`, `+CEL` and `+TEXT`, as of bioS. Celebrities are the last people of the folder, with all their texts; the
others, the minority, have the first M. What counts as a text is ours: all six values occur word for word as in bioS, where
examples in the paper also shorten or turn them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engramlab.base.errors import UserError
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.people import QUESTIONS
from engramlab.corpora.questions import CelebritySplit, QuestionCorpus
from engramlab.corpora.rewriting import rewritten
from engramlab.corpora.variants import MAX_ENTRIES, Variant

GIVEN, VARIANTS = "corpus", ("bior",)
_NAME = re.compile(
    r"bior(?P<first>[1-9]\d{0,4})?(?P<fullname>\+fullname)?(?P<celebrities>\+CEL)?(?P<text>\+TEXT)?", re.ASCII
)


@dataclass(frozen=True)
class Config:
    """Biographies of made-up people that a chat model has written."""

    READS = ("corpus",)

    corpus: Path | None = None
    """A folder written by `engramlab corpus bior`, instead of bioS. Its variants are called bior (all texts about each person)
    and biorM (the first M), with +fullname, +CEL and +TEXT as in bior1+fullname+CEL."""
    celebrities: int = 0
    """How many of its people, the last, are celebrities in +CEL variants; 0 means half of them."""
    seed: int = 0
    """Of the split and whatever is trained."""


def parse(name: str) -> Variant | None:
    """How the entries of a variant of this source are written; None for names of others.

    >>> parse("bior1+CEL").entries, parse("bior").entries == MAX_ENTRIES, parse("single")
    (1, True, None)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    first = int(found["first"] or MAX_ENTRIES)
    suffixes = {key: bool(found[key]) for key in ("fullname", "celebrities", "text")}
    return Variant("multi", first, **suffixes)


def check(config: Config, written: Sequence[Variant]) -> None:
    """Raises UserError for a number of celebrities where no variant has any."""
    if config.celebrities and not any(variant.celebrities for variant in written):
        raise UserError("celebrities: is for +CEL variants, such as bior1+CEL; there is none in the variants")


def dataset(config: Config, variant: str) -> Dataset:
    """The texts of the folder, and questions about half of its people (or of its celebrities)."""
    if config.corpus is None:
        raise UserError("corpus: give a folder that `engramlab corpus bior` wrote")
    written = parse(variant)
    if written is None:
        raise UserError(f"variant: --corpus has no {variant!r}; it has bior, and biorM as in bior1+fullname+CEL")
    corpus = rewritten(config.corpus)
    if written.fullname:
        corpus = corpus.with_full_names()
    if not written.celebrities:
        return halves(corpus.first(written.entries), QUESTIONS, config.seed, variant, written)
    everybody = len(corpus.population)
    famous = config.celebrities or everybody // 2
    if not 2 <= famous < everybody:
        raise UserError(
            f"celebrities: must be 2 to {everybody - 1} of the {everybody} people of {config.corpus}, not {famous}"
        )
    people = everybody - famous
    made = corpus.first(written.entries, people)
    beside = int((made.subject(np.arange(len(made))) < people).sum())
    split = CelebritySplit(people, famous, config.seed)
    questions = QuestionCorpus(made.population, QUESTIONS, None, split)
    return Dataset(variant, made, questions, split, written, celebrities=beside)
