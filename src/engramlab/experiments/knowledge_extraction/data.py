"""One variant's entries and questions, from bioS or from a user's table."""

from __future__ import annotations

from dataclasses import dataclass

from engramlab.corpora.bios import BiosConfig, BiosCorpus, bios, bios_questions
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.rewriting import RewrittenCorpus, rewritten, rewritten_questions
from engramlab.corpora.tables import TableConfig, table, table_questions
from engramlab.experiments.knowledge_extraction.config import Config


@dataclass(frozen=True)
class Dataset:
    """One variant's entries and questions."""

    name: str
    corpus: BiosCorpus | EntryCorpus | RewrittenCorpus
    questions: QuestionCorpus
    split: Split


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
    corpus = bios(
        BiosConfig(
            config.people,
            variant,
            config.seed,
            config.celebrities if "CEL" in variant else 0,
            config.pools,
            config.first_templates,
        )
    )
    split = Split(len(corpus.subjects), config.seed)
    return Dataset(variant, corpus, bios_questions(corpus, split), split)


def variants(config: Config) -> tuple[str, ...]:
    """The variants of a run; a rewritten corpus has only the one it was written in."""
    return ("bior",) if config.corpus is not None else config.variants
