"""The ways in which a relation's subjects are asked for: lists, spoilt lists, and the table's own wordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramlab.base.facts import Fact
from engramlab.base.random_access import draw, key, permute
from engramlab.corpora.facts import FactTable
from engramlab.corpora.people import People
from engramlab.experiments._run import Run
from engramlab.experiments.knowledge_estimation.config import Config, Control, Place
from engramlab.measuring.estimators import many_shot
from engramlab.measuring.estimators.many_shot import Form, Pair


@dataclass(frozen=True)
class Relation:
    """A relation's facts: those asked for, those that lists are made of, and what there is to choose from."""

    name: str
    asked: list[Fact]
    others: list[Fact]
    offered: list[list[str]]
    objects: list[str]


#: What names a way of asking, where it has none of it.
NO_LIST: dict[str, Any] = {
    "way": "",
    "shown": 0,
    "draw": 0,
    "control": None,
    "place": None,
    "wording": None,
    "objects_shown": 0,
}


@dataclass(frozen=True)
class Asking:
    """One way of asking for all subjects of a relation: what names it, and the context of each."""

    about: dict[str, Any]
    contexts: list[str]


def relation_of(run: Run, config: Config, table: FactTable, name: str) -> Relation | None:
    """The facts of a relation, split by the seed; None, said, where they do not do."""
    facts = [fact for fact in table if fact.relation == name]
    objects = list(dict.fromkeys(fact.object for fact in facts))
    if len(objects) < 2 or len(facts) < 2:
        run.say(f"{name}: left out, as it has {len(objects)} object{'s' * (len(objects) != 1)} to choose from")
        return None
    order = permute(key(config.seed, "subjects", name), np.arange(len(facts)), len(facts))
    # Lists need their facts; what they leave is asked for.
    most = min(config.subjects, max(len(facts) - max(config.counts), len(facts) // 2))
    chosen = [facts[i] for i in order]
    asked, others = chosen[:most], chosen[most:]
    offered = _offered(config, table, name, asked, objects)
    if short := [n for n in config.counts if n > len(others)]:
        run.say(
            f"{name}: has {len(facts)} facts, {len(others)} of them for lists: no lists of {', '.join(map(str, short))}"
        )
    return Relation(name, asked, others, offered, objects)


def _offered(
    config: Config, table: FactTable, name: str, asked: Sequence[Fact], objects: Sequence[str]
) -> list[list[str]]:
    """What each fact is chosen from: the source's own list, where it has one, or objects of the relation; nothing that is right
    too."""
    drawn = many_shot.options(
        [fact.object for fact in asked], objects, config.options, key(config.seed, "options", name)
    )
    found = []
    for fact, others in zip(asked, drawn, strict=True):
        own = table.wrong.get((fact.subject, name))
        listed = others if own is None else [fact.object, *own[: config.options - 1]]
        also = {alias.casefold() for alias in fact.aliases}
        found.append([one for one in listed if one == fact.object or one.casefold() not in also])
    return found


def counts(config: Config, relation: Relation) -> list[int]:
    """The counts that there are enough facts for, ascending."""
    return sorted(n for n in config.counts if n <= len(relation.others))


def shown_pairs(config: Config, relation: Relation, drawn: int, count: int) -> list[Pair]:
    """The list of that draw; a longer one begins with the shorter."""
    stream = key(config.seed, "list", relation.name, drawn)
    order = permute(stream, np.arange(len(relation.others)), len(relation.others))
    return [(relation.others[i].subject, relation.others[i].object) for i in order[:count]]


def spoilt(
    config: Config, relation: Relation, shown: list[Pair], drawn: int, control: Control, place: Place
) -> list[Pair]:
    """The list with a share of its facts put out of force."""
    count, stream = len(shown), key(config.seed, control, relation.name, drawn)
    many = max(1, round(config.control_share * count))
    where = {
        "start": np.arange(many),
        "end": np.arange(count - many, count),
        "spread": np.linspace(0, count - 1, many).round().astype(int),
    }[place]
    people = People(many, seed=stream >> 1)
    found = list(shown)
    for k, at in enumerate(where):
        subject, true = shown[at]
        wrong = [o for o in relation.objects if o != true]
        other = wrong[int(draw(stream, k, len(wrong)))]
        found[at] = (people.name(k), true) if control == "unknown" else (subject, other)
    return found


def askings(config: Config, table: FactTable, relation: Relation) -> Iterator[Asking]:
    """Every way of asking, in the order of the report."""
    there = counts(config, relation)
    for form in config.forms:
        for count in there:
            for drawn in range(config.draws if count else 1):
                shown = shown_pairs(config, relation, drawn, count)
                yield _listed(relation, shown, form, {"way": form, "shown": count, "draw": drawn})
    if (most := max(there, default=0)) > 1:
        for control in config.controls:
            for place in config.places:
                for drawn in range(config.draws):
                    shown = spoilt(config, relation, shown_pairs(config, relation, drawn, most), drawn, control, place)
                    about = {"way": config.forms[0], "shown": most, "draw": drawn, "control": control, "place": place}
                    yield _listed(relation, shown, config.forms[0], about)
    if config.wordings:
        prompts = [table.wordings.prompts(relation.name, fact.subject) for fact in relation.asked]
        many = len(prompts[0])
        for k in dict.fromkeys([*range(min(many - 1, 2)), many - 1]):
            wording = table.wordings.prompts(relation.name, "{subject}")[k]
            yield Asking({**NO_LIST, "way": "wording", "wording": wording}, [said[k] for said in prompts])


def _listed(relation: Relation, shown: Sequence[Pair], form: Form, about: dict[str, Any]) -> Asking:
    named = {**NO_LIST, **about, "objects_shown": len({y for _, y in shown})}
    return Asking(named, [many_shot.context(shown, fact.subject, form) for fact in relation.asked])
