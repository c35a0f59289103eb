"""Pools and templates: sizes, uniqueness, grammar."""

import re
from itertools import pairwise

import pytest

from engramlab.base.errors import UserError
from engramlab.corpora.people import ATTRIBUTES
from engramlab.corpora.sources.bios import bios_templates
from engramlab.corpora.templates import PRONOUNS, Frame, Template, parse_templates, pool, read_data

SIZES = {
    "first_names": 400,
    "middle_names": 400,
    "last_names": 1000,
    "birth_cities": 200,
    "universities": 300,
    "majors": 100,
    "companies": 263,
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_pools_have_their_sizes_and_no_line_twice(name, size):
    lines = pool(name)
    assert len(lines) == size
    assert len({line.split("\t")[0].casefold() for line in lines}) == size
    assert all(line == " ".join(line.split(" ")).strip() and line for line in lines)
    assert not [line for line in lines if "  " in line]


def test_names_are_single_words():
    for name in ("first_names", "middle_names", "last_names"):
        assert all(re.fullmatch(r"[A-Z][A-Za-z'-]*", line) for line in pool(name)), name


def test_cities_carry_their_state():
    for city in (*pool("birth_cities"), *(line.split("\t")[1] for line in pool("companies"))):
        assert re.fullmatch(r"[A-Z][A-Za-z.' -]+, [A-Z]{2}", city), city


def test_a_seventh_of_the_companies_sit_in_new_york():
    cities = [line.split("\t")[1] for line in pool("companies")]
    assert 0.13 <= cities.count("New York, NY") / len(cities) <= 0.14


def test_there_are_universities_with_a_common_beginning():
    assert sum(name.startswith("University of California, ") for name in pool("universities")) >= 5


def test_bios_templates_are_as_many_as_in_the_paper_and_all_different():
    templates = bios_templates()
    assert [len(lines) for lines in templates] == [46, 49, 49, 52, 47, 48]
    for lines in templates:
        assert len({line.line for line in lines}) == len(lines)
    assert [len(lines) for lines in bios_templates(3)] == [3] * 6
    with pytest.raises(UserError, match="at least 1"):
        bios_templates(0)


def render(template, pronoun, named):
    frame = template.frame(pronoun, named)
    space = "" if frame.bare else " "
    return ("Anya" if named else "") + frame.before + space + "VALUE" + frame.after


def words(sentence):
    return re.findall(r"[A-Za-z']+", sentence)


@pytest.mark.parametrize("attribute", range(6), ids=ATTRIBUTES)
@pytest.mark.parametrize("pronoun", ["he", "she", "they"])
def test_rendered_sentences_are_grammatical(attribute, pronoun):
    others = {form for other in ("he", "she", "they") for form in PRONOUNS[other].values()}
    others -= set(PRONOUNS[pronoun].values())
    singular = {"was", "is", "has"}
    for template in bios_templates()[attribute]:
        named, pronominal = render(template, pronoun, True), render(template, pronoun, False)
        for sentence in (named, pronominal):
            assert sentence.count("VALUE") == 1
            assert sentence.endswith(".")
            assert not set(words(sentence.lower())) & others, sentence
            assert not set("{}[]|") & set(sentence), sentence
        assert named.startswith(("Anya ", "Anya's "))
        assert pronominal.startswith((f" {pronoun.capitalize()} ", f" {PRONOUNS[pronoun]['his'].capitalize()} "))
        said = words(pronominal)
        for before, after in pairwise(said):
            if before.lower() in ("he", "she"):
                assert after not in ("were", "are", "have"), pronominal
            if before.lower() == "they":
                assert after not in singular, pronominal
        # The name takes the singular, whatever its pronoun.
        assert words(named)[1] not in ("were", "are", "have"), named


def test_agreement_follows_the_mention_before_the_verb():
    template = Template("{subject} [was|were] glad that {value} was where {he} [was|were] born, {his} [x|y] {himself}.")
    assert render(template, "they", True) == "Anya was glad that VALUE was where they were born, their x themselves."
    assert render(template, "they", False) == " They were glad that VALUE was where they were born, their y themselves."
    assert render(template, "she", False) == " She was glad that VALUE was where she was born, her x herself."


def test_literals_around_the_value():
    frame = Template('{subject\'s} motto is "{value}"!').frame("it", named=False)
    assert (frame.before, frame.after, frame.bare) == (' Its motto is "', '"!', True)
    frame = Template("{subject} {value}").frame("it", named=True)
    assert (frame.before, frame.after, frame.bare) == ("", "", False)


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("In {value} lives {subject}.", Frame(" lives", ".", False, "In", False, True)),
        ('"{value}": {subject\'s} own.', Frame('":', "'s own.", True, '"', False, True)),
        ("{value}-born ({subject})", Frame("-born (", ")", True, "", True, True)),
        ("Born in 1980, {subject} [is|are] at {his} {value}.", Frame(" is at their", ".", False, "Born in 1980,")),
        ("(“{subject}”: {value})", Frame("”:", ")", False, "(“", True, False)),
    ],
)
def test_a_subject_that_stands_elsewhere_is_always_named(line, frame):
    template = Template(line)
    assert not template.opens
    assert template.turned == frame.turned
    assert template.frame("they", named=True) == template.frame("they", named=False) == frame


def test_attribute_names_are_inserted_as_they_are():
    template = Template("{subject's} {attribute} is {value}.", attribute="area [km2] {x}")
    assert render(template, "it", True) == "Anya's area [km2] {x} is VALUE."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{subject} was born.", "exactly one {value}, this one has 0"),
        ("{subject} likes {value} and {value}.", "exactly one {value}, this one has 2"),
        ("She was born in {value}.", "exactly one {subject}, this one has 0"),
        ("{subject} knows {subject's} {value}.", "exactly one {subject}, this one has 2"),
        ("In {value} lives nobody.", "exactly one {subject}, this one has 0"),
        ("{subject} [was|were born in {value}.", "stray '['"),
        ("{subject} [was] in {value}.", "stray '['"),
        ("{subject} sold {hers} {value}.", "unknown placeholder {hers}"),
        ("{subject} has {value}}.", "stray '}'"),
    ],
)
def test_templates_that_break_the_grammar_are_refused_with_their_line(line, message):
    with pytest.raises(UserError) as error:
        parse_templates(f"{{subject}} has {{value}}.\n\n{line}\n", "my.txt")
    assert str(error.value).startswith("my.txt, line 3: ")
    assert message in str(error.value)


def test_a_file_without_templates_is_refused():
    with pytest.raises(UserError, match=r"my\.txt: no templates"):
        parse_templates("\n  \n", "my.txt")


def test_default_templates_for_tables():
    lines = parse_templates(read_data("templates", "table", "default.txt"), "default", "capital")
    assert len(lines) >= 10
    for line in lines:
        assert "capital" in render(line, "it", True)
        assert re.search(r"\b(They|they)\b", render(line, "they", False)) or "Their" in render(line, "they", False)
