"""What a model is trained on and asked about: entries, questions and the split, from bioS, a user's table or a bioR folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from engramlab.corpora.bios import BiosConfig, BiosCorpus, bios, bios_questions
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.people import Pools
from engramlab.corpora.questions import CelebritySplit, QuestionCorpus, Split
from engramlab.corpora.rewriting import RewrittenCorpus, rewritten, rewritten_questions
from engramlab.corpora.tables import TableConfig, table, table_questions

TEXT = "+TEXT"  # ends the name of a variant that reads unrelated text beside the people's entries


@dataclass(frozen=True)
class Source:
    """Where facts and texts come from."""

    seed: int = 0
    """Of the people, the entries, their order, the split and whatever is trained."""
    people: int = 300
    """bioS people."""
    celebrities: int = 0
    """People of the second group in +CEL variants, whose questions are trained on instead of half of the people's; 0 means as
    many as people."""
    celebrity_entries: str = BiosConfig.celebrity_entries
    """How celebrities' entries are written: any variant without +CEL. Another format than the paper's (`single`,
    `multi5`, `multi5+permute+fullname`) shows how far celebrities help a minority written about in another way."""
    celebrity_templates: Literal["same", "other"] = "same"
    """`other`: celebrities' sentences never have the wording of the minority's. With first_templates N the people get the first
    N templates of each attribute and celebrities the next N, else half of them each."""
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
    people = BiosConfig(
        source.people, variant.removesuffix(TEXT), source.seed, pools=source.pools, templates=source.first_templates
    )
    if variant.endswith("+CEL"):
        return _with_celebrities(source, variant, people)
    corpus = bios(people)
    split = Split(len(corpus.subjects), source.seed)
    return Dataset(variant, corpus, bios_questions(corpus, split), split, text=variant.endswith(TEXT))


def _with_celebrities(source: Source, variant: str, people: BiosConfig) -> Dataset:
    """People and celebrities; what is not as in the paper stands in the name, so that reports keep it apart."""
    corpus = bios(
        replace(
            people,
            celebrities=source.celebrities,
            celebrity_entries=source.celebrity_entries,
            celebrity_templates=source.celebrity_templates,
        )
    )
    split = CelebritySplit(source.people, len(corpus.population) - source.people, source.seed)
    questions = bios_questions(corpus, split, celebrities=True)
    name = variant
    if source.celebrity_entries != BiosConfig.celebrity_entries:
        name += f"={source.celebrity_entries}"
    if source.celebrity_templates == "other":
        name += "+other-templates"
    return Dataset(name, corpus, questions, split, celebrities=len(corpus.groups[0]))


def halved(data: Dataset, seed: int) -> tuple[Dataset, Split]:
    """The same texts with their ordinary people in two halves: as it was, but for datasets whose P_train are celebrities."""
    if isinstance(data.split, Split):
        return data, data.split
    assert isinstance(data.corpus, BiosCorpus)
    split = Split(data.split.people, seed)
    return replace(data, questions=bios_questions(data.corpus, split), split=split, celebrities=None), split


def variants(source: Source, named: tuple[str, ...]) -> tuple[str, ...]:
    """The variants of a source; a rewritten corpus has only the one it was written in."""
    return ("bior",) if source.corpus is not None else named
