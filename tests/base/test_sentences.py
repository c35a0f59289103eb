"""Where sentences end, in several scripts."""

from __future__ import annotations

import doctest

import pytest

from engramlab.base import sentences as module
from engramlab.base.sentences import sentences, whole_sentences
from engramlab.writing.lessons import passages_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is so. (Or not?) Yes, e.g. this.\nNo.", ["It is so.", "(Or not?)", "Yes, e.g. this.", "No."]),
        ('He said "Go." Then he went', ['He said "Go."', "Then he went"]),
        ("Älter ist Ulm. Österreich nicht. er schon.", ["Älter ist Ulm.", "Österreich nicht. er schon."]),
        ("Анна живёт в Туле. Она врач.", ["Анна живёт в Туле.", "Она врач."]),
        ("他住在东京。他是医生！（真的。）好", ["他住在东京。", "他是医生！", "（真的。）", "好"]),
        ("वह घर गया। राम आया।", ["वह घर गया।", "राम आया।"]),
        ("No. 5 is 1.5 m, says Mr. 7.", ["No. 5 is 1.5 m, says Mr. 7."]),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
    assert "".join(sentences(text)).replace(" ", "") == "".join(text.split())  # nothing is lost


def test_examples() -> None:
    assert doctest.testmod(module).failed == 0


def test_whole_sentences_end_at_the_last_mark() -> None:
    assert whole_sentences("Она врач. Анна жив") == "Она врач."
    assert whole_sentences("他生于1996年。他说：“好。”他去") == "他生于1996年。他说：“好。”"
    assert whole_sentences("no end") == ""


def test_documents_without_spaces_are_cut_into_passages_too() -> None:
    """Of about 90 words, each of two characters."""
    made = passages_of("他在一九九六年出生于东京的一个小村子里。" * 40)
    assert len(made) > 3
    assert all(100 < len(one) < 220 for one in made[:-1])
    english = "She was born in 1996 in a small village near Tokyo. " * 40
    assert {len(one.split()) for one in passages_of(english)[:-1]} == {88}
