"""Who is known, who is read about, whose facts are put in, what is asked and what changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.base.random_access import key, permute
from engramlab.core.text.passages import Asked
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import Divided, crossings, divide, only
from engramlab.corpora.people import People
from engramlab.experiments.where_knowledge_lives.config import Config

WORDINGS = 4  # of a subject's passage, beside the first
CROSSINGS = 6  # texts from other sides about each subject


@dataclass(frozen=True)
class Data:
    """What a run is about.

    Attributes:
        taught: the facts that are put in, in the wordings that are trained.
        halves: their subjects: those whose questions are trained, and those asked about.
        natives: facts that the model knew before.
        readers: of a network from scratch: whose passages it learns to read.
        words, native_words: the wordings of either.
        changes: facts that change, and the object each changes to.
    """

    name: str
    taught: FactTable
    halves: tuple[set[str], set[str]]
    natives: FactTable
    readers: FactTable | None
    words: Divided
    native_words: Divided
    changes: list[tuple[Fact, str]]

    def asked(self) -> list[Asked]:
        """The questions about what was put in, in held-out wordings, about subjects whose questions are never trained."""
        return questions(self.words, (fact for fact in self.taught if fact.subject in self.halves[1]), "held-out")

    def natively(self, most: int) -> list[Asked]:
        """Those about so many of the subjects known before."""
        some = set(self.natives.subjects[:most])
        return questions(self.native_words, (fact for fact in self.natives if fact.subject in some), "held-out")


def made(config: Config) -> Data:
    """Of a run. Raises UserError for facts that cannot be divided."""
    readers = None
    if config.scratch:
        if (table := config.fact_table()) is None:
            people = People(config.people + config.subjects + config.readers, config.seed)
            drawn = range(len(people))
            table = FactTable.read(FactTable.of_population(people, drawn), relations=config.attributes)
            new, known = config.subjects, config.people
        else:
            new = round(config.new_share * len(table.subjects))
            known = len(table.subjects) - new
        order = permute(key(config.seed, "subjects"), range(len(table.subjects)), len(table.subjects)).tolist()
        names = [table.subjects[i] for i in order]
        some = [names[:new], names[new : new + known], names[new + known :] or names[new:]]
        if len(some[0]) < 4 or not some[1]:
            raise UserError(
                f"facts: {len(names)} subjects are too few; four to put in and one that is known are needed"
            )
        whole, natives, readers = (_about(table, of) for of in some)
    else:
        given = config.fact_table()
        assert given is not None  # as ``check`` has seen
        whole = given
        world = FactTable.read("countries", relations=("capital",))
        own = {name.casefold() for name in whole.subjects}
        left = [name for name in world.subjects if name.casefold() not in own]
        if not left:
            raise UserError("facts: no country is left to tell what is forgotten; give invented facts")
        order = permute(key(config.seed, "native"), range(len(left)), len(left)).tolist()
        natives = _about(world, [left[i] for i in order[: config.native]])
    words = divide(whole.wordings)
    taught = only(whole, whole, words.trained)
    names = list(taught.subjects)
    if len(names) < 4:
        raise UserError(f"facts: {len(names)} subjects are too few; give four at least, half of which are asked about")
    order = permute(key(config.seed, "halves"), range(len(names)), len(names)).tolist()
    cut = len(names) // 2
    halves = {names[i] for i in order[:cut]}, {names[i] for i in order[cut:]}
    others = _about(taught, halves[1])
    changes = [
        (fact, new)
        for case in others.edits("other", limit=config.changed, locality=0, seed=config.seed)
        for edit in case.edits
        for fact, new in [(Fact(edit.query.subject, edit.query.relation, edit.query.target), edit.target)]
    ]
    return Data(whole.name, taught, halves, natives, readers, words, divide(natives.wordings), changes)


def _about(table: FactTable, subjects: Iterable[str]) -> FactTable:
    some = set(subjects)
    return only(table, (fact for fact in table if fact.subject in some))


def questions(words: Divided, facts: Iterable[Fact], part: str) -> list[Asked]:
    """The questions of facts, without a passage; ``part`` is "trained" or "held-out"."""
    found = []
    for fact in facts:
        forms = [words.trained.plain(fact.relation, fact.subject)]
        if part == "held-out":  # the forms themselves, without what leads to the answer
            every = words.questions(fact.relation, fact.subject, part)
            forms = [form.removeprefix("Q: ").removesuffix("\nA:").removesuffix(" It is") for form in every]
        found += [Asked(form, (), (fact.object, *fact.aliases), fact.subject) for form in forms]
    return found


def documents(table: FactTable, seed: int) -> dict[str, str]:
    """A passage a subject, which states its facts."""
    return {one.id: one.text for one in table.passages(paraphrases=0, seed=seed)}


def texts(table: FactTable, seed: int) -> list[str]:
    """Statements of all facts in many wordings and orders, and from other sides."""
    stated = [text for one in table.passages(WORDINGS, seed) for text in (one.text, *one.paraphrases)]
    return [*stated, *crossings(table, CROSSINGS, seed)]


def reworded(table: FactTable | None, seed: int) -> list[str]:
    """What passages state, in other words and orders than ``documents`` has them; nothing of no table."""
    return [] if table is None else [text for one in table.passages(WORDINGS, seed) for text in one.paraphrases]


def after(table: FactTable, fact: Fact, new: str) -> FactTable:
    """The facts of the subject of ``fact`` alone, that one with a new object."""
    own = _about(table, [fact.subject])
    aliases = {at: names for at, names in own.aliases.items() if at[1] != fact.relation}
    return replace(own, objects={**own.objects, fact.relation: [new]}, aliases=aliases)


def with_passages(asked: Sequence[Asked], stated: dict[str, str]) -> list[Asked]:
    """Each question behind its subject's own passage."""
    return [replace(one, passages=(stated[one.subject],)) for one in asked]
