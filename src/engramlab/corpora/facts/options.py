"""The options of experiments that take a user's facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engramlab.corpora.facts.table import FactTable


@dataclass(frozen=True)
class FactOptions:
    """A user's facts and their wordings."""

    facts: Path | None = None
    """Your own facts: a table (.csv, .tsv, .json, .jsonl, .parquet) with a row a subject and a column a relation, or with
    columns subject, relation and object."""
    templates: Path | None = None
    """A file of sentence templates for every relation of the facts, or a folder with RELATION.txt files."""
    questions: Path | None = None
    """A file of lines RELATION, tab, question with {subject}."""

    def fact_table(self) -> FactTable | None:
        """The facts; None where none are given. Raises UserError for whatever is wrong with them."""
        if self.facts is None:
            return None
        return FactTable.read(self.facts, templates=self.templates, questions=self.questions)
