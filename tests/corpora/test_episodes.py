"""Worlds: deterministic, answerable from their facts and from nothing else, and apart from each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from engramlab.base.errors import UserError
from engramlab.corpora.episodes import COLOURS, Episode, checked, worlds


def answered(facts: tuple[str, ...], question: str) -> str:
    """The answer, worked out from the words alone."""
    leader, colour = {}, {}
    for fact in facts:
        who, _, rest = fact.rstrip(".").partition("'s ")
        kind, _, value = rest.partition(" is ")
        (leader if kind == "leader" else colour)[who] = value
    who, *way = question.removesuffix(" is").split("'s ")
    for step in way[:-1]:
        assert step == "leader"
        who = leader[who]
    return colour[who]


def test_the_facts_answer_and_the_distractors_do_not_contradict() -> None:
    made = worlds(60, 0, "test", hops=3, people=5)
    for n, one in enumerate(made):
        assert one.hops == len(one.facts) == 1 + n % 3
        assert answered(one.facts, one.question) == one.answer
        assert answered((*one.facts, *one.distractors), one.question) == one.answer
        assert len({*one.facts, *one.distractors}) == 10
        assert checked(one, "here") is one


def test_worlds_are_of_their_seed_part_and_number() -> None:
    assert worlds(9, 3, "train") == worlds(20, 3, "train")[:9]
    assert not {one.facts + one.distractors for one in worlds(99, 3, "train")} & {
        one.facts + one.distractors for one in worlds(99, 3, "test")
    }
    assert worlds(5, 3, "train") != worlds(5, 4, "train")


def test_a_question_tells_nothing_of_its_answer() -> None:
    counts = Counter(one.answer for one in worlds(800, 0, "train"))
    assert set(counts) == set(COLOURS[:4])
    assert max(counts.values()) < 0.33 * 800


def test_refusals() -> None:
    good = Episode("e", ("Bob is red.",), "Bob is", "red", ("red", "blue"))
    for change, words in (
        ({"facts": ()}, "there: has no facts"),
        ({"answer": "pink"}, "must be one of red, blue, not 'pink'"),
        ({"question": "Is Bob red or is he"}, "answer 'red' stands in the question"),
    ):
        with pytest.raises(UserError, match=words):
            checked(replace(good, **change), "there")
    assert checked(replace(good, question="Is the redder one"), "there")
    for wrong, words in (
        ({"hops": 5}, "hops must be from 1 to 4"),
        ({"people": 1}, "people"),
        ({"colours": 99}, "colours"),
    ):
        with pytest.raises(UserError, match=words):
            worlds(3, 0, "train", **wrong)
