"""The benchmark `world`: edits of real facts about countries, and what must and must not follow from each.

An edit gives a country another country's capital, currency, language or calling code, or another continent. Wherever it takes
another country's object, that object belongs to this one *holder* in the whole world; so after the edit exactly two countries
have it, and chains through it have one answer. The kinds of judges are those of KnowEdit (arXiv 2401.01286) and MQuAKE
(arXiv 2305.14795); the facts come from `corpora/countries.py`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.base.random_access import key, permute
from engramlab.corpora.countries import CONTINENTS, RELATIONS, Country, Value, countries, holders, phrasings

LIMIT = 100


@dataclass(frozen=True, slots=True)
class WorldQuery(Query):
    """A judge that knows what it rests on.

    Attributes:
        needs: facts besides the edited one that must stand as they are: "capital/Japan" (this fact is not edited), and
            "currency=yen" (no other country is given this object).
    """

    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wording:
    """How a relation is put; ``{subject}`` is a country, or "the country whose ...", ``{v}`` an object, ``{h}`` its holder."""

    edit: str
    rephrased: Sequence[str]
    clause: str  # "a country ...": what it says of a country; ends before the object
    also: str = ""  # the holder is asked for
    both: str = ""  # the edited country is asked for


@cache
def _words() -> dict[str, _Wording]:
    """The wording of each relation."""
    return {name: _Wording(**wording) for name, wording in phrasings()["wordings"].items()}


def _fill(text: str, about: str = "", value: str = "", holder: str = "") -> str:
    upper = about[:1].upper() + about[1:]
    return text.format(subject=about, Subject=upper, v=value, V=value[:1].upper() + value[1:], h=holder)


class _World:
    """The table of facts, and the cases made from it."""

    def __init__(self, seed: int, chosen: Sequence[Country]) -> None:
        self.seed, self.chosen, self.counts = seed, chosen, holders()
        # The new objects: those of well-known countries, so that a small model can have heard of what follows.
        # Few languages belong to one country alone, so there all countries count.
        reach = {"capital": 60, "currency": 60, "language": len(chosen), "calling_code": 60}
        self.pools = {r: [c for c in chosen[:n] if self.single(c, r)] for r, n in reach.items()}

    def single(self, country: Country, relation: str) -> bool:
        """Whether this country alone has that object."""
        value = country.facts.get(relation)
        return value is not None and self.counts.get((relation, value.name.lower())) == 1

    def shuffled(self, items: Sequence[Country], *labels: str) -> list[Country]:
        if not items:
            return []
        return [items[i] for i in permute(key(self.seed, "world", *labels), np.arange(len(items)), len(items))]

    def case(self, country: Country, relation: str) -> Case:
        """The edit of one fact with its judges."""
        true, case_id = country.facts[relation], f"{relation}/{country.name}"
        holder, new = self.another(country, relation)
        judges: list[Query] = []
        seen: Counter[str] = Counter()
        for made in self.judges(country, relation, new, holder):
            number = seen[made.group] = seen[made.group] + 1
            judges.append(replace(made, id=f"{case_id}/{made.group}/{number}"))
        query = Query(
            _fill(_words()[relation].edit, country.mention),
            true.name,
            true.aliases,
            case_id,
            country.name,
            relation,
            "edit",
        )
        return Case(case_id, (Edit(query, new.name, new.aliases, tuple(judges)),))

    def another(self, country: Country, relation: str) -> tuple[Country | None, Value]:
        """An object to put in the place of the true one, and the country that has it (none for a continent)."""
        true = country.facts[relation]
        if relation == "continent":
            others = [value for value in CONTINENTS.values() if value != true]
            return None, others[int(permute(key(self.seed, "world", relation, country.iso), 0, len(others)))]
        for holder in self.shuffled(self.pools[relation], relation, country.iso):
            if not holder.facts[relation].names & true.names:
                return holder, holder.facts[relation]
        raise UserError(f"world: no other {relation} for {country.name} among {len(self.chosen)} countries; take more")

    def judges(self, country: Country, relation: str, new: Value, holder: Country | None) -> Iterator[WorldQuery]:
        wordings, about, label = _words(), country.mention, relation
        words = wordings[relation]
        for text in words.rephrased:
            wording = "Q&A" if text.startswith("Q:") else "statement"
            yield _ask(_fill(text, about), new, country.name, label, "generality", wording)

        other_names = [name for name in country.aliases if country.name.lower() not in name.lower()] or country.aliases
        if other_names:
            name = other_names[0]
            yield _ask(_fill(words.edit, country.named(name)), new, name, label, "portability", "Subject_Aliasing")

        # The subject is not named: its capital, or what else it alone has, leads to it.
        leads = [
            k for k in ("capital", "currency", "language", "calling_code") if k != relation and self.single(country, k)
        ]
        for k in leads[:1]:
            lead = country.facts[k].name
            described = f"the country {wordings[k].clause} {lead}"
            needs = _needs(country, k)
            yield _ask(_fill(words.edit, described), new, lead, label, "portability", "one-hop", needs)
            if holder:
                text = _fill(words.also, described)
                yield _country(text, holder, lead, label, "two-hop", (*needs, *_needs(holder, relation)))
        if holder:
            # The new object leads on to the country that always had it, and to what else is true there.
            needs = _needs(holder, relation)
            yield _country(_fill(words.also, about), holder, country.name, label, "one-hop", needs)
            onward = [
                k for k in ("capital", "continent", "language", "currency") if k != relation and k in holder.facts
            ]
            for k in [k for k in onward if holder.facts[k] != country.facts.get(k)][:1]:
                text = f"{_fill(words.also, about)} a country {wordings[k].clause}"
                also = (*needs, f"{k}/{holder.name}")
                yield _ask(text, holder.facts[k], country.name, label, "portability", "two-hop", also)
            text = _fill(words.both, value=new.name, holder=holder.mention)
            yield _country(text, country, new.name, label, "Logical_Generalization", needs)
        else:
            if self.single(country, "capital"):
                capital = country.facts["capital"].name
                text = f"{capital} is a city on the continent of"
                needs = _needs(country, "capital")
                yield _ask(text, new, capital, label, "portability", "Logical_Generalization", needs)
            if self.single(country, "calling_code") and "capital" in country.facts:
                code = country.facts["calling_code"].name
                text = f"The capital of the country whose calling code is {code} is a city on the continent of"
                both = (*_needs(country, "calling_code"), f"capital/{country.name}")
                yield _ask(text, new, code, label, "portability", "two-hop", both)

        yield from self.locality(country, relation, holder)

    def locality(self, country: Country, relation: str, holder: Country | None) -> Iterator[WorldQuery]:
        """The same relation elsewhere — the holder, a country with the same true object, others — and the rest here."""
        true = country.facts[relation]
        rest = [c for c in self.shuffled(self.chosen, "locality", relation, country.iso) if relation in c.facts]
        alike = [c for c in rest if c.facts[relation] == true and c is not country]
        ordered = [*([holder] if holder else []), *alike[:1], *rest]
        others = {other.iso: other for other in reversed(ordered) if other is not country}
        for other in list(reversed(others.values()))[:3]:
            yield self.stays(other, relation, "Relation_Specificity")
        for k in RELATIONS:
            if k != relation and k in country.facts and k != "calling_code":
                yield self.stays(country, k, "Forgetfulness")

    def stays(self, country: Country, relation: str, group: str) -> WorldQuery:
        text, value = _fill(_words()[relation].edit, country.mention), country.facts[relation]
        needs = (f"{relation}/{country.name}",)
        return _ask(text, value, country.name, relation, "locality", group, needs)


def _needs(country: Country, relation: str) -> tuple[str, str]:
    return f"{relation}/{country.name}", f"{relation}={country.facts[relation].name}"


def _ask(
    text: str, value: Value, subject: str, relation: str, role: str, group: str, needs: tuple[str, ...] = ()
) -> WorldQuery:
    return WorldQuery(text, value.name, value.aliases, "", subject, relation, role, group, needs=needs)


def _country(
    text: str, country: Country, subject: str, relation: str, group: str, needs: tuple[str, ...]
) -> WorldQuery:
    """A question whose answer is a country; its article stands in the prompt."""
    value = Value(country.name, country.aliases)
    return _ask(f"{text} {country.article}".rstrip(), value, subject, relation, "portability", group, needs)


def world(seed: int = 0, size: int = 150, relations: Sequence[str] = RELATIONS) -> list[Case]:
    """Counterfactual edits of facts about the ``size`` most populous countries, one a country and relation.

    The query of each edit holds the true answer as its target (and its other spellings), so that facts a model does not know
    can be left out. Judges: three rephrasings ("generality"; one of them a question), consequences ("portability": groups
    "one-hop" and "two-hop" for that many unedited facts on the way, "Subject_Aliasing", "Logical_Generalization") and what must
    stay ("locality": "Relation_Specificity", "Forgetfulness"). Each holds after its own edit alone; see
    ``cases.judged_together`` for several.

    Args:
        seed: of the objects put in and of the countries asked about.
        size: countries, at least 20; fewer if there are not so many.
        relations: which of "capital", "currency", "language", "continent", "calling_code".

    Returns:
        The cases, relation by relation for each country; ids such as "capital/France".

    Raises:
        UserError: a package is missing, an unknown relation, or too few countries.
    """
    for relation in relations:
        if relation not in RELATIONS:
            raise UserError(f"world: relation {relation!r} is unknown; choose of: {', '.join(RELATIONS)}")
    if size < 20:
        raise UserError(f"world: size must be at least 20 countries, not {size}")
    made = _World(seed, countries()[:size])
    return [made.case(c, relation) for c in made.chosen for relation in relations if relation in c.facts]


def apart(seed: int = 0, size: int = 120, test: float = 0.4) -> tuple[list[Case], list[Case]]:
    """Cases to train on and cases to test on, about countries of which no case of the other part speaks: not as its subject,
    not as the holder of its new object, not where it asks what follows or what stays. In orders drawn by ``seed``.

    Args:
        size: the most populous countries, at least 40.
        test: share of them that is tested on.

    Raises:
        UserError: a size or a share that leaves fewer than 20 countries to a part.
    """
    known = countries()[:size]
    order = permute(key(seed, "world apart"), np.arange(len(known)), len(known)).tolist()
    cut = round(test * len(known))
    if min(cut, len(known) - cut) < 20:
        raise UserError(f"world: {len(known)} countries and a share of {test} leave fewer than 20 to a part; take more")
    found = []
    for part in (sorted(order[cut:]), sorted(order[:cut])):
        made = _World(seed, [known[i] for i in part])
        some: list[Case] = []
        for country in made.chosen:
            for relation in RELATIONS:
                with contextlib.suppress(UserError):  # nobody else in this part has another object of that relation
                    some += [made.case(country, relation)] if relation in country.facts else []
        turns = permute(key(seed, "world apart", "cases"), np.arange(len(some)), len(some)).tolist()
        found.append([some[i] for i in turns])
    return found[0], found[1]


def cases(seed: int = 0, limit: int | None = None) -> list[Case]:
    """Edits of facts about 120 countries, in an order drawn by ``seed``: a few are about many countries and relations."""
    found = world(seed, 120)
    order = permute(key(seed, "editing cases"), np.arange(len(found)), len(found))
    return [found[i] for i in order[:limit]]
