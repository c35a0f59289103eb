"""A user's own facts: one row an entity, one column an attribute, down the same road as bioS.

In three lines:

    corpus = table(TableConfig("countries.csv", variant="multi5+permute"))
    corpus.passage(0).text
    table_questions(corpus).query(0)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.wordings import read_questions
from engramlab.corpora.questions import QuestionCorpus, Split


@dataclass(frozen=True)
class TableConfig:
    """A dataset made from your own table: one row an entity, one column an attribute.

    Templates start with `{subject}` or `{subject's}`, have one `{value}` and may say `{attribute}`.
    """

    facts: Path
    """The table: .csv, .tsv, .jsonl, .ndjson or .parquet."""
    variant: str = "multi5+permute"
    """How entries are written, as for bioS but without +CEL."""
    seed: int = 0
    """Decides templates, orders and the split into train and test."""
    key: str | None = None
    """The column that names the entities, each once; None is the first."""
    attributes: tuple[str, ...] | None = None
    """The columns to state; None is all others but the pronoun column."""
    pronoun_column: str | None = None
    """A column with he, she, they or it. Without one every sentence repeats the entity's name."""
    templates: Path | None = None
    """A file of templates for every attribute, or a folder with ATTRIBUTE.txt files and, for the attributes without one,
    default.txt. None is plain templates that fit every attribute."""
    questions: Path | None = None
    """A file of lines ATTRIBUTE, tab, question with {subject}, for attributes that shall not be asked "What is the ATTRIBUTE
    of {subject}? Answer:"."""


def facts(config: TableConfig) -> FactTable:
    """The facts of a table. Raises UserError for whatever is wrong with it, the templates or the questions, and where."""
    return FactTable.read(
        config.facts,
        key=config.key,
        relations=config.attributes,
        pronoun_column=config.pronoun_column,
        templates=config.templates,
        questions=config.questions,
    )


def table(config: TableConfig) -> EntryCorpus:
    """A corpus of entries about the entities of a table. Raises UserError as `facts` does, and for an unknown variant."""
    return facts(config).entries(config.variant, config.seed)


def table_questions(
    corpus: EntryCorpus, questions: Path | Mapping[str, str] | None = None, split: Split | None = None
) -> QuestionCorpus:
    """One question an entity and attribute; `questions` is a file as in `TableConfig`, or a mapping."""
    wordings = read_questions(questions, corpus.attributes) if isinstance(questions, Path) else questions
    return QuestionCorpus(corpus.population, wordings, corpus.subjects, split)
