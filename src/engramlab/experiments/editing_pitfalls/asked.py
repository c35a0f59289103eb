"""The cases of a run: two edits each, and by key the queries whose probabilities are read, a fact in all its wordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engramlab.base.errors import UserError, at_places, note, quoted
from engramlab.base.facts import Case, Edit, Query
from engramlab.base.options import comma_separated
from engramlab.base.random_access import draw, key, permute
from engramlab.corpora.countries import CONTINENTS, Country, countries
from engramlab.editing import benchmarks, method
from engramlab.editing.benchmarks import BadRecord
from engramlab.editing.requests import any_of
from engramlab.experiments.editing_pitfalls.config import Config
from engramlab.files.text import json_of, read_text

_FIRST = 60  # the most populous countries: a small model can have heard of them
_MOST = 10  # right answers of a round, as in RoundEdit
#: Ways to put a fact about the world; the first is the edit's prompt. All of them are ours.
_SAID: Mapping[str, Sequence[str]] = {
    "capital": (
        "The capital of {} is the city of",
        "The seat of government of {} is the city of",
        "The government of {} sits in the city of",
        "In {}, the seat of the national government is the capital city,",
    ),
    "capital of": (
        "{} is the capital of",
        "The city of {} is the capital of",
        "{} is the seat of government of",
        "The country whose capital is {} is",
    ),
    "city": (
        "{} is a city on the continent of",
        "The city of {} lies on the continent of",
        "The continent on which the city of {} lies is",
        "On a map of the world, the city of {} is found in",
    ),
    "continent": (
        "As a country, {} is located on the continent of",
        "The continent that {} belongs to is",
        "On a map of the world, {} is found in",
        "The people of {} live on the continent of",
    ),
    "currency/of": (
        "A country whose official currency is the {} is",
        "One country that pays with the {} is",
        "A country where people pay with the {} is",
        "Shops take the {} in a country such as",
    ),
    "language/of": (
        "A country whose official language is {} is",
        "One country where the official language is {} is",
        "A country whose laws are written in {} is",
        "Road signs are in {} in a country such as",
    ),
    "continent/of": (
        "A country on the continent of {} is",
        "One country in {} is",
        "A country that is found in {} on a map of the world is",
        "On the continent of {} lies a country called",
    ),
}


_Thing = TypeVar("_Thing")
#: (record, prompt, relation, subject) -> the prompt and the relation's other wordings.
_Said = Callable[[int, str, str, str], tuple[str, ...]]


@dataclass(frozen=True)
class Item:
    """A case.

    Attributes:
        kind: reverse, composite, coverage or round.
        edits: made one after another; of a round, the way there and the way back.
        asked: by key, a fact in all its wordings. Of conflicts: "first" and "last" edit, "implied" and "tied" facts where there
            are such. Of a round: its objects.
        true: of a round, the right answers, the edited one first.
        back: of a round, the way back to all right answers together.
    """

    id: str
    kind: str
    edits: tuple[Edit, Edit]
    asked: Mapping[str, tuple[Query, ...]]
    true: tuple[str, ...] = ()
    back: tuple[Edit, ...] = ()


def items_of(config: Config) -> dict[str, list[Item]]:
    """The cases of each source, a file or a kind of ``world``; raises UserError for what cannot be used."""
    found: dict[str, list[Item]] = {}
    for file in config.files:
        if file == "world":
            found |= {f"world {kind}": _world(kind, config.limit, config.seed) for kind in config.kinds}
        else:
            found[file] = _of_file(config, file)
    return found


def _of_file(config: Config, file: str) -> list[Item]:
    needed = method.needing_subjects(comma_separated(config.methods))
    loaded = benchmarks.load(file, bad=config.bad, limit=config.limit, subjects=needed)
    if loaded.format not in ("conflictedit", "roundedit"):
        raise UserError(f"{file}: is read as {loaded.format}; give a file of ConflictEdit or RoundEdit, or world")
    option = "conflict_wordings" if loaded.format == "conflictedit" else "round_wordings"
    path = getattr(config, option)
    if path is None:
        raise UserError(f"{file}: needs its relations' wordings; give them with --{option.replace('_', '-')}")
    worded = _wordings(path)

    def said(record: int, prompt: str, relation: str, subject: str) -> tuple[str, ...]:
        if relation not in worded:
            raise BadRecord(record, "relation", f"{quoted(relation)} has no wordings in {path}")
        return tuple(dict.fromkeys([prompt, *(text.replace("{}", subject) for text in worded[relation])]))

    makes = _conflict if loaded.format == "conflictedit" else _round
    found, left = [], [BadRecord(*one) for one in loaded.skipped]
    for case, number in zip(loaded.cases, loaded.records, strict=True):
        try:
            found.append(makes(case, number, said))
        except BadRecord as error:
            left.append(error)
            if config.bad == "refuse":
                raise UserError(f"{file}: {error}; write some, or leave such records out with bad='skip'") from None
    if not found:
        raise UserError(f"{file}: no record can be used: {left[0]}")
    if left:
        note(f"{file}: records left out: {len(left)} ({at_places([str(error) for error in left])})")
    return found


def _wordings(path: Path) -> dict[str, list[str]]:
    """By relation, prompts with ``{}`` for the subject."""
    try:
        found = json_of(read_text(path))
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); it must map relations to lists of prompts with {{}}") from None
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path}: must map relations to lists of prompts with {{}}")
    for relation, texts in found.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and "{}" in t for t in texts):
            raise UserError(f"{path}: relation {quoted(relation)} must have a list of prompts, each with {{}}")
    return found


def _queries(prompts: Sequence[str], target: str) -> tuple[Query, ...]:
    return tuple(Query(prompt, target) for prompt in prompts)


def _conflict(case: Case, record: int, said: _Said) -> Item:
    first, last = case.edits
    asked = {}
    for name, edit in (("first", first), ("last", last)):
        query = edit.query
        asked[name] = _queries(said(record, query.prompt, query.relation, query.subject), edit.target)
    judges = {query.group: query for query in last.judges}
    implied, tied = judges.get("implied"), judges.get("tied fact")
    kind = "coverage" if implied is None else "composite" if implied.prompt == first.query.prompt else "reverse"
    if implied is not None:
        prompts = said(record, implied.prompt, first.query.relation, implied.subject)
        asked["implied"] = _queries(prompts, implied.target)
    if tied is not None:
        asked["tied"] = _queries(said(record, tied.prompt, tied.relation, tied.subject), tied.target)
    return Item(case.id, kind, (first, last), asked)


def _round(case: Case, record: int, said: _Said) -> Item:
    (there,) = case.edits
    query = there.query
    prompts = said(record, query.prompt, query.relation, query.subject)
    return _trip(case.id, there, prompts)


def _trip(id: str, there: Edit, prompts: Sequence[str]) -> Item:
    """The old answers of an edit are the right ones, its target the wrong one in between."""
    true = (there.query.target, *there.query.aliases)
    back = Edit(
        Query(there.query.prompt, there.target, subject=there.query.subject, relation=there.query.relation), true[0]
    )
    asked = {one: _queries(prompts, one) for one in (*true, there.target)}
    return Item(id, "round", (there, back), asked, true, any_of(back, true))


def _world(kind: str, limit: int | None, seed: int) -> list[Item]:
    """Cases made of facts about countries, in an order drawn by the seed."""
    chosen = countries()[:_FIRST]
    made = list(_rounds(countries()[: 2 * _FIRST], seed) if kind == "round" else _conflicts(kind, chosen, seed))
    order = permute(key(seed, "pitfalls", kind), range(len(made)), len(made)) if made else ()
    return [made[i] for i in order][:limit]


def _conflicts(kind: str, chosen: Sequence[Country], seed: int) -> Iterator[Item]:
    there = [c for c in chosen if {"capital", "continent"} <= c.facts.keys()]
    for country in there:
        capital, continent = (country.facts[name].name for name in ("capital", "continent"))
        others = [c for c in there if c is not country]
        one, two = _two(others, seed, kind, country.iso)
        capitals = [c.facts["capital"].name for c in (one, two)]
        if kind == "coverage":
            edits = [("capital", country.mention, capital, new) for new in capitals]
            yield _made(kind, country, edits)
        elif kind == "reverse":
            edits = [("capital", country.mention, capital, capitals[0])]
            edits += [("capital of", capitals[0], country.mention, two.mention)]
            yield _made(kind, country, edits, implied=("capital", two.mention, capitals[0]))
        else:
            first, last = _two([c.name for c in CONTINENTS.values() if c.name != continent], seed, kind, country.iso)
            edits = [("city", capital, continent, first), ("continent", country.mention, continent, last)]
            tied = ("capital", country.mention, capital)
            yield _made(kind, country, edits, implied=("city", capital, last), tied=tied)


def _two(of: Sequence[_Thing], seed: int, *labels: str) -> tuple[_Thing, _Thing]:
    first, last = permute(key(seed, "pitfalls", *labels), range(2), len(of))
    return of[first], of[last]


def _made(
    kind: str, country: Country, edits: Sequence[tuple[str, str, str, str]], **more: tuple[str, str, str]
) -> Item:
    asked = {
        name: _queries([text.replace("{}", subject) for text in _SAID[relation]], target)
        for name, (relation, subject, target) in {
            **{name: (r, s, new) for name, (r, s, _, new) in zip(("first", "last"), edits, strict=True)},
            **more,
        }.items()
    }
    first, last = (
        Edit(Query(_SAID[relation][0].replace("{}", subject), old, subject=subject, relation=relation), new)
        for relation, subject, old, new in edits
    )
    return Item(f"{kind}/{country.name}", kind, (first, last), asked)


def _rounds(chosen: Sequence[Country], seed: int) -> Iterator[Item]:
    """One a value that several countries share, and a country that has it: edited to one that has not, and back."""
    for relation in ("currency", "language", "continent"):
        with_it = [c for c in chosen if relation in c.facts]
        counts = Counter(c.facts[relation].name for c in with_it)
        for value in [value for value, count in counts.items() if count > 1]:
            holders = [c for c in with_it if c.facts[relation].name == value][:_MOST]
            others = [c for c in with_it[:_FIRST] if c.facts[relation].name != value]
            said = [text.replace("{}", value) for text in _SAID[f"{relation}/of"]]
            for old in holders:
                new = others[int(draw(key(seed, "pitfalls", "round", value, old.iso), 0, len(others)))]
                rest = tuple(c.mention for c in holders if c is not old)
                query = Query(said[0], old.mention, rest, subject=value, relation=relation)
                yield _trip(f"{relation}/{value}/{old.name}", Edit(query, new.mention), said)
