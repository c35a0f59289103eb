"""One variant's entries and questions, from bioS or from a user's table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engramlab.core import tokens
from engramlab.core.batches import Rows
from engramlab.core.tokens import Sequences
from engramlab.corpora.bios import BiosConfig, BiosCorpus, bios, bios_questions
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.questions import CelebritySplit, QuestionCorpus, Split
from engramlab.corpora.rewriting import RewrittenCorpus, rewritten, rewritten_questions
from engramlab.corpora.tables import TableConfig, table, table_questions
from engramlab.experiments.knowledge_extraction.config import TEXT, Config


@dataclass(frozen=True)
class Dataset:
    """One variant's entries and questions.

    Attributes:
        celebrities: entries from this number on are celebrities'; None where there are none.
        text: is unrelated text read beside the entries?
    """

    name: str
    corpus: BiosCorpus | EntryCorpus | RewrittenCorpus
    questions: QuestionCorpus
    split: Split | CelebritySplit
    celebrities: int | None = None
    text: bool = False

    @property
    def people(self) -> dict[str, str]:
        """Who the members of each group are, where they are not all of one kind."""
        if self.celebrities is None:
            return {}
        return {"train": "celebrities", "test": "minority", "celebrities": "celebrities"}


def dataset(config: Config, variant: str) -> Dataset:
    """The entries and questions of one variant. Raises UserError for whatever is wrong with the options or the table."""
    corpus: BiosCorpus | EntryCorpus | RewrittenCorpus
    if config.corpus is not None:
        corpus = rewritten(config.corpus)
        split = Split(len(corpus.subjects), config.seed)
        return Dataset(variant, corpus, rewritten_questions(corpus, split), split)
    if config.facts is not None:
        corpus = table(
            TableConfig(
                config.facts,
                variant,
                config.seed,
                config.key,
                config.attributes,
                config.pronoun_column,
                config.templates,
            )
        )
        split = Split(len(corpus.subjects), config.seed)
        return Dataset(variant, corpus, table_questions(corpus, config.questions, split), split)
    people = BiosConfig(
        config.people, variant.removesuffix(TEXT), config.seed, pools=config.pools, templates=config.first_templates
    )
    if variant.endswith("+CEL"):
        return _with_celebrities(config, variant, people)
    corpus = bios(people)
    split = Split(len(corpus.subjects), config.seed)
    return Dataset(variant, corpus, bios_questions(corpus, split), split, text=variant.endswith(TEXT))


def _with_celebrities(config: Config, variant: str, people: BiosConfig) -> Dataset:
    """People and celebrities; what is not as in the paper stands in the name, so that reports keep it apart."""
    corpus = bios(
        replace(
            people,
            celebrities=config.celebrities,
            celebrity_entries=config.celebrity_entries,
            celebrity_templates=config.celebrity_templates,
        )
    )
    split = CelebritySplit(config.people, len(corpus.population) - config.people, config.seed)
    questions = bios_questions(corpus, split, celebrities=True)
    name = variant
    if config.celebrity_entries != BiosConfig.celebrity_entries:
        name += f"={config.celebrity_entries}"
    if config.celebrity_templates == "other":
        name += "+other-templates"
    return Dataset(name, corpus, questions, split, celebrities=len(corpus.groups[0]))


def variants(config: Config) -> tuple[str, ...]:
    """The variants of a run; a rewritten corpus has only the one it was written in."""
    return ("bior",) if config.corpus is not None else config.variants


def windows(tokenizer: Any, texts: Iterable[str], width: int, most: int) -> Rows:
    """Texts laid end to end, each with its end token, and cut into rows of ``width`` tokens; at most ``most`` tokens.

    Fewer rows than asked for where the texts end before; none where they hold less than one row.
    """
    ids: list[np.ndarray] = []
    total, end = 0, [tokens.end_token(tokenizer)]
    for text in texts:
        ids.append(np.array(tokens.encode(tokenizer, [text])[0][0] + end, np.int32))
        total += len(ids[-1])
        if total >= most:
            break
    rows = min(total, most) // width
    flat = np.concatenate(ids)[: rows * width] if rows else np.empty(0, np.int32)
    return Rows(Sequences(flat, np.arange(rows + 1) * width, np.zeros(len(flat), np.int8)))
