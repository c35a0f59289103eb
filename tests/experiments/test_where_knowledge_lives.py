"""The whole comparison, small: all ways from scratch, a model that exists, a run that is cut off, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.tiny_runs import made_inputs, numbers

from engramlab.base.errors import UserError
from engramlab.core.training.loop import Recipe
from engramlab.experiments import where_knowledge_lives as experiment
from engramlab.experiments.where_knowledge_lives.data import made, questions
from engramlab.experiments.where_knowledge_lives.work import Work

SMALL: dict[str, Any] = {
    "model": "1x16",
    "subjects": 6,
    "people": 4,
    "readers": 6,
    "attributes": ("birth_city", "major"),
    "vocabulary": 512,
    "pretrain": Recipe(steps=2, batch=4),
    "encounters": 2,
    "epochs": 1,
    "tokens": 2,
    "rank": 1,
    "edit_method": "ft-m",
    "changed": 2,
    "native": 4,
    "new_tokens": 3,
}


def config(**more: Any) -> experiment.Config:
    return experiment.Config(**(SMALL | more))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_inputs(tmp_path_factory.mktemp("inputs"))


def test_all_ways_from_scratch_and_again(tmp_path: Path) -> None:
    summary = experiment.run(config(), tmp_path / "run")
    assert [row["way"] for row in summary["rows"]] == list(experiment.config.WAYS)
    assert (summary["facts"], summary["subjects"], summary["asked_subjects"]) == (12, 6, 3)
    for row in summary["rows"]:
        assert (row["right_questions"], row["known_questions"]) == (3 * 2 * 2, 4 * 2 * 2)
        assert 0 <= row["right_low"] <= row["right"] <= row["right_high"] <= 1
        assert (row["source"] is None) == (row["way"] in ("training", "editing"))
        assert (row["add_tokens"] > 0) == (row["way"] == "training")
    of = {row["way"]: row for row in summary["rows"]}
    assert of["prompt"]["source"] == 1.0  # a name is in one passage alone
    assert of["virtual tokens"]["question_tokens"] == of["prompt"]["question_tokens"] + 2
    assert of["prompt"]["question_tokens"] > of["training"]["question_tokens"] == of["editing"]["question_tokens"]
    answers = pq.read_table(tmp_path / "run" / "ways" / "memory" / "answers.parquet").to_pylist()
    after = [row for row in answers if row["when"] == "after" and row["group"] == "put in"]
    assert np.mean([row["own"] for row in after]) == of["memory"]["source"]
    assert np.mean([row["right"] for row in after]) == of["memory"]["right"]
    assert experiment.run(config(), tmp_path / "run") == summary


def test_a_way_cut_off_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = config(ways=("training", "memory"), checkpoint_minutes=0.0)
    whole = experiment.run(some, tmp_path / "whole")
    for name in ("_says", "_row"):
        with monkeypatch.context() as patch:
            patch.setattr(Work, name, lambda *_, **__: (_ for _ in ()).throw(RuntimeError("cut off")))
            with pytest.raises(RuntimeError, match="cut off"):
                experiment.run(some, tmp_path / "cut")
    assert numbers(experiment.run(some, tmp_path / "cut")) == numbers(whole)


def test_a_model_that_exists_has_no_memory_and_comes_back(inputs: Path, tmp_path: Path) -> None:
    given = config(model=str(inputs / "model"), facts=inputs / "facts.csv", attributes=None, native=2)
    summary = experiment.run(given, tmp_path / "run")
    assert summary["left_out"] == ["memory"]
    assert [row["way"] for row in summary["rows"]] == ["training", "editing", "virtual tokens", "prompt"]
    plain = experiment.run(replace(given, ways=("prompt",)), tmp_path / "plain")
    timed = {name for name in plain["rows"][0] if "seconds" in name}
    first, again = ({k: v for k, v in s["rows"][-1].items() if k not in timed} for s in (summary, plain))
    assert first == again  # what training and editing did to the model is off again


def test_who_is_asked_and_in_which_words() -> None:
    data = made(config())
    trained, asked = data.halves
    assert not trained & asked
    assert len(trained | asked) == len(data.taught.subjects) == 6
    assert not set(data.natives.subjects) & (trained | asked)
    assert data.readers is not None
    assert not set(data.readers.subjects) & (trained | asked | set(data.natives.subjects))
    taught = {one.question for one in questions(data.words, data.taught, "trained")}
    held = {one.question for one in data.asked()}
    assert not taught & held
    assert {one.subject for one in data.asked()} == asked
    for fact, new in data.changes:
        assert fact.subject in asked
        assert new != fact.object


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"model": " "}, "model: say whose knowledge"),
        ({"model": "owner/name"}, "facts: say what the model shall know"),
        ({"ways": ("memory", "paper")}, "ways: 'paper' is unknown"),
        ({"ways": ("prompt", "prompt")}, "ways: 'prompt' is there twice"),
        ({"ways": ()}, "ways: name at least one"),
        ({"edit_method": "erase"}, "'erase'"),
        ({"replay_share": 0.8}, "question_share must be"),
        ({"subjects": 3}, "subjects must be at least 4"),
        ({"context": 20}, "has more than the model's 20"),
    ],
)
def test_refused_before_anything_is_written(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        experiment.run(config(**more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_few_subjects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("name,home\nA B,Rome\nC D,Oslo\n")
    with pytest.raises(UserError, match="subjects are too few"):
        experiment.run(config(facts=tmp_path / "few.csv", attributes=None), tmp_path / "run")
