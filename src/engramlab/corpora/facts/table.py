"""The table of facts itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Fact, Query
from engramlab.base.random_access import key as random_key
from engramlab.base.random_access import permute
from engramlab.corpora.entries import EntryCorpus
from engramlab.corpora.facts import building, formats, making
from engramlab.corpora.facts.entities import Entities
from engramlab.corpora.facts.wordings import Wordings, read_wordings
from engramlab.corpora.layout import Population, facts_of
from engramlab.corpora.passages import PassageRecord
from engramlab.corpora.sentences import Sentences
from engramlab.corpora.variants import parse_variant
from engramlab.files.tables import read_table

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, repr=False)
class FactTable:
    """Facts: at most one object for each subject and relation. Iterating gives every `Fact`, subject by subject.

    Made by `read`, `of` and `of_population`, which check everything.

    Attributes:
        name: what messages call the source.
        subjects: in the order of the source.
        objects: by relation, in the order of the source: an object for each subject, "" where there is no such fact.
        aliases: other spellings of the object, by (number of the subject, relation), where there are any.
        subject_aliases: by number of the subject, where there are any.
        wordings: how the facts are put into words.
        pronouns: of the subjects, where they have some.
        popularity: by (subject, relation), how well known the fact's subject is, where the source says so.
        wrong: by (subject, relation), the wrong objects that the source has a fact chosen from, where it names some.
        places: "line 7" or "record 7" of each subject, where they come from a file.
    """

    name: str
    subjects: Sequence[str]
    objects: Mapping[str, Sequence[str]]
    aliases: Mapping[tuple[int, str], tuple[str, ...]]
    subject_aliases: Mapping[int, tuple[str, ...]]
    wordings: Wordings
    pronouns: Sequence[str] = ()
    popularity: Mapping[tuple[str, str], float] = field(default_factory=dict)
    wrong: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    places: Sequence[str] = field(default=(), compare=False)

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        key: str | None = None,
        relations: Sequence[str] | None = None,
        pronoun_column: str | None = None,
        templates: str | Path | None = None,
        questions: str | Path | None = None,
        phrases: Mapping[str, str] | None = None,
        separator: str | None = None,
        several: building.Several = "refuse",
    ) -> FactTable:
        """The facts of a table, in either of two forms.

        *Wide*, one row a subject: the first column (or ``key``) names it, every other column is a relation, an empty cell no
        fact. Beside a column ``capital`` there may be ``capital_aliases``, and ``subject_aliases`` for the subject.
        *Long*, one row a fact: columns ``subject``, ``relation``, ``object``, and if you like ``subject_aliases`` and
        ``object_aliases`` and ``popularity``. Aliases are a list, or text with ``|`` between them.

        The files of PopQA and T-REx-MC are recognised by their columns, see `formats`.

        Args:
            source: a file (.csv with commas or semicolons, .tsv, .json, .jsonl, .parquet, or one of them .gz), a data set
                ``hub:owner/name``, a pandas data frame, an Arrow table, facts one by one, or "countries" (built in).
            key: the column with the subjects of a wide table.
            relations: those to keep; None for all.
            pronoun_column: of a wide table, with he, she, they or it.
            templates: see `read_wordings`.
            questions: see `read_wordings`.
            phrases: see `read_wordings`.
            separator: what stands between several objects in a cell, of which the first is taken; None where a cell is one.
            several: what becomes of another object of a subject and relation, in a later row or a list in a cell: "refuse", or
                "first" to leave it out with a note.

        Raises:
            UserError: two objects for one subject and relation, an alias that is another object or subject, a column or
                relation that nothing knows, a row without a subject, a file that cannot be read or holds no fact, a wording
                without its slots; with file, row and column.
        """
        wording: dict[str, Any] = {"templates": templates, "questions": questions, "phrases": phrases}
        if isinstance(source, FactTable):
            built = building.from_facts(source, relations, source.name, shared=True)
            built.popularity, built.wrong, built.said = {**source.popularity}, {**source.wrong}, source.wordings.said
            return cls._worded(built, **wording)
        if isinstance(source, str | Path) and str(source) == "countries":
            from engramlab.corpora.countries import country_facts, said

            built = building.from_facts(country_facts(), relations, "countries")
            built.said = said()
            return cls._worded(built, **wording)
        if isinstance(source, Iterable) and not isinstance(source, str) and not hasattr(source, "columns"):
            return cls.of(source, **wording, relations=relations, several=several)
        table = read_table(source)
        known = formats.of(table) if key is None else None
        if known is not None:
            return cls._worded(known.read(table, relations), **wording)
        built = building.from_table(table, key, relations, pronoun_column, separator, several)
        return cls._worded(built, **wording)

    @classmethod
    def of(
        cls,
        facts: Iterable[Fact],
        *,
        relations: Sequence[str] | None = None,
        templates: str | Path | None = None,
        questions: str | Path | None = None,
        phrases: Mapping[str, str] | None = None,
        several: building.Several = "refuse",
        name: str = "facts",
    ) -> FactTable:
        """The table of facts given one by one. Raises UserError as `read` does; places are "fact 7"."""
        return cls._worded(building.from_facts(facts, relations, name, several), templates, questions, phrases)

    @classmethod
    def of_population(cls, population: Population, subjects: Iterable[int] | None = None) -> FactTable:
        """The facts of a population, such as `corpora.people.People`: of all its subjects or of some of them."""
        chosen = range(len(population)) if subjects is None else subjects
        return cls.of((fact for subject in chosen for fact in facts_of(population, subject)), name="the population")

    @classmethod
    def _worded(
        cls,
        built: building.Builder,
        templates: str | Path | None,
        questions: str | Path | None,
        phrases: Mapping[str, str] | None,
    ) -> FactTable:
        wordings = read_wordings(list(built.objects), templates, questions, phrases, built.said)
        return cls(
            built.name,
            list(built.subjects),
            built.objects,
            built.aliases,
            built.subject_aliases,
            wordings,
            built.pronouns,
            built.popularity,
            built.wrong,
            built.places,
        )

    # what it holds ---------------------------------------------------------------------------------------------------

    @property
    def relations(self) -> tuple[str, ...]:
        """Its relations, in the order of the source."""
        return tuple(self.objects)

    def __len__(self) -> int:
        return sum(map(bool, (o for objects in self.objects.values() for o in objects)))

    def __iter__(self) -> Iterator[Fact]:
        for number in range(len(self.subjects)):
            yield from self.about(number)

    def about(self, number: int) -> Iterator[Fact]:
        """The facts about the subject of that number."""
        named = self.subject_aliases.get(number, ())
        for relation, objects in self.objects.items():
            if objects[number]:
                aliases = self.aliases.get((number, relation), ())
                yield Fact(self.subjects[number], relation, objects[number], aliases, named)

    def __repr__(self) -> str:
        return f"FactTable({self.name}: {len(self)} facts, {len(self.subjects)} subjects, {', '.join(self.relations)})"

    def sample(self, limit: int | None, seed: int = 0) -> FactTable:
        """So many of the facts, drawn by the seed, in their order; all where there are no more, or for None."""
        rows = [(number, fact.relation) for number in range(len(self.subjects)) for fact in self.about(number)]
        if limit is None or limit >= len(rows):
            return self
        order = permute(random_key(seed, "sample of facts"), np.arange(len(rows)), len(rows))
        kept = {rows[i] for i in order[:limit].tolist()}
        new = {number: i for i, number in enumerate(sorted({number for number, _ in kept}))}
        objects = {r: [cells[n] if (n, r) in kept else "" for n in new] for r, cells in self.objects.items()}
        return replace(
            self,
            subjects=[self.subjects[number] for number in new],
            objects={relation: cells for relation, cells in objects.items() if any(cells)},
            aliases={(new[n], r): names for (n, r), names in self.aliases.items() if (n, r) in kept},
            subject_aliases={new[n]: names for n, names in self.subject_aliases.items() if n in new},
            pronouns=[self.pronouns[n] for n in new] if self.pronouns else (),
            places=[self.places[n] for n in new] if self.places else (),
        )

    def choices(self) -> dict[str, tuple[str, ...]]:
        """By relation, its objects, each once and in the order of the source: the options of a choice."""
        return {relation: tuple(dict.fromkeys(filter(None, objects))) for relation, objects in self.objects.items()}

    @cached_property
    def digest(self) -> str:
        """A name of the facts and their own wordings, whatever file they came in: 16 hexadecimal digits."""
        made = hashlib.blake2b(digest_size=8)
        for fact in self:
            made.update(
                json.dumps([fact.subject, fact.relation, fact.object, fact.aliases, fact.subject_aliases]).encode()
            )
        made.update(json.dumps([list(self.pronouns), list(self.wordings.own)]).encode())
        for more in (self.popularity, self.wrong):
            if more:
                made.update(json.dumps([[*key, more[key]] for key in sorted(more)]).encode())
        return made.hexdigest()

    def to_arrow(self) -> pyarrow.Table:
        """The facts in the long form, which `read` takes."""
        import pyarrow as pa

        rows = list(self)
        texts, lists = pa.string(), pa.list_(pa.string())
        told = [self.popularity.get((fact.subject, fact.relation)) for fact in rows]
        return pa.table(
            {
                "subject": pa.array([fact.subject for fact in rows], texts),
                "relation": pa.array([fact.relation for fact in rows], texts),
                "object": pa.array([fact.object for fact in rows], texts),
                "subject_aliases": pa.array([list(fact.subject_aliases) for fact in rows], lists),
                "object_aliases": pa.array([list(fact.aliases) for fact in rows], lists),
                **({building.POPULARITY: pa.array(told, pa.float64())} if self.popularity else {}),
            }
        )

    def to_pandas(self) -> Any:
        """The facts in the long form as a data frame. Raises UserError where pandas is not installed."""
        try:
            return self.to_arrow().to_pandas()
        except ImportError:
            raise UserError("to_pandas needs the package pandas: pip install pandas") from None

    # what instruments take -------------------------------------------------------------------------------------------

    def entries(self, variant: str = "multi5+permute", seed: int = 0) -> EntryCorpus:
        """Entries about the subjects, for storage and probing; what a subject lacks is neither stated nor asked for.

        Args:
            variant: how they are written, as for bioS but without +CEL and +TEXT.
            seed: of templates and orders.

        Raises:
            UserError: an unknown variant, or one with celebrities.
        """
        written = parse_variant(variant)
        if written.celebrities or written.text:
            raise UserError(
                "variant: +CEL and +TEXT go with bioS only, whose celebrities are made up, not with a table"
            )
        lines = [self.wordings.templates[r] for r in self.relations]
        return EntryCorpus(Sentences(self.entities(), lines, written.translated), written, seed)

    def entities(self) -> Entities:
        """The subjects as a population."""
        return Entities(self.subjects, self.objects, self.pronouns)

    def passages(self, paraphrases: int = 9, seed: int = 0) -> list[PassageRecord]:
        """A passage about each subject, for injection, with paraphrases and queries.

        A passage states the subject's facts, a sentence each, with the subject's name in every one; a paraphrase states them in
        another order and as long as there are any in other templates. *Memorization* asks with the passage's own sentence,
        *semantic* with the relation's question, which no passage has.

        Args:
            paraphrases: at most; those that come out equal to another are left out.
            seed: of templates and orders.
        """
        return making.passages(self, paraphrases, seed)

    def queries(self) -> list[Query]:
        """The question for every fact, in their order; role "question", id "SUBJECT/RELATION"."""
        return [making.question(self, fact) for fact in self]

    def edits(
        self,
        target: Literal["other", "own"] = "other",
        *,
        relations: Sequence[str] | None = None,
        limit: int | None = None,
        locality: int = 3,
        seed: int = 0,
    ) -> list[Case]:
        """A case a fact, judged by other wordings of its prompt (generality) and by what is said of other subjects (locality).

        The prompt is the beginning of a sentence that ends in the object. Other names of the subject judge portability.

        Args:
            target: "other": another object of the relation, drawn by the seed, as if the fact had changed (the table's own is
                the old answer); "own": the table's object, which the model shall learn.
            relations: those to edit; None for all.
            limit: at most so many cases, the first of an order drawn by the seed; None for a case a fact.
            locality: judges about other subjects, of the same relation.

        Raises:
            UserError: an unknown relation, or one with a single object and nothing else to edit it to.
        """
        return making.edits(self, target, relations, limit, locality, seed)
