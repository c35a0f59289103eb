"""The entities of the fictional corpus: their names, their facts, and the sentences that can state them.

An entity i is a company, novel, device, festival or town with people and organisations of its own around it. Everything is a
function of the seed and i. Names of main entities, people and organisations belong to one entity each, by keyed bijections;
values (towns, years, trades, ...) are drawn from pools that all entities share, so that knowing the language does not tell
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.random_access import key, permute, random_words
from engramlab.corpora.templates import pool, read_data

WORDINGS = 10  # of each relation in passages: the original and nine paraphrases
PEOPLE = 3  # around each entity
FIRST_YEAR, YEARS = 1700, 300
_BLOCK = 256

KINDS = ("company", "novel", "device", "festival", "town")


@cache
def schemas() -> dict[str, list[tuple[str, str, str]]]:
    """For each kind of entity its facts: (whose, relation, what).

    X is the entity itself, A, B and M are people, O is an organisation; what else stands third is a pool. The first eight hold
    every step of five chains X -> someone -> something.
    """
    facts: dict[str, list[tuple[str, str, str]]] = {kind: [] for kind in KINDS}
    for line in read_data("templates", "fictional", "schemas.txt").splitlines():
        kind, whose, relation, what = line.split("\t")
        facts[kind].append((whose, relation, what))
    return facts


@dataclass(frozen=True, slots=True)
class SentenceFrame:
    """A sentence without its subject and object: `before` subject `between` object `after`."""

    before: str
    between: str
    after: str

    def fill(self, subject: str, object: str) -> tuple[str, int, int]:
        """The sentence, and where subject and object begin in it."""
        start = len(self.before)
        middle = start + len(subject) + len(self.between)
        text = f"{self.before}{subject}{self.between}{object}{self.after}"
        return text[0].upper() + text[1:], start, middle


@dataclass(frozen=True)
class FictionalWordings:
    """All sentences of the corpus.

    texts: for each relation the sentences of passages and paraphrases.
    queries: those of semantic and compositional queries, which no passage has.
    phrases: "the founder of {subject}", for relations whose object has facts of its own.
    asides: sentences that state no fact.
    """

    texts: dict[str, tuple[SentenceFrame, ...]]
    queries: dict[str, tuple[SentenceFrame, ...]]
    phrases: dict[str, tuple[str, ...]]
    asides: tuple[str, ...]


@cache
def wordings() -> FictionalWordings:
    """The templates of `templates/fictional`, parsed."""
    texts = {
        relation: tuple(_frame(line) for line in read_data("templates", "fictional", f"{relation}.txt").splitlines())
        for relation in sorted({relation for facts in schemas().values() for _, relation, _ in facts})
    }
    queries: dict[str, list[SentenceFrame]] = {}
    for relation, line in _pairs("queries"):
        queries.setdefault(relation, []).append(_frame(line))
    phrases: dict[str, list[str]] = {}
    for relation, line in _pairs("phrases"):
        phrases.setdefault(relation, []).append(line)
    return FictionalWordings(
        texts,
        {relation: tuple(frames) for relation, frames in queries.items()},
        {relation: tuple(lines) for relation, lines in phrases.items()},
        tuple(read_data("templates", "fictional", "asides.txt").splitlines()),
    )


def _pairs(name: str) -> list[tuple[str, str]]:
    lines = read_data("templates", "fictional", f"{name}.txt").splitlines()
    return [(relation, line) for relation, line in (each.split("\t") for each in lines)]


def _frame(line: str) -> SentenceFrame:
    before, rest = line.split("{subject}")
    between, after = rest.split("{object}")
    return SentenceFrame(before, between, after)


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity.

    facts: (subject, relation, object).
    links: for each fact, the number of the fact that leads from the entity to its subject, or -1 where that is the entity.
    wordings: for each fact, which wording the passage has; paraphrase v has the v-th after it.
    """

    kind: str
    name: str
    facts: tuple[tuple[str, str, str], ...]
    links: tuple[int, ...]
    wordings: tuple[int, ...]


