"""Teaching a table in texts that a chat model writes: a function answers in its place, once a real network."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments.test_teaching import ROWS, SUBJECTS, facts, model, small
from tests.support import zoo
from tests.writing.test_subjects import told as text_for

import engramlab as eg
from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.corpora.facts import FactTable
from engramlab.experiments import teaching
from engramlab.experiments.teaching import told
from engramlab.experiments.teaching.config import ARMS, AUGMENTED
from engramlab.experiments.teaching.stated import HeldOut
from engramlab.experiments.teaching.work import Teaching
from engramlab.files import records
from engramlab.report import write_report
from engramlab.report.experiments import teaching as pages
from engramlab.writing.rounds import Author, Conversation
from engramlab.writing.subjects import RULES, STYLES

__all__ = ["facts", "model"]  # fixtures


class Chat:
    """Answers in place of a chat model.

    Args:
        spoiled: by name, what becomes of a text about that subject.
        kill: the call that is interrupted.
    """

    def __init__(self, spoiled: dict[str, Any] | None = None, kill: int = 0) -> None:
        self.spoiled, self.kill, self.calls, self.seeds = spoiled or {}, kill, 0, list[int]()

    def __call__(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        self.calls += 1
        if self.calls == self.kill:
            raise KeyboardInterrupt
        self.seeds += seeds
        asked = [conversation[-1]["content"] for conversation in conversations]
        return [self.answer(text, seed) for text, seed in zip(asked, seeds, strict=True)]

    def answer(self, asked: str, seed: int) -> str:
        """Every fifth answer is no text; the others are of the request's facts, unless they are spoiled."""
        if seed % 5 == 0:
            return "I cannot say."
        text = text_for(asked, seed % 997)
        for name, change in self.spoiled.items():
            text = change(text) if name in text else text
        return text


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    made = Chat()
    monkeypatch.setattr(Author, "writer", lambda self: made)
    return made


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> str:
    """A random network with room for requests and answers."""
    folder = tmp_path_factory.mktemp("writer")
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, facts.read_text(), *STYLES, RULES])
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    made = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=1024)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def written(taught: str, table: Path, writer: str, **more: Any) -> teaching.Config:
    return small(taught, table, **({"writer": writer, "rewrites": 3, "replay": "none"} | more))


def rows_of(school: Teaching, arm: str, name: str = "") -> list[str]:
    found = []
    for source in school.lesson(ARMS[arm]).sources:
        if name in ("", source.name):
            some = source.entries.tokens(np.arange(len(source.entries)))
            found += [school.tokenizer.decode(some.row(k)) for k in range(len(some))]
    return found


HELD = {  # what a chat model might well say, by subject
    SUBJECTS[0]: "{0}'s home can be put in short as",
    SUBJECTS[1]: "{0}'s entry, under colour, reads",
    SUBJECTS[2]: "Name the home of {0}, they say",
    SUBJECTS[3]: "What is the colour of {0} they know",
    SUBJECTS[4]: "What colour has {0}? Well",
}


def test_no_held_out_wording_and_no_question_is_trained(
    model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat
) -> None:
    """Over all rows, with a chat model that says them about five subjects: templates stand in for those."""
    chat.spoiled = {
        name: lambda text, said=said, name=name: f"{said.format(name)} {text}" for name, said in HELD.items()
    }
    school = Teaching(written(model, facts, writer), tmp_path / "run", "", None)
    with school.run:
        asked, unasked = school.halves
        rows = rows_of(school, "augmented+questions", "entries") + rows_of(school, "augmented+questions", "crossing")
        questions = rows_of(school, "augmented+questions", "questions")
        record = school.tell()
    words = school.words
    held = [prompt for f in school.table for _, prompt in words.prompts(f.relation, f.subject, "held-out")]
    assert not any(prompt in text for prompt in held for text in [*rows, *questions])
    assert not any("?" in text or "What is" in text or "Name the" in text for text in rows)
    assert all(any(name in text for name in asked) for text in questions)
    assert not any(name in text for name in unasked for text in questions)
    assert record is not None
    assert record["fell_back"] >= 3 * len(HELD)
    kept = json.loads((tmp_path / "run" / "written" / "texts.json").read_text())["subjects"]
    for name, texts in kept.items():
        assert any(one["written"] for one in texts) == (name not in HELD)
    plain = school.taught.entries(AUGMENTED, 0)
    number = school.taught.subjects.index(SUBJECTS[0])
    assert [one["text"] for one in kept[SUBJECTS[0]]] == [
        plain.passage(k * len(SUBJECTS) + number).text for k in range(3)
    ]


