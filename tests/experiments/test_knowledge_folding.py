"""The whole experiment, small: every arm, resume, parts of a step, files; refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text.batches import Order
from engramlab.core.text.tokenizers import train_compact_tokenizer
from engramlab.corpora.episodes import worlds
from engramlab.experiments import knowledge_folding as experiment
from engramlab.experiments.knowledge_folding import text, work
from engramlab.experiments.knowledge_folding.config import ARMS, Config

SMALL = Config(model="1x8", worlds=8, tests=6, steps=2, batch=4, at_once=4, checkpoint_minutes=0.0)


@pytest.mark.slow
def test_every_arm_and_resumed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = experiment.run(SMALL, out)
    rows = summary["rows"]
    folds = {"facts", "random", "none"}
    for name in SMALL.arms:
        expected = {"none", "plain steps"} if name == "no-facts" else folds
        assert {row["asked"] for row in rows if row["arm"] == name} == expected
    for row in rows:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["questions"] == (6 if row["hops"] == 0 else 3)
    assert {one["arm"]: one["rates"] for one in summary["rates"]}["fixed-rates"] == [[1.0]]
    written = pq.read_table(out / "multi-task" / "answers.parquet").to_pylist()
    of = [a["right"] for a in written if (a["asked"], a["distractors"]) == ("facts", 2)]
    (row,) = (r for r in rows if (r["arm"], r["asked"], r["distractors"], r["hops"]) == ("multi-task", "facts", 2, 0))
    assert row["accuracy"] == pytest.approx(sum(of) / len(of))
    model, tokenizer = models.load(str(out / "multi-task" / "model"))
    assert models.parameters(model) > 0
    assert tokenizer.eos_token_id is not None

    (out / "summary.json").unlink()
    (out / "first-order" / "done.json").unlink()  # as if killed in between
    assert numbers(experiment.run(SMALL, out)) == numbers(summary)
    with pytest.raises(UserError, match="another config"):
        experiment.run(replace(SMALL, people=5), out)


def made(arm: str, **more: Any) -> tuple[work.Learner, text.Writer, list[Any]]:
    config = replace(SMALL, **more)
    episodes = worlds(6, 0, "train")
    tokenizer = train_compact_tokenizer(text.vocabulary_texts(config, episodes), 32_000, closed=True)
    model = models.build("1x8", tokenizer, context=64)
    return work.Learner(model, config), text.Writer(tokenizer, config, 64), episodes


def test_a_step_in_parts_is_the_same_step() -> None:
    found = []
    for at_once in (4, 3):
        learner, writer, episodes = made("multi-task", at_once=at_once)
        loss = work.objective(learner, writer, ARMS["multi-task"], episodes, Order(6, 0))()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in learner.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_each_arm_reads_and_says() -> None:
    _, writer, (_, episode, *_) = made("single-task", numbered=True)
    facts = text.given(episode, 1, 0)
    assert sorted(facts) == sorted((*episode.facts, episode.distractors[0]))
    assert text.given(episode, 1, 0) == facts
    assert text.prompt(ARMS["in-context"], episode, facts) == f"{' '.join(facts)} {episode.question}"
    assert text.prompt(ARMS["single-task"], episode, facts) == episode.question
    reasons = text.target(ARMS["multi-task"], episode)
    assert reasons == f"{' '.join(episode.facts)} So {episode.answer}"
    assert text.said(ARMS["multi-task"], reasons) == text.said(ARMS["single-task"], episode.answer) == episode.answer
    batch, owner = writer.facts([episode], [facts])
    assert owner.tolist() == [0, 0, 0]
    for row, targets, fact in zip(batch.input_ids, batch.targets, facts, strict=True):
        assert writer.tokenizer.decode(targets[targets >= 0]).strip() == fact  # loss behind the label alone
        assert "Fact" in writer.tokenizer.decode(row)


def test_files_are_trained_and_asked(tmp_path: Path) -> None:
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=96).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    records = [
        {"guid": str(n), "facts": [f"{who} is {what}."], "questions": [f"{who} is kind."], "answers": ["true"]}
        for n, (who, what) in enumerate([("Paris", "red"), ("Zoë", "kind"), ("Tokyo", "blue"), ("Bob", "kind")])
    ]
    (tmp_path / "data.json").write_text(json.dumps(records))
    config = replace(
        SMALL, model=str(tmp_path / "model"), data=str(tmp_path / "data.json"), arms=("single-task",), distractors=(0,)
    )
    summary = experiment.run(config, tmp_path / "run")
    assert {row["hops"] for row in summary["rows"]} == {0}
    assert summary["majority"] == 1
    long = [{**records[0], "facts": ["Paris is red " * 80]}, *records[1:]]
    (tmp_path / "long.json").write_text(json.dumps(long))
    with pytest.raises(UserError, match=r"0/1, fact 0: has \d+ tokens, but the window is 96"):
        experiment.run(replace(config, data=str(tmp_path / "long.json")), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "one.json").write_text(json.dumps(records[:1]))
    with pytest.raises(UserError, match="one question cannot be trained on and asked"):
        experiment.run(replace(config, data=str(tmp_path / "one.json")), tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arms": ()}, "arms: name at least one of multi-task"),
        ({"inner_steps": 0}, "inner_steps must be at least 1"),
        ({"inner_rate": -1.0}, "inner_rate must be at least 0"),
        ({"distractors": (0, 9)}, "distractors: 9 are more than a world of 4 people has"),
        ({"distractors": (1, 1)}, "distractors: 1 is there twice"),
        ({"hops": 9}, "hops must be from 1 to 4"),
        ({"test_data": "x.json"}, "test_data: worlds that are asked are made by the seed"),
        ({"context": 4}, "fact 0: has 6 tokens, but the window is 4"),
        ({"data": "nowhere.json"}, "nowhere.json"),
        ({"model": " "}, "model: say what is taught"),
    ],
)
def test_refusals(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        experiment.run(replace(SMALL, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_world_that_is_asked_is_trained_on() -> None:
    """Of two people and two colours there are so few worlds that some would be."""
    train, test = text.episodes_of(replace(SMALL, people=2, colours=2, worlds=2000, tests=50))
    worlds_of = [{frozenset((*one.facts, *one.distractors)) for one in part} for part in (train, test)]
    assert 0 < len(train) < 2000
    assert not worlds_of[0] & worlds_of[1]