class World:
    """Entities 0 to `entities` - 1, made from a seed.

    Args:
        kinds: which kinds there are; entities take turns.
        limit: most lines of any pool that are used, for a smaller vocabulary; None is all.

    Raises:
        UserError: an unknown kind or one twice; the pools have too few names for so many entities.
    """

    def __init__(self, entities: int, seed: int = 0, *, kinds: Sequence[str] = KINDS, limit: int | None = None) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"kinds: there is no {kind!r}; the kinds are {', '.join(KINDS)}")
        if not kinds or len(set(kinds)) < len(kinds):
            raise UserError(f"kinds: name at least one, and each once, not {list(kinds)}")
        if limit is not None and limit < 2:
            raise UserError(f"limit: must be at least 2 lines of each pool, not {limit}")
        self._pool = {name: pool(f"fictional_{name}")[:limit] for name in _POOLS}
        self._first, self._last = pool("first_names")[:limit], pool("last_names")[:limit]
        self.kinds = tuple(kinds)
        names = self._pool["names"]
        parts = {
            "device": len(names) * len(self._pool["devices"]),
            "festival": len(names) * len(self._pool["festivals"]),
            "town": len(names) * len(self._pool["prefixes"]),
            "novel": len(names) * len(self._pool["titles"]) * len(self._pool["adjectives"]),
        }
        self._sizes = parts | {"people": len(self._first) * len(self._last), "org": len(names) * (len(names) - 1)}
        mains = [len(kinds) * parts[kind] for kind in kinds if kind in parts]
        most = min(self._sizes["people"] // PEOPLE, self._sizes["org"], *mains)
        if not 1 <= entities <= most:
            raise UserError(f"entities: the pools have names for 1 to {most} entities, not for {entities}")
        self.entities, self.seed = entities, seed
        self._keys = {label: key(seed, "fictional", label) for label in (*self._sizes, "values")}
        self._names: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._last_made: tuple[int, Entity] | None = None  # texts about one entity are mostly asked for in a row

    def entity(self, index: int) -> Entity:
        """Entity number `index`."""
        if not 0 <= index < self.entities:
            raise IndexError(f"there is no entity {index}; there are {self.entities}")
        if self._last_made is None or self._last_made[0] != index:
            self._last_made = index, self._make(index)
        return self._last_made[1]

    def _make(self, index: int) -> Entity:
        kind = self.kinds[index % len(self.kinds)]
        people, org, main = self._named(index, kind)
        parts = {"A": people[0], "B": people[1], "M": people[2], "O": org, "X": main}
        drawn = random_words(self._keys["values"], index * 32 + np.arange(2 * len(schemas()[kind]))).tolist()
        taken: set[str] = set()
        led, worded = {"X": -1}, dict[str, int]()
        facts, links, chosen = [], [], []
        for number, (whose, relation, what) in enumerate(schemas()[kind]):
            if what in parts:
                value = parts[what]
                led[what] = number
            else:
                value = self._value(what, drawn[2 * number], taken)
            wording = drawn[2 * number + 1] % WORDINGS
            if relation in worded:  # said of two people: never in the same words
                wording = (worded[relation] + 1 + wording % (WORDINGS - 1)) % WORDINGS
            worded[relation] = wording
            facts.append((parts[whose], relation, value))
            links.append(led[whose])
            chosen.append(wording)
        return Entity(kind, main, tuple(facts), tuple(links), tuple(chosen))

    def _value(self, what: str, word: int, taken: set[str]) -> str:
        """A value no other fact of the entity has."""
        for step in range(1000):
            if what == "years":
                value = str(FIRST_YEAR + (word + step) % YEARS)
            elif what == "goods":
                thing, adjective = self._pool["goods"], self._pool["adjectives"]
                value = f"{adjective[(word >> 32) % len(adjective)]} {thing[(word + step) % len(thing)]}"
            else:
                value = self._pool[what][(word + step) % len(self._pool[what])]
            if value not in taken:
                break
        taken.add(value)
        return value

    def _named(self, index: int, kind: str) -> tuple[list[str], str, str]:
        block, place = divmod(index, _BLOCK)
        if block not in self._names:
            if len(self._names) >= 16:
                self._names.pop(next(iter(self._names)))
            self._names[block] = self._numbers(np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.entities)))
        people, orgs, mains = self._names[block]
        names = self._pool["names"]
        full = [
            f"{self._first[n % len(self._first)]} {self._last[n // len(self._first)]}" for n in people[place].tolist()
        ]
        one, two = divmod(int(orgs[place]), len(names) - 1)
        org = f"{names[one]} & {names[two + (two >= one)]}"
        if kind == "company":
            return full, org, org
        rest, name = divmod(int(mains[place]), len(names))
        if kind == "novel":
            adjective, title = divmod(rest, len(self._pool["titles"]))
            main = (
                f"The {self._pool['adjectives'][adjective].capitalize()} {self._pool['titles'][title]} of {names[name]}"
            )
        elif kind == "town":
            main = f"{self._pool['prefixes'][rest]} {names[name]}"
        else:
            main = f"the {names[name]} {self._pool[kind + 's'][rest]}"
        return full, org, main

    def _numbers(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the people [n, 3], organisations [n] and main names [n] of some entities."""
        people = permute(
            self._keys["people"], (index[:, None] * PEOPLE + np.arange(PEOPLE)).ravel(), self._sizes["people"]
        )
        mains = np.zeros(len(index), np.int64)
        for k, kind in enumerate(self.kinds):
            mine = index % len(self.kinds) == k
            if kind != "company":
                mains[mine] = permute(self._keys[kind], index[mine] // len(self.kinds), self._sizes[kind])
        return people.reshape(-1, PEOPLE), permute(self._keys["org"], index, self._sizes["org"]), mains


_POOLS = (
    *("names", "towns", "rivers", "occupations", "instruments", "animals", "materials", "adjectives"),
    *("goods", "titles", "devices", "festivals", "prefixes"),
)