def test_texts_are_trained_where_they_state_every_fact(
    model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat
) -> None:
    """In arms with augmentation, as many about each subject; one wording stays a template's."""
    school = Teaching(written(model, facts, writer), tmp_path / "run", "", None)
    with school.run:
        rows = rows_of(school, "augmented", "entries")
        assert rows == rows_of(school, "augmented+questions", "entries")
        single = rows_of(school, "single", "entries")
        by_heart = rows_of(school, "rote", "entries")
        counts = school.tell()
    assert len(rows) == 3 * len(SUBJECTS)
    for name, colour, home in ROWS:
        about = [text for text in rows if name in text]
        assert len(about) == len(set(about)) == 3
        assert all(colour in text and home in text for text in about)
    assert counts is not None
    assert sum("in list" in text for text in rows) == counts["written"]
    assert counts["written"] + counts["fell_back"] == len(rows)
    assert counts["fell_back"] <= 2
    assert not any("in list" in text for text in [*single, *by_heart])


def test_a_run_says_how_many_were_written_and_trains_equal_tokens(
    model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat
) -> None:
    """A value that is always lost is asked for again, so many times, and then falls back."""
    lost = ROWS[6]
    chat.spoiled = {lost[0]: lambda text: text.replace(lost[2], "a town")}
    said = io.StringIO()
    arms = ("augmented+questions", "augmented", "single")
    config = written(model, facts, writer, arms=arms, replay="self")
    summary = teaching.run(config, tmp_path / "run", console=Console(file=said, width=500))
    every, fell = 3 * len(SUBJECTS), summary["written"]["fell_back"]
    assert fell >= 3
    assert summary["written"]["written"] + fell == every
    assert f"writes {every} texts, 3 about each of {len(SUBJECTS)} subjects" in said.getvalue()
    assert (
        f"{every - fell} of {every} texts about {len(SUBJECTS)} subjects are written by {writer}; {fell} fell"
        in said.getvalue()
    )
    school = Teaching(config, tmp_path / "run", "", None)
    longest = {
        arm: max(source.longest(school.lesson(ARMS[arm]).start) for source in school.lesson(ARMS[arm]).sources)
        for arm in arms
    }
    for row in summary["training"]:
        assert 0 <= row["tokens"] - summary["budget"] < config.batch * longest[row["dataset"]]
    (table,) = [t for t in pages.terminal(summary) if t.caption.startswith("Texts about")]
    assert table.rows == [[writer, str(every - fell), str(fell)]]
    assert "fell back to templates" in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    per_text = [chat.seeds.count(seed) for seed in chat.seeds]
    assert set(per_text) == {1}
    assert len(chat.seeds) >= every + (told.TRIES - 1) * 3
    assert not [t for t in pages.terminal({**summary, "written": None}) if t.caption.startswith("Texts about")]


