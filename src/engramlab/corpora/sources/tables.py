"""A user's own facts: one row an entity, one column an attribute, down the same road as bioS.

In three lines:

    corpus = table(Config("countries.csv"), "multi5+permute")
    corpus.passage(0).text
    table_questions(corpus).query(0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError, nearest
from engramlab.corpora.datasets import Dataset, halves
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.questions import QuestionCorpus, Split
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.tables import Entities
from engramlab.corpora.templates import Template, parse_templates, read_data
from engramlab.corpora.variants import parse_variant
from engramlab.files.tables import read_table, read_text

GIVEN = "facts"


@dataclass(frozen=True)
class Config:
    """A dataset made from your own table: one row an entity, one column an attribute.

    Templates start with `{subject}` or `{subject's}`, have one `{value}` and may say `{attribute}`.
    """

    facts: Path | None = None
    """Your own facts: a table (.csv, .tsv, .jsonl, .ndjson or .parquet), one row an entity, one column an attribute."""
    seed: int = 0
    """Of templates, orders, the split and whatever is trained."""
    key: str | None = None
    """Column of the facts that names the entities, each once; None for the first."""
    attributes: tuple[str, ...] | None = None
    """Columns of the facts to state and ask for; None for all others but the pronoun column."""
    pronoun_column: str | None = None
    """Column of the facts with he, she, they or it. Without one every sentence repeats the entity's name."""
    templates: Path | None = None
    """A file of sentence templates for every attribute of the facts, or a folder with ATTRIBUTE.txt files and, for the
    attributes without one, default.txt. None is plain templates that fit every attribute."""
    questions: Path | None = None
    """A file of lines ATTRIBUTE, tab, question with {subject}, for attributes of the facts that shall not be asked "What is the
    ATTRIBUTE of {subject}? Answer:"."""


def table(config: Config, variant: str = "multi5+permute") -> EntryCorpus:
    """Make a corpus of entries about the entities of a table.

    Raises:
        UserError: whatever is wrong with the table, the templates, the questions or the variant, and where.
    """
    if config.facts is None:
        raise UserError("facts: give your table, for example --facts countries.csv")
    written = parse_variant(variant)
    if written.celebrities or written.text:
        raise UserError("variant: +CEL and +TEXT go with bioS only, whose celebrities are made up, not with a table")
    facts = read_table(config.facts)
    key = config.key if config.key is not None else next(iter(facts.columns))
    facts.column(key)
    attributes = config.attributes
    if attributes is None:
        attributes = tuple(name for name in facts.columns if name not in (key, config.pronoun_column))
    entities = Entities(facts, key, attributes, config.pronoun_column)
    corpus = EntryCorpus(Sentences(entities, _templates(config.templates, attributes)), written, config.seed)
    if config.questions is not None:
        table_questions(corpus, config.questions)  # so that a bad question is refused before any work, too
    return corpus


def dataset(config: Config, variant: str) -> Dataset:
    """Entries about the entities of the table, and questions about half of them."""
    corpus = table(config, variant)
    wordings = None if config.questions is None else _read_wordings(config.questions)
    return halves(corpus, wordings, config.seed, variant, parse_variant(variant))


def table_questions(
    corpus: EntryCorpus, questions: Path | Mapping[str, str] | None = None, split: Split | None = None
) -> QuestionCorpus:
    """One question an entity and attribute; `questions` is a file as in `Config`, or a mapping."""
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
