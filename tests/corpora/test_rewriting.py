"""bioR without a model: which answers count, and stored texts as a corpus."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engramlab.base.errors import UserError
from engramlab.corpora import datasets
from engramlab.corpora.export import export
from engramlab.corpora.layout import NAME
from engramlab.corpora.people import ATTRIBUTES, People
from engramlab.corpora.questions import Split
from engramlab.corpora.rewriting import (
    RewrittenCorpus,
    Stated,
    named,
    people_table,
    rewritten,
    rewritten_questions,
    stated_in,
)
from engramlab.corpora.sources import bior

NAME_ = "Anya Briar Forger"
VALUES = ("October 2, 1996", "Princeton, NJ", "Reed College", "Ecology", "Dow", "Midland, MI")
TEXT = (
    "Anya Briar Forger (born October 2, 1996 in Princeton, NJ) studied Ecology at Reed College. "
    "Today Anya Briar Forger works for Dow, in Midland, MI."
)


def quotes(text: str, reading: Stated) -> list[tuple[str, int]]:
    return [(text[start:end], mark) for start, end, mark in reading.spans]


def test_reading_finds_each_value_and_every_mention_of_the_name() -> None:
    reading = stated_in(TEXT, NAME_, VALUES)
    assert reading.missing == ()
    assert quotes(TEXT, reading) == [
        (NAME_, NAME),
        ("October 2, 1996", 1),
        ("Princeton, NJ", 2),
        ("Ecology", 4),
        ("Reed College", 3),
        (NAME_, NAME),
        ("Dow", 5),
        ("Midland, MI", 6),
    ]


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("October 2, 1996", "2 October 1996", ("birth_date",)),
        ("Dow,", "Dowling,", ("employer",)),
        ("Ecology", "Paleoecology", ("major",)),
        ("Ecology", "ecology", ("major",)),
        ("Anya Briar Forger", "Anya Forger", ("name",)),
    ],
)
def test_only_words_as_they_are_written_count(old: str, new: str, missing: tuple[str, ...]) -> None:
    assert stated_in(TEXT.replace(old, new), NAME_, VALUES).missing == missing


def test_scripts_without_spaces_have_no_longer_words() -> None:
    text = "王岚出生在东京，在Lund工作。"
    reading = stated_in(text, "王岚", ["东京", "Lund", "大阪"], ("home", "work", "school"))
    assert reading.missing == ("school",)
    assert [text[start:end] for start, end, _ in reading.spans] == ["王岚", "东京", "Lund"]


def test_two_facts_with_one_value_need_two_mentions() -> None:
    values = (*VALUES[:5], "Princeton, NJ")
    once = TEXT.replace(", in Midland, MI", "")
    assert stated_in(once, NAME_, values).missing == ("work_city",)
    assert stated_in(TEXT.replace("Midland, MI", "Princeton, NJ"), NAME_, values).missing == ()


def test_a_value_inside_another_is_not_its_mention() -> None:
    values = (*VALUES[:2], "Princeton", *VALUES[3:])
    assert stated_in(TEXT, NAME_, values).missing == ("university",)
    text = TEXT.replace("Reed College", "Princeton")
    assert ("Princeton", 3) in quotes(text, stated_in(text, NAME_, values))


def test_any_spelling_counts_and_each_wants_a_mention_of_its_own() -> None:
    text = "She served in the US Army and lives in the US."
    values = (("United States", "US"), ("US Army",))
    reading = stated_in(text, ("Ada", "She"), values, ("country", "employer"))
    assert quotes(text, reading) == [("She", NAME), ("US Army", 2), ("US", 1)]
    assert reading.missing == ()
    assert stated_in(text[:30], "Ada", values, ("country", "employer")).missing == ("name", "country")
    capital = "Guatemala has Guatemala City."
    reading = stated_in(capital, "Guatemala", ("Guatemala City",), ("capital",))
    assert quotes(capital, reading) == [("Guatemala", NAME), ("Guatemala City", 1)]
    assert stated_in(capital[14:], "Guatemala", ("Guatemala City",), ("capital",)).missing == ("name",)


def made(entries: int = 3, skip: tuple[int, ...] = ()) -> tuple[RewrittenCorpus, People, list[str]]:
    """Texts about five people, but for the items `skip`."""
    people = People(5, 1)
    facts = [(people.name(s), [people.value(s, a) for a in range(6)]) for s in range(5)]
    profiles = {
        "name": [name for name, _ in facts],
        "pronoun": [people.pronouns[p] for p in people.pronoun(np.arange(5))],
    }
    profiles |= {attribute: [values[a] for _, values in facts] for a, attribute in enumerate(ATTRIBUTES)}
    items = [item for item in range(5 * entries) if item not in skip]
    texts = []
    for item in items:
        name, values = facts[item % 5]
        order = np.random.default_rng(item).permutation(6)
        texts.append(f"{name}: " + "; ".join(values[a] for a in order) + f" (text {item}).")
    spans = [stated_in(text, *facts[item % 5]).spans for text, item in zip(texts, items, strict=True)]
    subjects = [item % 5 for item in items]
    return (
        RewrittenCorpus(people_table(profiles), texts, subjects, spans, np.arange(len(items))),
        people,
        texts,
    )


def test_a_corpus_gives_its_texts_back() -> None:
    corpus, people, texts = made()
    assert len(corpus) == 15
    for entry in (0, 7, 14):
        passage = corpus.passage(entry)
        assert passage.text == texts[entry]
        assert {(span.relation, passage.quote(span)) for span in passage.spans} == {
            ("", people.name(entry % 5)),
            *((a, people.value(entry % 5, k)) for k, a in enumerate(ATTRIBUTES)),
        }
    layout = corpus.layout(np.arange(15))
    assert ["".join(corpus.pieces[p] for p in row) for row in layout.pieces.tolist()] == texts
    assert sum(len(part) for part in corpus.coverage()) == 15
    assert (corpus.first_entry(np.arange(5)) == np.arange(5)).all()
    with pytest.raises(IndexError):
        corpus.layout([15])


def test_entries_that_are_left_out_move_the_others_up() -> None:
    corpus, _, texts = made(skip=(1, 6))
    assert corpus.subject(np.arange(13)).tolist() == [0, 2, 3, 4, 0, 2, 3, 4, 0, 1, 2, 3, 4]
    assert corpus.first_entry([0, 1, 4]).tolist() == [0, 9, 3]
    assert corpus.passage(9).text == texts[9]
    with pytest.raises(ValueError, match="every subject"):
        made(skip=(1, 6, 11))


def test_a_written_corpus_is_read_back(tmp_path: Path) -> None:
    corpus, _, texts = made(skip=(1,))
    folder = tmp_path / "bior"
    questions = rewritten_questions(corpus, Split(5, 1))
    export(corpus, questions, folder, about={"corpus": "bior"}, entry_columns={"tries": corpus.tries})
    again = rewritten(folder)
    assert [again.passage(i) for i in range(14)] == [corpus.passage(i) for i in range(14)]
    assert again.subject(np.arange(14)).tolist() == corpus.subject(np.arange(14)).tolist()
    assert again.tries.tolist() == list(range(14))
    assert rewritten_questions(again, Split(5, 1)).query(8) == questions.query(8)
    assert pq.read_table(folder / "entries.parquet")["text"].to_pylist() == texts


def test_a_folder_that_is_not_bior_or_was_edited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dataset\.json"):
        rewritten(tmp_path)
    corpus, _, _ = made()
    folder = tmp_path / "bior"
    export(corpus, rewritten_questions(corpus), folder, about={}, entry_columns={"tries": corpus.tries})
    assert json.loads((folder / "dataset.json").read_text()) == {}
    table = pq.read_table(folder / "entries.parquet")
    edited = ["Oh, " + text for text in table["text"].to_pylist()]
    pq.write_table(table.set_column(2, "text", [edited]), folder / "entries.parquet")
    with pytest.raises(UserError, match="entry 0: characters"):
        rewritten(folder)


def test_pronouns_become_names_and_values_stay_quoted() -> None:
    text = "Ada May Lee was born in York. She studied Art, and her work took her to Rome."
    spans = [(0, 11, NAME), (24, 28, 2), (42, 45, 4), (text.index("Rome"), text.index("Rome") + 4, 6)]
    said, found = named(text, spans, "Ada May Lee", "she")
    assert said == (
        "Ada May Lee was born in York. Ada May Lee studied Art, and Ada May Lee's work took Ada May Lee to Rome."
    )
    assert [said[a:b] for a, b, mark in found if mark != NAME] == ["York", "Art", "Rome"]
    assert {said[a:b] for a, b, mark in found if mark == NAME} == {"Ada May Lee"}


def test_first_texts_and_celebrities(tmp_path: Path) -> None:
    corpus, people, texts = made()
    folder = tmp_path / "bior"
    export(corpus, rewritten_questions(corpus), folder, about={}, entry_columns={"tries": corpus.tries})
    config = bior.Config(corpus=folder)
    assert [len(bior.dataset(config, name).corpus) for name in ("bior", "bior1", "bior2", "bior9+fullname")] == [
        15,
        5,
        10,
        15,
    ]
    data = bior.dataset(replace(config, celebrities=2), "bior1+fullname+CEL")
    assert data.celebrities == 3
    about = data.corpus.subject(np.arange(len(data.corpus))).tolist()
    assert about == [0, 1, 2, 3, 4, 3, 4, 3, 4]
    assert data.corpus.subjects == range(3)
    assert data.split.test.tolist() == [0, 1, 2]
    assert set(data.split.train.tolist()) <= {3, 4}
    for entry, person in enumerate(about):
        passage = data.corpus.passage(entry)
        assert {passage.quote(s) for s in passage.spans if s.relation} == {people.value(person, a) for a in range(6)}
    assert bior.dataset(config, "bior").corpus.passage(7).text == texts[7]


@pytest.mark.parametrize(
    ("named_", "words"),
    [
        (("single+CEL",), "as in bior1.CEL"),
        (("bior1", "single"), "has no single"),
        (("bior1",), "celebrities: is for .CEL variants"),
    ],
)
def test_variants_that_a_written_corpus_does_not_have(named_: tuple[str, ...], words: str) -> None:
    config = datasets.options()(corpus=Path("somewhere"), celebrities=3 if "celebrities" in words else 0)
    with pytest.raises(UserError, match=words):
        datasets.parse_variants(config, named_)
        datasets.variants(config, named_)


def test_a_corpus_option_alone_still_means_all_texts() -> None:
    config = datasets.options()(corpus=Path("somewhere"))
    assert datasets.variants(config, ("single", "multi5+permute")) == ("bior",)
    assert datasets.variants(config, ("bior1", "bior1+CEL")) == ("bior1", "bior1+CEL")