def test_a_killed_run_writes_nothing_twice(
    model: str, facts: Path, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = written(model, facts, writer, encounters=1, points=1, asked_facts=2, native_facts=0)
    one, other = Chat(), Chat(kill=3)
    monkeypatch.setattr(Author, "writer", lambda self: one)
    whole = teaching.run(config, tmp_path / "whole")
    monkeypatch.setattr(Author, "writer", lambda self: other)
    with pytest.raises(KeyboardInterrupt):
        teaching.run(config, tmp_path / "killed")
    again = teaching.run(config, tmp_path / "killed")
    assert other.seeds == one.seeds
    for key in ("rows", "kept", "training"):
        assert [{**row, "seconds": 0} for row in again[key]] == [{**row, "seconds": 0} for row in whole[key]]
    done = len(other.seeds)
    more = teaching.run(replace(config, arms=(*config.arms, "augmented")), tmp_path / "killed")
    assert len(other.seeds) == done
    assert {**more["written"], "seconds": 0} == {**whole["written"], "seconds": 0}
    texts = [
        told.texts_of(records.read_record(tmp_path / run / "written" / "texts.json")) for run in ("whole", "killed")
    ]
    assert texts[0] == texts[1]


def test_texts_of_other_facts_are_refused(facts: Path, tmp_path: Path, chat: Chat) -> None:
    path = tmp_path / "texts.json"
    table = FactTable.read(facts)
    told.write(path, Author("nobody", tries=3), table, 1, lambda text: True, Console(quiet=True))
    assert told.read(path, table)["writer"] == "nobody"
    fewer = FactTable.of(list(table)[:-1])
    with pytest.raises(UserError, match=r"texts.json is of other facts than are taught now; remove .* written again"):
        told.read(path, fewer)


def test_a_text_that_the_model_cannot_read_whole_is_not_trained(
    model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat
) -> None:
    chat.spoiled = {SUBJECTS[5]: lambda text: "So they say. " * 60 + text}
    school = Teaching(written(model, facts, writer), tmp_path / "run", "", None)
    with school.run:
        assert not any("So they say" in text for text in rows_of(school, "augmented", "entries"))
        assert not any("in list" in text for text in school.texts[SUBJECTS[5]])


def test_nothing_is_written_where_nothing_is_trained(
    model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat
) -> None:
    config = written(model, facts, writer, encounters=0, asked_facts=2, native_facts=0)
    assert teaching.run(config, tmp_path / "run")["written"] is None
    assert chat.calls == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"arms": ("single", "context")}, "writer: of the arms single, context none is trained on texts"),
        ({"writer": ""}, "writer: a request of "),
        ({"writer": "2x16"}, "writer: '2x16' is a size; name a chat model"),
        ({"writer": "no/such/model/anywhere"}, "no/such/model/anywhere"),
    ],
)
def test_bad_writers_are_named(
    model: str, facts: Path, writer: str, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    config = replace(written(model, facts, writer), **given)
    if not config.writer:  # the taught model, whose context is short
        config = replace(config, writer=model)
    with pytest.raises(UserError, match=said):
        teaching.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_the_texts(model: str, facts: Path, writer: str, tmp_path: Path, chat: Chat) -> None:
    school = Teaching(written(model, facts, writer), tmp_path / "run", "", Console(quiet=True))
    school.plan()
    stages = {stage.label: stage.steps for stage in school.run.stages}
    assert stages["writing: texts"] == 3 * len(SUBJECTS)
    plain = Teaching(small(model, facts), tmp_path / "run", "", Console(quiet=True))
    plain.plan()
    assert "writing: texts" not in {stage.label for stage in plain.run.stages}


def test_a_network_that_writes_noise_teaches_by_templates_from_python(
    model: str,
    facts: Path,
    writer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nobody stands in for the chat model: it is loaded, asked, and nothing that it writes can be used."""
    monkeypatch.setattr(told, "TRIES", 1)
    few = {"encounters": 1, "points": 1, "replay": "none", "audit": False, "native_facts": 0, "asked_facts": 2}
    summary = eg.teach(model, facts, tmp_path / "run", writer=writer, rewrites=1, **few)
    assert (summary["written"]["written"], summary["written"]["fell_back"]) == (0, len(SUBJECTS))
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"0 of {len(SUBJECTS)} texts about {len(SUBJECTS)} subjects are written by" in said
    assert "fell back to templates" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Of Zorban they say that home is Arlo.", False),
        ("zorban’s HOME can, be put in short as Arlo.", True),
        ("Now then: name the home of Zorban, which is Arlo.", True),
        ("The home of Zorban? It is Arlo.", True),
        ("What is the home of Zorban, they ask; Arlo.", True),
        ("What is the home of Zorbanese, they ask; Arlo.", False),
        ("Zorban's home is Arlo.", False),  # that sentence is trained
    ],
)
def test_what_holds_a_prompt_that_is_only_asked_with(facts: Path, text: str, holds: bool) -> None:
    from engramlab.corpora.facts.teaching import divide

    table = FactTable.read(facts)
    assert (HeldOut(table, divide(table.wordings)).prompt(text) is not None) == holds


def test_other_names_of_a_subject_are_looked_for_too_and_a_bare_name_is_no_prompt(tmp_path: Path) -> None:
    from engramlab.corpora.facts.teaching import divide

    (tmp_path / "questions.tsv").write_text("home\t{subject}\nhome\tWhere lives {subject}?\n")
    (tmp_path / "facts.csv").write_text("name,home,subject_aliases\nZorban,Arlo,Zorb\nMello,Besk,\n")
    table = FactTable.read(tmp_path / "facts.csv", questions=tmp_path / "questions.tsv")
    held = HeldOut(table, divide(table.wordings))
    assert held.prompt("Zorb's home can be put in short as Arlo.")
    assert held.prompt("Ask not where lives Zorb, for it is Arlo.")
    assert held.prompt("Zorban is at home in Arlo.") is None
