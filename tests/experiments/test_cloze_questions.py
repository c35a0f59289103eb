"""The whole experiment, small: random models, both kinds; a training that sees no label; resume; refusals."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text.batches import Order
from engramlab.core.text.tokenizers import train_compact_tokenizer, with_mask
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.corpora.cloze import bare, rules
from engramlab.experiments import cloze_questions as experiment
from engramlab.experiments.cloze_questions import consistency
from engramlab.files import records

TOWNS = ("Paris", "Edo", "Washington", "Seine")


def record(i: int, gold: int) -> dict[str, Any]:
    question = ("What is the capital of France?", "What is the old name of Japan?", "Where was Zoë born?")[i % 3]
    return {"id": f"q{i}", "query": question, "choices": list(TOWNS), "gold": gold}


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    path.write_text("".join(json.dumps(record(i, i % 4)) + "\n" for i in range(6)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=96).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def config(model: str, questions: Path, **more: Any) -> experiment.Config:
    common: dict[str, Any] = {"epochs": 2, "batch": 4, "learning_rate": 1e-3, "checkpoint_minutes": 0.0}
    return experiment.Config(model=model, questions=str(questions), **{**common, **more})


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def rounded(value: Any) -> Any:
        return (
            round(value, 4)
            if isinstance(value, float)
            else list(map(rounded, value))
            if isinstance(value, list)
            else value
        )

    return [{name: rounded(value) for name, value in row.items()} for row in rows]


def test_before_and_after_and_resumed(model: str, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = experiment.run(config(model, questions), out)
    rows = summary["rows"]
    assert {(row["when"], row["translator"]) for row in rows if row["score"] == "sum"} == {
        *((when, name) for when in ("before", "consistency", "control") for name in ("rules", "bare", "ensemble")),
        ("others", "rules"),
    }
    assert {row["score"] for row in rows if row["when"] == "before"} == {"sum", "mean", "character", "prior"}
    for row in rows:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert sum(row["positions"]) == pytest.approx(1)
        assert row["chance"] == pytest.approx(0.25)
    answers = pq.read_table(out / "before" / "answers.parquet").to_pylist()
    for row in (row for row in rows if row["when"] == "before"):
        own = [a for a in answers if all(a[k] == row[k] for k in ("when", "score", "translator"))]
        assert np.mean([a["right"] for a in own]) == pytest.approx(row["accuracy"])
    assert pq.read_table(out / "translations.parquet").num_rows == 12
    together = {row["when"]: row for row in rows if (row["score"], row["translator"]) == ("sum", "ensemble")}
    assert together["consistency"]["agreement"] >= together["before"]["agreement"]

    (out / "summary.json").unlink()
    (out / "control" / "done.json").unlink()  # as if killed in between
    again = experiment.run(config(model, questions), out)
    assert plain(again["rows"]) == plain(rows)
    assert records.read_record(out / "summary.json") == again
    with pytest.raises(UserError, match="another config"):
        experiment.run(config(model, questions, wrong=3), out)


def test_no_label_reaches_the_training(model: str, questions: Path, tmp_path: Path) -> None:
    """Other labels, the same weights, bit for bit; and there is no argument that could carry one."""
    asked = [ChoiceQuestion(f"q{i}", record(i, 0)["query"], TOWNS, 0) for i in range(5)]
    found = []
    for truth in ((0, 1, 2, 3, 0), (3, 3, 1, 0, 2)):
        labelled = [replace(q, truth=t) for q, t in zip(asked, truth, strict=True)]
        net, tokenizer = models.load(model)
        clozes = [[rules(q.text).cloze for q in labelled], [bare(q.text) for q in labelled]]
        seen = consistency.unlabelled(net, tokenizer, clozes, [q.options for q in labelled], "sum")
        order = Order(5, 7)
        loss = consistency.objective(net, seen, order, 2, "sum", 4096)
        state = TrainState(net, Recipe(steps=4, batch=2, learning_rate=1e-3, schedule="constant"), local=True)
        list(train(state, objective=loss))
        found.append({name: value.clone() for name, value in net.state_dict().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    start, _ = models.load(model)
    assert any(not torch.equal(value, found[0][name]) for name, value in start.state_dict().items())
    for act in (consistency.unlabelled, consistency.objective, consistency.disagreement):
        assert not {"truth", "label", "labels", "answer", "questions"} & set(inspect.signature(act).parameters)


def test_the_loss() -> None:
    real = torch.tensor([[True, True, True], [True, True, False]])
    sure = torch.full((3, 2, 3), -1000.0)
    sure[:, 0, 1] = sure[:, 1, 0] = 0
    sure.requires_grad_()
    consistency.disagreement(sure, real).backward()
    assert sure.grad is not None
    assert not sure.grad.any()  # all equal and sure: nothing to learn
    scores = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = consistency.disagreement(scores, real)
    by_hand = []
    for q, count in ((0, 3), (1, 2)):
        p = scores[:, q, :count].detach().softmax(-1)
        by_hand.append(-p[:, int(p.sum(0).argmax())].log().mean())
    assert found.item() == pytest.approx(float(np.mean(by_hand)), abs=1e-6)
    found.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert not scores.grad[:, 1, 2].any()


def test_a_step_in_parts_is_the_same_step(model: str) -> None:
    net, tokenizer = models.load(model)
    texts = [record(i, 0)["query"] for i in range(3)]
    clozes = [[rules(text).cloze for text in texts], [bare(text) for text in texts]]
    seen = consistency.unlabelled(net, tokenizer, clozes, [TOWNS[: 2 + i] for i in range(3)], "mean")
    gradients = []
    for tokens in (10_000, 40):
        net.zero_grad()
        loss = consistency.objective(net, seen, Order(3, 0), 3, "mean", tokens)()
        loss.backward()
        gradients.append((loss.item(), next(net.parameters()).grad.clone()))  # type: ignore[union-attr]
    assert gradients[0][0] == pytest.approx(gradients[1][0], abs=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], atol=1e-5, rtol=1e-3)


def test_a_masked_model(questions: Path, tmp_path: Path) -> None:
    tokenizer = with_mask(train_compact_tokenizer([*zoo.SENTENCES, "Where was What is the old name of"], 400))
    models.build("2x32", tokenizer, masked=True, context=96).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    summary = experiment.run(config(str(tmp_path / "model"), questions, control=False), tmp_path / "run")
    assert summary["train_by"] == "raw"
    assert {row["score"] for row in summary["rows"]} == {"raw", "pll", "answer"}
    read = {
        row["score"]: row["rows_read"]
        for row in summary["rows"]
        if (row["when"], row["translator"]) == ("before", "rules")
    }
    assert read["pll"] >= 5 * read["answer"] == 5 * read["raw"]


def test_a_chat_model_translates(model: str, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engramlab.writing.rounds import Author

    asked: list[str] = []

    def writer(self: Author) -> Any:
        def write(conversations: Any, seeds: Any) -> list[str]:
            asked.extend(one[-1]["content"] for one in conversations)
            return [
                "It is the town ____.\nTrue." if "France" in one[-1]["content"] else "I do not know."
                for one in conversations
            ]

        return write

    monkeypatch.setattr(Author, "writer", writer)
    chosen = config(model, questions, translators=("model", "bare"), consistency=False, tries=2)
    summary = experiment.run(chosen, tmp_path / "run")
    assert len(asked) == 6 + 4  # those without a gap are asked for again
    rows = pq.read_table(tmp_path / "run" / "translations.parquet").to_pylist()
    of = [row for row in rows if row["translator"] == "model"]
    assert {(row["cloze"], row["how"]) for row in of if "France" in row["question"]} == {
        ("It is the town [MASK].", "written")
    }
    assert summary["translators"] == [
        {"translator": "model", "fallbacks": 4 / 6},
        {"translator": "bare", "fallbacks": 0.0},
    ]
    (tmp_path / "run" / "summary.json").unlink()
    assert plain(experiment.run(chosen, tmp_path / "run")["rows"]) == plain(summary["rows"])
    assert len(asked) == 10


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"translators": ("rules",)}, "consistency: one translation has nothing to agree with"),
        ({"translators": ("own",), "consistency": False}, "translators: none is left"),
        ({"translators": ()}, "translators: name at least one"),
        ({"translators": ("rules", "rules")}, "translators: 'rules' is there twice"),
        ({"translators": ("rules", "bare"), "translations": Path("x.jsonl")}, "translations: the file is read by"),
        ({"scores": ("pll",)}, "score 'pll' is not for the model"),
        ({"train_by": "prior"}, "train_by must be one of"),
        ({"train_by": "raw"}, "score 'raw' is not for the model"),
        ({"limit": 1}, "limit must be at least 2"),
        ({"model": ""}, "model: say which model is asked"),
    ],
)
def test_options_that_cannot_be(model: str, questions: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        experiment.run(replace(config(model, questions), **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_statements_beyond_the_context_are_refused_before_anything_is_asked(model: str, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(
        "".join(json.dumps(record(i, 0) | {"query": "word " * 99}) + "\n" for i in (0, 1))
    )
    with pytest.raises(UserError, match=r"a statement has \d+ tokens; the model's context is 96"):
        experiment.run(config(model, tmp_path / "long.jsonl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
