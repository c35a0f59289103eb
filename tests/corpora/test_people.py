"""bioS people: unique names, uniform and independent attributes, anyone without the others."""

import re

import numpy as np
import pytest

from engramlab.base.errors import UserError
from engramlab.corpora.layout import facts_of
from engramlab.corpora.people import ATTRIBUTES, People, Pools
from engramlab.corpora.templates import pool

MANY = 200_000


def test_full_names_are_unique():
    people = People(MANY, seed=1)
    names = people.name_pieces(np.arange(MANY))
    assert len(np.unique(names, axis=0)) == MANY
    assert people.name(7) == "".join(people.pieces[i] for i in names[7])[1:]
    assert len(people.name(7).split()) == 3


def test_every_name_of_a_small_pool_is_used_once():
    pools = Pools(first_names=4, middle_names=5, last_names=6)
    people = People(120, pools=pools)
    assert len({people.name(i) for i in range(120)}) == 120


def test_more_people_than_names_are_refused_with_both_numbers():
    with pytest.raises(UserError) as error:
        People(121, pools=Pools(first_names=4, middle_names=5, last_names=6))
    assert "121 people" in str(error.value)
    assert "120" in str(error.value)
    with pytest.raises(UserError, match="160000001 people"):
        People(160_000_001)
    assert len(People(160_000_000)) == 160_000_000


def test_the_seed_decides_and_the_number_of_people_does_not():
    some = range(50)

    def said(people):
        return [facts_of(people, i) for i in some]

    assert said(People(50, seed=3)) == said(People(20_000_000, seed=3))
    assert said(People(50, seed=3)) != said(People(50, seed=4))


def test_values_come_from_their_pools():
    people = People(2000)
    homes = dict(line.split("\t") for line in pool("companies"))
    for i in range(0, 2000, 40):
        date, city, university, major, employer, work_city = (people.value(i, a) for a in range(6))
        assert re.fullmatch(r"[A-Z][a-z]+ ([1-9]|1\d|2[0-8]), (19|20)\d\d", date)
        assert city in pool("birth_cities")
        assert university in pool("universities")
        assert major in pool("majors")
        assert work_city == homes[employer]


def test_attributes_are_uniform_and_independent():
    people = People(MANY)
    everyone = np.arange(MANY)
    month, day, year = people.value_pieces(0, everyone).T
    columns = [month, day, year, *(people.value_pieces(a, everyone)[:, 0] for a in range(1, 5))]
    columns.append(people.pronoun(everyone))
    sizes = [12, 28, 200, 200, 300, 100, 263, 3]
    codes = [np.unique(column, return_inverse=True)[1] for column in columns]
    for code, size in zip(codes, sizes, strict=True):
        counts = np.bincount(code)
        assert len(counts) == size
        chi_square = ((counts - MANY / size) ** 2 / (MANY / size)).sum()
        assert chi_square < size - 1 + 4 * np.sqrt(2 * size)
    for i, code in enumerate(codes):
        for other in codes[:i]:
            assert abs(np.corrcoef(code, other)[0, 1]) < 0.012


def test_guessing_new_york_is_right_for_a_seventh():
    people = People(MANY)
    cities = people.value_pieces(5, np.arange(20_000))[:, 0]
    share = np.mean([people.pieces[city] == " New York, NY" for city in cities])
    assert 0.125 < share < 0.15


def test_examples_show_every_piece():
    for people in (People(10), People(10, pools=Pools(3, 2, 5, 7, 2, 2, 1, 4))):
        shown = {0, *people.name_examples().ravel().tolist()}
        for a in range(len(ATTRIBUTES)):
            shown |= set(people.value_examples(a).ravel().tolist())
        assert shown == set(range(len(people.pieces)))


def test_pools_out_of_range_are_refused():
    for wrong in ({"majors": 0}, {"first_names": 401}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Pools(**wrong)
