"""Corpora as Parquet files."""

import errno
import json

import pyarrow.parquet as pq
import pytest
from tests.support.questions import questions_of

from engramlab.base.errors import UserError
from engramlab.corpora import export as module
from engramlab.corpora.export import export
from engramlab.corpora.people import ATTRIBUTES
from engramlab.corpora.questions import Split
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.corpora.sources.bios import bios, bios_questions
from engramlab.corpora.sources.tables import Config as TableConfig
from engramlab.corpora.sources.tables import table


def read(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


@pytest.fixture
def made():
    return bios(BiosConfig(people=50, celebrities=4), "multi2+permute+CEL")


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP", 16)


@pytest.mark.usefixtures("small_groups")
def test_what_is_written_is_what_the_corpus_says(tmp_path, made):
    questions = bios_questions(made, Split(50))
    calls = []
    out = export(made, questions, tmp_path / "a" / "out", lambda *args: calls.append(args), {"people": 50})
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]
    assert sorted(p.name for p in out.iterdir()) == [
        "dataset.json",
        "entries.parquet",
        "profiles.parquet",
        "questions.parquet",
    ]
    profiles, entries, asked = (read(out, name) for name in ("profiles", "entries", "questions"))
    assert json.loads((out / "dataset.json").read_text()) == {"people": 50}
    assert calls[-1] == (54 + 120 + 300, 54 + 120 + 300)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})

    assert [row["subject"] for row in profiles] == list(range(54))
    for row in profiles:
        assert row["name"] == made.population.name(row["subject"])
        for a, attribute in enumerate(ATTRIBUTES):
            assert row[attribute] == made.population.value(row["subject"], a)
        assert row["group"] == ("" if row["subject"] >= 50 else row["group"])
        assert row["pronoun"] in ("he", "she", "they")
    assert [row["group"] for row in profiles].count("train") == 25
    assert [row["group"] for row in profiles].count("test") == 25

    assert len(entries) == len(made)
    for entry, row in enumerate(entries):
        passage = made.passage(entry)
        assert row["entry"] == entry
        assert row["subject"] == made.subject([entry])[0]
        assert row["text"] == passage.text
        said = [(s["start"], s["end"], s["relation"], s["kind"]) for s in row["spans"]]
        assert said == [(s.start, s.end, s.relation, s.kind) for s in passage.spans]

    groups = [row["group"] for row in profiles]
    for entry, row in enumerate(asked):
        query = questions.query(entry)
        assert (row["prompt"], row["answer"], row["attribute"]) == (query.prompt, query.target, query.relation)
        assert (row["entry"], row["subject"]) == (entry, entry // 6)
        assert row["group"] == groups[row["subject"]]
    assert pq.ParquetFile(out / "entries.parquet").num_row_groups > 1


def test_a_table_whose_columns_are_called_like_ours(tmp_path):
    (tmp_path / "elements.csv").write_text("symbol,group,name\nH,1,Hydrogen\nHe,18,Helium\n")
    made = table(TableConfig(tmp_path / "elements.csv"), "single")
    out = export(made, questions_of(made), tmp_path / "out")
    assert read(out, "profiles")[1] == {
        "subject": 1,
        "name": "He",
        "pronoun": "",
        "attribute:group": "18",
        "attribute:name": "Helium",
        "group": "",
    }


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, made):
    (tmp_path / "out").mkdir()
    export(made, bios_questions(made), tmp_path / "out")
    with pytest.raises(UserError, match="already exists and is not an empty folder"):
        export(made, bios_questions(made), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is no folder"):
        export(made, bios_questions(made), tmp_path / "file")
    with pytest.raises(UserError, match="cannot write"):
        export(made, bios_questions(made), tmp_path / "file" / "out")


def test_nothing_is_left_of_an_interrupted_or_failed_export(tmp_path, made):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made, bios_questions(made), tmp_path / "out", interrupt)

    def full(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="the disk is full"):
        export(made, bios_questions(made), tmp_path / "out", full)
    assert list(tmp_path.iterdir()) == []
