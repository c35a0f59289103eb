"""bioS people: a name, a birth date, a birth city, a university, a major, an employer and its city.

Source: Physics of Language Models, Part 3.1 (arXiv 2309.14316), section 2. Nothing is stored per person:
everything is a function of the seed and the person's index, so twenty million people take no more memory than
twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from engramlab.base.arrays import Integers
from engramlab.base.errors import UserError
from engramlab.base.random_access import draw, key, permute
from engramlab.base.rows import ATTRIBUTES
from engramlab.corpora.layout import Pieces
from engramlab.corpora.templates import pool

COUPLES = ((0, 1), (2, 3), (4, 5))  # birth date -> birth city, university -> major, employer -> work city

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
DAYS = 28
FIRST_YEAR = 1900


QUESTIONS = {
    "birth_date": "What is the birth date of {subject}? Answer:",
    "birth_city": "What is the birth city of {subject}? Answer:",
    "university": "Which university did {subject} study? Answer:",
    "major": "What major did {subject} study? Answer:",
    "employer": "Which company did {subject} work for? Answer:",
    "work_city": "Where did {subject} work? Answer:",
}


@dataclass(frozen=True)
class Pools:
    """How many lines of each pool are used, from its first; the defaults are all, as in the paper."""

    first_names: int = 400
    """First names."""
    middle_names: int = 400
    """Middle names."""
    last_names: int = 1000
    """Last names."""
    birth_years: int = 200
    """Years of birth, from 1900 on."""
    birth_cities: int = 200
    """Cities of birth."""
    universities: int = 300
    """Universities."""
    majors: int = 100
    """Majors."""
    companies: int = 263
    """Employers, each with its city."""

    def __post_init__(self) -> None:
        for name, size in asdict(self).items():
            most = type(self).__dataclass_fields__[name].default
            if not 1 <= size <= most:
                raise UserError(f"pools.{name}: must be between 1 and {most}, not {size}")


class People:
    """A population of `people` persons made from a seed.

    Full names are distinct because person i gets name number permute(i) of all first x middle x last
    combinations, by a keyed bijection. The paper draws uniformly and rejects names already taken, which makes
    every sequence of distinct names equally likely; so does taking the first values of a random permutation,
    and it needs no memory of the names taken. Any two groups of indices, such as people and celebrities,
    share no name either.

    The other attributes are independent and uniform, except for the work city, which is the employer's.

    Raises:
        UserError: there are more people than names.
    """

    attributes = ATTRIBUTES
    pronouns = ("he", "she", "they")

    def __init__(self, people: int, seed: int = 0, pools: Pools = Pools()) -> None:
        self._people = people
        self._names = pools.first_names * pools.middle_names * pools.last_names
        if not 1 <= people <= self._names:
            raise UserError(
                f"people: {people} people need as many unique names, and {pools.first_names} first x "
                f"{pools.middle_names} middle x {pools.last_names} last names make 1 to {self._names}"
            )
        self._pools = pools
        self._keys = {label: key(seed, "people", label) for label in ("name", "pronoun", *ATTRIBUTES)}
        self._days = key(seed, "people", "day")
        self._texts = [""]
        companies = [line.split("\t") for line in pool("companies")[: pools.companies]]
        offices = sorted({city for _, city in companies})
        self._first = self._add(pool("first_names")[: pools.first_names])
        self._middle = self._add(pool("middle_names")[: pools.middle_names])
        self._last = self._add(pool("last_names")[: pools.last_names])
        self._month = self._add(MONTHS)
        self._day = self._add(f"{day}," for day in range(1, DAYS + 1))
        self._year = self._add(str(FIRST_YEAR + year) for year in range(pools.birth_years))
        self._values = {
            1: self._add(pool("birth_cities")[: pools.birth_cities]),
            2: self._add(pool("universities")[: pools.universities]),
            3: self._add(pool("majors")[: pools.majors]),
            4: self._add(company for company, _ in companies),
        }
        # One row per company, so that employer and work city read the same draw.
        city = dict(zip(offices, self._add(offices), strict=True))
        self._values[5] = np.array([city[office] for _, office in companies], np.int32)

    def _add(self, words: object) -> Pieces:
        start = len(self._texts)
        self._texts += [f" {word}" for word in words]  # type: ignore[attr-defined]
        return np.arange(start, len(self._texts), dtype=np.int32)

    @property
    def pieces(self) -> Sequence[str]:
        return self._texts

    def __len__(self) -> int:
        return self._people

    def pronoun(self, subjects: Integers) -> Integers:
        return draw(self._keys["pronoun"], subjects, len(self.pronouns))

    def name_pieces(self, subjects: Integers) -> Pieces:
        rest, last = np.divmod(permute(self._keys["name"], subjects, self._names), len(self._last))
        first, middle = np.divmod(rest, len(self._middle))
        return np.stack([self._first[first], self._middle[middle], self._last[last]], axis=1)

    def value_pieces(self, attribute: int, subjects: Integers) -> Pieces:
        stream = self._keys["employer" if attribute == 5 else ATTRIBUTES[attribute]]
        if attribute:
            values = self._values[attribute]
            return values[draw(stream, subjects, len(values))][:, None]
        year, month = np.divmod(draw(stream, subjects, len(self._year) * len(MONTHS)), len(MONTHS))
        day = draw(self._days, subjects, DAYS)
        return np.stack([self._month[month], self._day[day], self._year[year]], axis=1)

    def name_examples(self) -> Pieces:
        return _cycle(self._first, self._middle, self._last)

    def value_examples(self, attribute: int) -> Pieces:
        if attribute:
            return np.unique(self._values[attribute])[:, None]
        return _cycle(self._month, self._day, self._year)

    def name(self, subject: int) -> str:
        return self._text(self.name_pieces(np.array([subject])))

    def value(self, subject: int, attribute: int) -> str:
        return self._text(self.value_pieces(attribute, np.array([subject])))

    def _text(self, pieces: Pieces) -> str:
        return "".join(self._texts[i] for i in pieces[0].tolist()).lstrip(" ")


def _cycle(*columns: Pieces) -> Pieces:
    """Columns of different lengths side by side, the shorter ones repeated: every piece occurs."""
    rows = max(len(column) for column in columns)
    return np.stack([np.resize(column, rows) for column in columns], axis=1)
