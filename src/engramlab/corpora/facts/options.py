"""The options of experiments that take a user's facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.facts.table import FactTable


@dataclass(frozen=True)
class FactOptions:
    """A user's facts and their wordings."""

    READS: ClassVar[tuple[str, ...]] = (
        "templates",
        "questions",
    )  # files, see ``inputs`` in experiments/_run.py; the facts are a table

    facts: Path | None = None
    """Your own facts: a table (.csv, .tsv, .json, .jsonl or .parquet) with a row an entity and a column an attribute, or with a
    row a fact and columns subject, relation and object. `countries` is the embedded table of the world's countries."""
    key: str | None = None
    """Column of the facts that names the entities, each once; None for the first."""
    attributes: tuple[str, ...] | None = None
    """Columns (or relations) of the facts to state and ask for; None for all others but the pronoun column."""
    templates: Path | None = None
    """A file of sentence templates for every attribute of the facts, or a folder with ATTRIBUTE.txt files and, for the
    attributes without one, default.txt. None is plain templates that fit every attribute."""
    phrases: tuple[str, ...] = ()
    """What attributes of the facts are called in sentences and questions, where their names read badly, such as
    made_in="country of manufacture"; the others by their names."""
    separator: str | None = None
    """What stands between several values in a cell of the facts, such as ";": the first is taken. None where a cell is one."""
    several: Literal["refuse", "first"] = "refuse"
    """What to do where an entity of the facts has two values of one attribute, in several rows or as a list in a cell: refuse
    the table, or take the first."""
    questions: Path | None = None
    """A file of lines ATTRIBUTE, tab, question with {subject}, for attributes of the facts that shall not be asked "What is the
    ATTRIBUTE of {subject}? Answer:". An attribute may have several lines: the first is asked, and teaching trains all."""

    def fact_table(self) -> FactTable | None:
        """The facts; None where none are given. Raises UserError for whatever is wrong with them or their wordings."""
        return self._read()

    def _read(self, pronoun_column: str | None = None) -> FactTable | None:
        if self.facts is None:
            return None
        return FactTable.read(
            self.facts,
            key=self.key,
            relations=self.attributes,
            pronoun_column=pronoun_column,
            templates=self.templates,
            questions=self.questions,
            phrases=_phrases(self.phrases),
            separator=self.separator,
            several=self.several,
        )


def _phrases(given: tuple[str, ...]) -> dict[str, str]:
    """Phrases by attribute. Raises UserError."""
    found = {}
    for one in given:
        name, _, phrase = (part.strip() for part in one.partition("="))
        if not name or not phrase:
            raise UserError(f"phrases: write ATTRIBUTE=PHRASE, not {quoted(one)}")
        found[name] = phrase
    return found
