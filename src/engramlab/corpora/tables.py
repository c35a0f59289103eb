"""A user's own facts: one row an entity, one column an attribute, down the same road as bioS.

In three lines:

    corpus = table(TableConfig("countries.csv", variant="multi5+permute"))
    corpus.passage(0).text
    table_questions(corpus).query(0)

Names and values are one piece each, so a table of a million entities is three million short strings and
little more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engramlab.base.errors import UserError, nearest
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.layout import Integers, Pieces, check_attributes
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.templates import PRONOUNS, Template, parse_templates, read_data
from engramlab.corpora.variants import parse_variant
from engramlab.files.tables import Table, read_table, read_text


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


class Entities:
    """The population of a table: its entities, with one piece for a name and one for a value.

    Raises:
        UserError: a duplicate entity, an empty cell, an unknown pronoun, no attribute, an attribute twice.
    """

    def __init__(self, table: Table, key: str, attributes: Sequence[str], pronoun_column: str | None = None) -> None:
        self.attributes = tuple(attributes)
        check_attributes(self.attributes)
        if not self.attributes:
            raise UserError(f"{table.path}: needs at least one column besides {key!r}")
        for attribute in self.attributes:
            if self.attributes.count(attribute) > 1 or attribute == key:
                raise UserError(f"attributes: {attribute!r} is there twice, or is the key")
        names = table.full_column(key)
        _check_unique(table, key, names)
        self.pieces = ["", *(f" {name}" for name in names)]
        self._size = len(names)
        self._values = np.empty((len(names), len(self.attributes)), np.int32)
        known: dict[str, int] = {}
        for a, attribute in enumerate(self.attributes):
            cells = table.full_column(attribute)
            for cell in dict.fromkeys(cells):
                if cell not in known:
                    known[cell] = len(self.pieces)
                    self.pieces.append(f" {cell}")
            self._values[:, a] = [known[cell] for cell in cells]
        self.pronouns: tuple[str, ...] = ()
        self._pronoun = np.zeros(len(names), np.int64)
        if pronoun_column is not None:
            self._read_pronouns(table, pronoun_column)

    def _read_pronouns(self, table: Table, column: str) -> None:
        said = [cell.lower() for cell in table.full_column(column)]
        for row, word in enumerate(said):
            if word not in PRONOUNS:
                raise UserError(
                    f"{table.where(row, column)}: {word!r} is no pronoun; write one of {', '.join(PRONOUNS)}"
                )
        self.pronouns = tuple(word for word in PRONOUNS if word in said)
        self._pronoun = np.array([self.pronouns.index(word) for word in said])

    def __len__(self) -> int:
        return self._size

    def pronoun(self, subjects: Integers) -> Integers:
        return self._pronoun[subjects]

    def name_pieces(self, subjects: Integers) -> Pieces:
        return (subjects + 1).astype(np.int32)[:, None]

    def value_pieces(self, attribute: int, subjects: Integers) -> Pieces:
        return self._values[subjects, attribute, None]

    def name_examples(self) -> Pieces:
        return np.arange(1, self._size + 1, dtype=np.int32)[:, None]

    def value_examples(self, attribute: int) -> Pieces:
        return np.unique(self._values[:, attribute])[:, None]

    def name(self, subject: int) -> str:
        return self.pieces[subject + 1][1:]

    def value(self, subject: int, attribute: int) -> str:
        return self.pieces[self._values[subject, attribute]][1:]


def _check_unique(table: Table, key: str, names: Sequence[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        first = seen.setdefault(name, row)
        if first != row:
            place = f"{table.where(row, key)}: {name!r}"
            raise UserError(f"{place} is already on {table.places[first]}; every entity needs one row")


def table(config: TableConfig) -> EntryCorpus:
    """Make a corpus of entries about the entities of a table.

    Raises:
        UserError: whatever is wrong with the table, the templates, the questions or the variant, and where.
    """
    variant = parse_variant(config.variant)
    if variant.celebrities:
        raise UserError("variant: +CEL adds made-up celebrities and goes with bioS only, not with a table")
    facts = read_table(config.facts)
    key = config.key if config.key is not None else next(iter(facts.columns))
    facts.column(key)
    attributes = config.attributes
    if attributes is None:
        attributes = tuple(name for name in facts.columns if name not in (key, config.pronoun_column))
    entities = Entities(facts, key, attributes, config.pronoun_column)
    corpus = EntryCorpus(Sentences(entities, _templates(config.templates, attributes)), variant, config.seed)
    if config.questions is not None:
        table_questions(corpus, config.questions)  # so that a bad question is refused before any work, too
    return corpus


def table_questions(
    corpus: EntryCorpus, questions: Path | Mapping[str, str] | None = None, split: Split | None = None
) -> QuestionCorpus:
    """One question an entity and attribute; `questions` is a file as in `TableConfig`, or a mapping."""
    wordings = questions if questions is None or isinstance(questions, Mapping) else _read_wordings(questions)
    return QuestionCorpus(corpus.population, wordings, corpus.subjects, split)


def _read_wordings(path: Path) -> dict[str, str]:
    wordings = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        attribute, tab, wording = line.strip().partition("\t")
        if line.strip() and not tab:
            raise UserError(f"{path}, line {number}: write ATTRIBUTE, a tab, and a question with {{subject}}: {line!r}")
        if tab:
            wordings[attribute.strip()] = wording.strip()
    return wordings


def _templates(path: Path | None, attributes: Sequence[str]) -> list[tuple[Template, ...]]:
    """The templates of each attribute, from its own file, the folder's default, or the package's."""
    default, where = read_data("templates", "table", "default.txt"), "templates/table/default.txt"
    own: dict[str, Path] = {}
    if path is not None and Path(path).is_dir():
        own = {file.stem: file for file in sorted(Path(path).glob("*.txt"))}
        if "default" in own and "default" not in attributes:
            default, where = read_text(own["default"]), str(own.pop("default"))
        for stem, file in own.items():
            if stem not in attributes:
                raise UserError(
                    f"{file}: {stem!r} is no attribute; did you mean {nearest(stem, attributes)!r}? "
                    f"The attributes are {', '.join(attributes)}"
                )
    elif path is not None:
        default, where = read_text(path), str(path)
    return [
        parse_templates(read_text(own[a]), str(own[a]), a.replace("_", " "))
        if a in own
        else parse_templates(default, where, a.replace("_", " "))
        for a in attributes
    ]
