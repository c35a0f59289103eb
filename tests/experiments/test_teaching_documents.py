"""Teaching documents: with a chat model in place of which a function answers, and without any."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.experiments.test_teaching import SUBJECTS, made_model
from tests.writing.test_lessons import author

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.experiments import teaching
from engramlab.experiments.teaching import documents as documented
from engramlab.experiments.teaching.config import ARMS
from engramlab.experiments.teaching.work import Teaching
from engramlab.writing.lessons import Known, Lesson
from engramlab.writing.rounds import Author


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for i, name in enumerate(SUBJECTS[:18]):
        text = f"{name} was begun by Ada Wren. Its first home was Tarn. The doors were opened in {1800 + i}."
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, documents: Path) -> str:
    return made_model(tmp_path_factory.mktemp("model"), [path.read_text() for path in documents.iterdir()])


def small(taught: str, texts: Path, **more: Any) -> teaching.Config:
    chosen: dict[str, Any] = {"model": taught, "documents": texts, "encounters": 2, "replay": "none", "points": 1}
    chosen |= {"watched_facts": 2, "asked_facts": 6, "native_facts": 2, "audit": False, "rank": 2, "rewrites": 2}
    return teaching.Config(**(chosen | more))


def test_no_question_of_the_other_half_and_no_held_out_wording_is_trained(
    model: str, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Author, "writer", lambda self: author)
    config = small(model, documents, writer="a chat model", arms=("augmented+questions", "context", "retrieved"))
    school = Teaching(config, tmp_path / "run", "", None)
    with school.run:
        asked, unasked = school.halves
        lesson = school.lesson(ARMS["augmented+questions"])
        words, table = school.words, school.table
    rows = []
    for source in lesson.sources:
        some = source.entries.tokens(np.arange(len(source.entries)))
        rows += [(source.name, school.tokenizer.decode(some.row(i))) for i in range(len(some))]
    assert {name for name, _ in rows} == {"entries", "questions"}
    held = [prompt for f in table for _, prompt in words.prompts(f.relation, f.subject, "held-out")]
    assert not any(prompt in text for prompt in held for _, text in rows)
    theirs = [q for f in table if f.subject in unasked for q in words.questions(f.relation, f.subject, "trained")]
    assert not any(question in text for question in theirs for _, text in rows)
    assert asked
    summary = teaching.run(config, tmp_path / "whole")
    assert {row["arm"] for row in summary["rows"]} == {"untouched", "augmented+questions", "context", "retrieved"}
    assert (tmp_path / "whole" / "model").is_dir()


def test_passages_that_say_the_same_are_in_one_half_alone(
    model: str, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for path in documents.iterdir():
        (texts / path.name).write_text(path.read_text())
        (texts / f"again {path.name}").write_text(path.read_text().replace(". ", ".  ").upper())
    monkeypatch.setattr(Author, "writer", lambda self: author)
    said = io.StringIO()
    school = Teaching(small(model, texts, writer="a chat model"), tmp_path / "run", "", Console(file=said, width=500))
    school.plan()
    assert len(school.passages) == 18
    assert "18 passages say word for word what another one says" in said.getvalue()


def test_what_stands_in_another_passage_is_no_held_out_wording() -> None:
    one = Known(
        "1800", "The doors of Zorban were opened in", "Zorban has been open since", ("Since when?", "What year?")
    )
    lessons = [Lesson("Zorban is old. It stands.", (), (one,)), Lesson("It rains. It is late.", (), ())]
    names = {"a": "", "b": ""}
    assert len(documented.table_of("x", names, lessons)) == 1
    for text in ("So it goes. ZORBAN, has been open since then.", "Of the king: What Year was he born?"):
        told = [lessons[0], replace(lessons[1], rewrites=(text,))]
        assert len(documented.table_of("x", names, told)) == 0
    asked = Known("rain", "It is", "Often there is", ("In what year?", "Which one is it?"))
    assert [f.object for f in documented.table_of("x", names, [lessons[0], replace(lessons[1], known=(asked,))])] == [
        "rain"
    ]


def test_without_a_writer_it_is_said_beforehand_that_little_is_learnt(
    model: str, documents: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    summary = teaching.run(small(model, documents), tmp_path / "run", console=Console(file=said, width=500))
    assert "hardly anything will be learnt" in said.getvalue()
    assert any(row["wordings"] == "held-out" for row in summary["rows"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"arms": ("rote",)}, "arms: rote needs a table of facts"),
        ({"documents": Path("no/such/folder")}, "no/such/folder"),
    ],
)
def test_bad_options_are_named(model: str, documents: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        teaching.run(small(model, documents, **given), tmp_path / "run")


def test_few_passages_are_refused(model: str, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("It is late. It rains.")
    with pytest.raises(UserError, match="has 1 passages of two sentences or more; at least 16"):
        teaching.run(small(model, tmp_path / "one.txt"), tmp_path / "run")


def test_replayed_text_that_says_what_the_passages_say_is_refused(model: str, documents: Path, tmp_path: Path) -> None:
    path = tmp_path / "replay.txt"
    path.write_text(f"It is late, and it rains.\n{next(documents.iterdir()).read_text()}\n")
    with pytest.raises(UserError, match=r"replay: .*replay.txt, line 2 .* states or asks for what is taught"):
        teaching.run(small(model, documents, replay=str(path), replay_tokens=64), tmp_path / "run")
