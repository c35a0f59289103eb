"""The benchmark `dated`: made facts with dates, half of them changed and half of them new (after arXiv 2406.04496).

The time-invariant facts are real ones about countries (`corpora/countries.py`); who or what changed, and since when, is made up
here. Modification: a country's capital, currency or language is another country's since a year. Injection: a made-up person
(`corpora/people.py`) lives in a country since a year. What follows is composed of the new fact and a time-invariant one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from engramlab.base.facts import Case
from engramlab.base.random_access import draw, key, permute
from engramlab.corpora.countries import Country, countries, holders
from engramlab.corpora.people import People
from engramlab.editing.benchmarks._dated import Dated, case_of, invariant

LIMIT = 100  # of a run that does not say
_COUNTRIES = 60  # the most populous: a small model can have heard of them
_FIRST, _YEARS = 2024, 3  # the years since which something is otherwise
_CHANGING = ("capital", "currency", "language")


@cache
def _known() -> tuple[Dated, ...]:
    """The time-invariant facts: of countries, and of what one country alone has."""
    found = []
    for country in countries()[:_COUNTRIES]:
        found += _of(country, ("continent",))
        for relation in _CHANGING:
            if _own(country, relation):
                thing = country.facts[relation].name
                found.append(Dated(thing, "home country", country.name, aliases=(country.mention, *country.aliases)))
                if relation == "capital" and (continent := country.facts.get("continent")) is not None:
                    found.append(Dated(thing, "continent", continent.name, aliases=continent.aliases))
    return tuple(found)


def _of(country: Country, relations: Sequence[str]) -> list[Dated]:
    """What stays of a country, of these relations."""
    known = [
        (relation.replace("_", " "), country.facts[relation]) for relation in relations if relation in country.facts
    ]
    return [Dated(country.mention, relation, value.name, aliases=value.aliases) for relation, value in known]


def _own(country: Country, relation: str) -> bool:
    """Has this country alone that object?"""
    value = country.facts.get(relation)
    return value is not None and holders().get((relation, value.name.lower())) == 1


def table(seed: int = 0) -> tuple[list[list[Dated]], dict[str, list[Dated]]]:
    """The dated facts, as histories of one subject and relation each, a change and a new one by turns; and all that stays.

    What changes does so in half of the countries, drawn by ``seed``; what it becomes, and where people live, is of the others.
    """
    chosen = countries()[:_COUNTRIES]
    drawn = permute(key(seed, "dated"), np.arange(len(chosen)), len(chosen)).tolist()
    half = len(chosen) // 2
    changing, staying = [chosen[i] for i in drawn[:half]], [chosen[i] for i in drawn[half:]]
    pairs = [(country, relation) for country in changing for relation in _CHANGING if relation in country.facts]
    order = permute(key(seed, "dated order"), np.arange(len(pairs)), len(pairs)).tolist()
    people, found = People(len(pairs), seed), list[list[Dated]]()
    for number, at in enumerate(order):
        country, relation = pairs[at]
        since, later = (
            str(_FIRST + int(draw(key(seed, "dated since", way), number, _YEARS))) for way in ("change", "new")
        )
        old = country.facts[relation]
        pool = [c for c in staying if _own(c, relation) and not c.facts[relation].names & old.names]
        new = pool[int(draw(key(seed, "dated change"), number, len(pool)))].facts[relation]
        was = Dated(country.mention, relation, old.name, "", since, old.aliases)
        found.append([was, Dated(country.mention, relation, new.name, since, "", new.aliases)])
        home = staying[int(draw(key(seed, "dated home"), number, len(staying)))]
        names = (home.name, *home.aliases)
        found.append([Dated(people.name(number), "country of residence", home.mention, later, aliases=names)])
    return found, invariant([*_known(), *(fact for country in staying for fact in _of(country, _CHANGING))])


def cases(seed: int = 0, limit: int | None = None) -> list[Case]:
    """At most ``limit`` edits, ``LIMIT`` by default and some 170 in all: a changed fact and a new one by turns."""
    histories, facts = table(seed)
    made = (case_of(history, facts) for history in histories[: LIMIT if limit is None else limit])
    return [case for case in made if case is not None]
