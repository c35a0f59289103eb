"""Statements in a second vocabulary: the same facts, told in other words, and back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable
from engramlab.corpora.second_vocabulary import in_second_vocabulary, other_word
from engramlab.corpora.sources.bios import Config, bios, bios_templates
from engramlab.corpora.templates import PRONOUNS
from engramlab.corpora.variants import parse_variant


def test_no_two_words_of_the_templates_have_one_word_in_common() -> None:
    """So that what is said in the second vocabulary can be said back."""
    lines = [
        t.frame(p, named)
        for templates in bios_templates()
        for t in templates
        for p in PRONOUNS
        for named in (True, False)
    ]
    words = {word.lower() for f in lines for word in re.findall(r"[^\W\d_]+", f.before + " " + f.after)}
    others = {other_word(word) for word in words}
    assert len(others) == len(words) > 100
    assert not others & words


@pytest.mark.parametrize("variant", ["single+translate", "multi2+permute+fullname+translate"])
def test_the_second_entry_says_the_same_facts(variant: str) -> None:
    plain, both = (bios(Config(people=7, seed=3), name) for name in (variant.replace("+translate", ""), variant))
    first = len(plain)
    assert len(both) == 2 * first
    assert both.subject(np.arange(2 * first)).tolist() == 2 * plain.subject(np.arange(first)).tolist()
    for entry in range(first):
        one, other = both.passage(entry), both.passage(first + entry)
        assert one == plain.passage(entry)
        quoted = [[(span.relation, passage.quote(span)) for span in passage.spans] for passage in (one, other)]
        assert quoted[0] == quoted[1]
        # What stands between the spans is the other vocabulary's, word for word: said so, the first is the second.
        between = [_between(passage) for passage in (one, other)]
        assert [in_second_vocabulary(text) for text in between[0]] == between[1]
        known = {
            other_word(word.lower()): word.lower() for text in between[0] for word in re.findall(r"[^\W\d_]+", text)
        }
        back = [
            re.sub(r"[^\W\d_]+", lambda found, known=known: known.get(found[0].lower(), found[0].lower()), t)
            for t in between[1]
        ]
        assert back == [text.lower() for text in between[0]]


def _between(passage) -> list[str]:
    places = [0, *(place for span in passage.spans for place in (span.start, span.end)), len(passage.text)]
    return [passage.text[a:b] for a, b in zip(places[::2], places[1::2], strict=True)]


def test_celebrities_and_tables_have_it_too() -> None:
    beside = bios(Config(people=4, celebrities=3), "single+translate+CEL")
    assert [len(group) for group in beside.groups] == [8, 15]
    table = FactTable.of([Fact(f"Land {i}", "capital", f"City {i}") for i in range(3)])
    made = table.entries("single+translate")
    assert len(made) == 6
    assert made.passage(4).quote(made.passage(4).spans[-1]) == "City 1"
    assert "capital" in made.passage(1).text
    assert "capital" not in made.passage(4).text


def test_the_name_is_read_and_printed() -> None:
    for name in (
        "single+translate",
        "multi5+permute+fullname+translate+CEL",
        "single+CEL",
        "single+permute1+fullname+CEL",
    ):
        assert str(parse_variant(name)) == name
    assert parse_variant("multi3+translate").texts == 6
