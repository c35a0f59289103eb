"""A user's own facts: one row an entity, one column an attribute, or one row a fact, down the same road as bioS.

corpus = table(Config("countries.csv"), "multi5+permute")
corpus.passage(0).text
"""

from __future__ import annotations

from dataclasses import dataclass

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.facts import FactOptions, FactTable
from engramlab.corpora.facts.wordings import doubtful
from engramlab.corpora.variants import parse_variant

GIVEN = "facts"


@dataclass(frozen=True)
class Config(FactOptions):
    """A dataset made from your own table: one row an entity, one column an attribute.

    Templates have one `{subject}` or `{subject's}` and one `{value}`, and may say `{attribute}`.
    """

    pronoun_column: str | None = None
    """Column of the facts with he, she, they or it. Without one every sentence repeats the entity's name."""
    seed: int = 0
    """Of templates, orders, the split and whatever is trained."""

    def fact_table(self) -> FactTable | None:
        """See `FactOptions.fact_table`."""
        return self._read(self.pronoun_column)


def _facts(config: Config) -> FactTable:
    facts = config.fact_table()
    if facts is None:
        raise UserError("facts: give your table, for example --facts countries.csv")
    return facts


def table(config: Config, variant: str = "multi5+permute") -> EntryCorpus:
    """Make a corpus of entries about the entities of a table.

    Raises:
        UserError: whatever is wrong with the table, the templates, the questions or the variant, and where.
    """
    return _facts(config).entries(variant, config.seed)


def hints(config: Config) -> list[str]:
    """What could be better worded, a line each."""
    facts = _facts(config)
    plain = [] if config.templates and config.questions else doubtful(facts.wordings)
    return [
        f"{config.facts}: {quoted(relation)} reads badly: {quoted(asked, 120)}; say what it is called, as in --phrases "
        f"{relation}=PHRASE, or write templates and questions for it"
        for relation, asked in plain
    ]


def dataset(config: Config, variant: str) -> Dataset:
    """Entries about the entities of the table, and questions about half of them."""
    facts = _facts(config)
    corpus = facts.entries(variant, config.seed)
    return halves(corpus, facts.wordings.questions, config.seed, variant, parse_variant(variant))
