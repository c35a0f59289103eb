"""PopQA and T-REx-MC as tables of facts: recognised by their columns, what is wrong named by row and column, samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engramlab.base.errors import UserError
from engramlab.base.facts import Fact
from engramlab.corpora.facts import FactTable, formats

POPQA = Path(__file__).parents[3] / "shared/data/benchmarks/popqa/popqa_first_1000.tsv"
QUESTIONS = [
    ("Ann", "occupation", "poet", "What is Ann's occupation?", ["critic", "poet", "bard"], 7),
    ("Bob", "occupation", "critic", "What is Bob's occupation?", ["critic"], 90),
    ("Ann", "occupation", "smith", "What is Ann's occupation?", ["smith"], 8),  # another Ann
    ("Bob", "birthplace", "Rome", "Where was Bob born?", ["Rome", "Roma"], 90),
]
CHOICES = [
    (1, "home", "Ann", "Rome", "['Paris', 'Oslo', 'Paris']", "T", "text"),
    (1, "home", "Bob", "Oslo", "['Rome', \"N'Djamena\"]", "T", "text"),
]


def popqa(path: Path, **more: Any) -> Path:
    names = ("subj", "prop", "obj", "question", "possible_answers", "s_pop")
    rows = [{**dict(zip(names, row, strict=True)), "possible_answers": json.dumps(row[4])} for row in QUESTIONS]
    rows[1] |= more
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def trex(path: Path, **more: Any) -> Path:
    names = ("Relation_ID", "Relation Name", "Subject", "Object", "Multiple Choices", "Title", "Text")
    rows = [dict(zip(names, row, strict=True)) for row in CHOICES]
    rows[1] |= more
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_popqa(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 second objects are left out"):
        table = FactTable.read(popqa(tmp_path / "f.jsonl"))
    assert list(table) == [
        Fact("Ann", "occupation", "poet", ("critic", "bard")),  # "critic" is right of her, and Bob's own
        Fact("Bob", "occupation", "critic"),
        Fact("Bob", "birthplace", "Rome", ("Roma",)),
    ]
    assert table.popularity["Ann", "occupation"] == 7
    assert table.wordings.question("birthplace", "Ann") == "Where was Ann born? Answer:"
    again = FactTable.read(table, relations=["occupation"])
    assert (len(again), again.popularity["Bob", "occupation"]) == (2, 90)
    assert table.digest != FactTable.of(table.about(1)).digest


def test_trex_mc(tmp_path: Path) -> None:
    table = FactTable.read(trex(tmp_path / "f.jsonl"))
    assert list(table) == [Fact("Ann", "home", "Rome"), Fact("Bob", "home", "Oslo")]
    assert table.wrong == {("Ann", "home"): ("Paris", "Oslo"), ("Bob", "home"): ("Rome", "N'Djamena")}


def test_trex_mc_in_its_older_revision(tmp_path: Path) -> None:
    rows = [dict(zip(("Head", "Fact", "Alternate Facts"), row[2:5], strict=True)) for row in CHOICES]
    file = tmp_path / "place_of_birth.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    table = FactTable.read(file)
    assert list(table) == [Fact("Ann", "place of birth", "Rome"), Fact("Bob", "place of birth", "Oslo")]
    assert table.wrong["Bob", "place of birth"] == ("Rome", "N'Djamena")
    with pytest.raises(UserError, match="no list of texts"):
        file.write_text(json.dumps({"Head": "Ann", "Fact": "Rome", "Alternate Facts": "Paris"}))
        FactTable.read(file)


@pytest.mark.parametrize(
    ("made", "more", "words"),
    [
        (popqa, {"possible_answers": "[politician"}, "line 2, column 'possible_answers': .* is no JSON list of texts"),
        (popqa, {"possible_answers": "[1]"}, "line 2, column 'possible_answers'"),
        (popqa, {"s_pop": "many"}, "line 2, column 's_pop': 'many' is no number"),
        (popqa, {"s_pop": None}, "line 2, column 's_pop': is empty"),
        (popqa, {"obj": " "}, "line 2, column 'obj': is empty"),
        (trex, {"Multiple Choices": "['Paris'"}, r"line 2, column 'Multiple Choices': .* is no list of texts"),
        (trex, {"Multiple Choices": "__import__('os')"}, "line 2, column 'Multiple Choices'"),
        (trex, {"Subject": ""}, "line 2, column 'Subject': is empty"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, made: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        FactTable.read(made(tmp_path / "f.jsonl", **more))


def test_popularity_is_a_column_of_the_long_form(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("subject,relation,object,popularity\nAnn,home,Rome,7\nBob,home,Oslo,\n")
    table = FactTable.read(path)
    assert table.popularity == {("Ann", "home"): 7}
    assert FactTable.read(table.to_arrow()).popularity == table.popularity
    path.write_text("subject,relation,object,popularity\nAnn,home,Rome,much\n")
    with pytest.raises(UserError, match="line 2, column 'popularity': 'much' is no number"):
        FactTable.read(path)


def test_a_sample_is_some_of_the_facts_as_they_were() -> None:
    table = FactTable.read("countries")
    some = table.sample(40, 1)
    assert len(some) == 40
    kept = set(some)
    assert [fact for fact in table if fact in kept] == list(some)
    assert list(table.sample(40, 1)) == list(some) != list(table.sample(40, 2))
    assert table.sample(None) is table.sample(10_000) is table
    assert set(some.relations) == {fact.relation for fact in some}


def test_every_format_has_keys_and_a_reader() -> None:
    from engramlab.base import registry

    for name in registry.names(formats):
        one = registry.load(formats, name, "format of facts")
        assert one.KEYS
        assert callable(one.read)


@pytest.mark.skipif(not POPQA.exists(), reason=f"{POPQA} is not here")
@pytest.mark.filterwarnings("ignore:.*second objects")
def test_the_real_popqa() -> None:
    table = FactTable.read(POPQA)
    assert (len(table), len(table.popularity)) == (999, 999)
    assert table.wordings.question("occupation", "Ann") == "What is Ann's occupation? Answer:"
