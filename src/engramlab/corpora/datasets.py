"""What a model is trained on and asked about: entries, questions and the split, from bioS, a user's table or a bioR folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engramlab.corpora.bios import BiosConfig, BiosCorpus, bios, bios_questions
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.people import Pools
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.rewriting import RewrittenCorpus, rewritten, rewritten_questions
from engramlab.corpora.tables import TableConfig, table, table_questions


@dataclass(frozen=True)
class Source:
    """Where facts and texts come from."""

    seed: int = 0
    """Of the people, the entries, their order, the split and whatever is trained."""
    people: int = 300
    """bioS people."""
    celebrities: int = 0
    """People of the second group in +CEL variants; 0 means as many as people."""
    first_templates: int | None = None
    """Only the first so many templates of each attribute; None for all."""
    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    facts: Path | None = None
    """Your own facts instead of bioS: a table (.csv, .tsv, .jsonl, .parquet), one row an entity, one column an attribute."""
    corpus: Path | None = None
    """A folder written by `engramlab corpus bior`, instead of bioS; its one variant is then called bior."""
    key: str | None = None
    """Column of the facts that names the entities; None for the first."""
    attributes: tuple[str, ...] | None = None
    """Columns of the facts to state and ask for; None for all others."""
    pronoun_column: str | None = None
    """Column of the facts with he, she, they or it."""
    templates: Path | None = None
    """File of sentence templates for the facts, or folder with one file an attribute."""
    questions: Path | None = None
    """File of questions for the facts: attribute, tab, question with {subject}."""

    @classmethod
    def from_plain(cls, config: Mapping[str, Any]) -> Source:
        """The source that a run's config, as its config.json has it, names among its other options."""
        given = {f.name: config[f.name] for f in fields(Source) if f.name in config}
        for name in ("facts", "corpus", "templates", "questions"):
            if given.get(name) is not None:
                given[name] = Path(given[name])
        if given.get("attributes") is not None:
            given["attributes"] = tuple(given["attributes"])
        if "pools" in given:
            given["pools"] = Pools(**given["pools"])
        return cls(**given)


@dataclass(frozen=True)
class Dataset:
    """One variant's entries and questions."""

    name: str
    corpus: BiosCorpus | EntryCorpus | RewrittenCorpus
    questions: QuestionCorpus
    split: Split


def dataset(source: Source, variant: str) -> Dataset:
    """The entries and questions of one variant. Raises UserError for whatever is wrong with the options or the table."""
    corpus: BiosCorpus | EntryCorpus | RewrittenCorpus
    if source.corpus is not None:
        corpus = rewritten(source.corpus)
        split = Split(len(corpus.subjects), source.seed)
        return Dataset(variant, corpus, rewritten_questions(corpus, split), split)
    if source.facts is not None:
        corpus = table(
            TableConfig(
                source.facts,
                variant,
                source.seed,
                source.key,
                source.attributes,
                source.pronoun_column,
                source.templates,
            )
        )
        split = Split(len(corpus.subjects), source.seed)
        return Dataset(variant, corpus, table_questions(corpus, source.questions, split), split)
    corpus = bios(
        BiosConfig(
            people=source.people,
            variant=variant,
            seed=source.seed,
            celebrities=source.celebrities if "CEL" in variant else 0,
            pools=source.pools,
            templates=source.first_templates,
        )
    )
    split = Split(len(corpus.subjects), source.seed)
    return Dataset(variant, corpus, bios_questions(corpus, split), split)
