"""The whole experiment, small: a random model, a table of facts, files of questions, resume, refusals."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.reading.test_completions import BARE, FACT, TRUTH, WITH, lines, micd_files, table
from tests.support import zoo
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.forward.decoding import cad, micd
from engramlab.core.forward.generation import generate
from engramlab.corpora.facts import FactTable
from engramlab.experiments import factual_decoding as decoded
from engramlab.experiments.factual_decoding import asking, choices, passages, spans
from engramlab.files import records

WAYS = ["greedy", "static", "low", "high", "random", "unnormalised"]
ROWS = [(f"Zor{i}", ("red", "blue", "green", "grey")[i % 4], f"city {i}") for i in range(12)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    path.write_text("name,colour,home\n" + "".join(",".join(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, facts.read_text()])
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=1024).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def config(name: str, facts: Path, **more: Any) -> decoded.Config:
    common: dict[str, Any] = {"limit": 12, "shots": 2, "subjects": 6, "alphas": (0.0, 1.0), "new_tokens": 3}
    return decoded.Config(**{"model": name, "facts": facts} | common | more)


def test_every_part(model: str, facts: Path, tmp_path: Path) -> None:
    tsv, passage = micd_files(tmp_path)
    tsv.write_text(tsv.read_text() + "Who?\t['y']\ty\n" * 2)  # two of the three are shown
    files = {
        "truthfulqa": table(tmp_path / "t.csv", *[TRUTH] * 3, TRUTH | {"Best Answer": "x"}),
        "factor": table(tmp_path / "f.csv", *[FACT] * 3),
        "cad_file": lines(tmp_path / "c.jsonl", WITH, BARE),
        "micd_questions": tsv,
        "micd_passages": passage,
    }
    chosen = config(model, facts, bad="skip", **files)
    summary = decoded.run(chosen, tmp_path / "run")
    of = {
        name: [row for row in summary["rows"] if row["dataset"] == name] for name in ("facts", "truthfulqa", "factor")
    }
    assert [row["way"] for row in of["facts"]] == [*WAYS, "greedy, penalty"]
    assert [row["way"] for row in of["factor"]] == WAYS
    assert [c["dataset"] for c in summary["chosen"]] == ["facts", "truthfulqa", "factor"]
    assert summary["left_out"] == 1
    for row in summary["rows"]:
        for metric in ("mc1", "mc2", "mc3", "written"):
            if row.get(metric) is not None:
                assert 0 <= row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"] <= 1
        assert row["way"] != "greedy" or row["mc1_more"] == row["mc1_more_low"] == 0
        assert row["questions"] == (6 if row["dataset"] == "facts" else 2)
    assert {(row["kind"], row["norm"]) for row in summary["spans"]} == {
        (kind, norm) for kind in ("answer", "function") for norm in (False, True)
    }
    assert all(0 <= row["apart"] <= np.log(2) + 1e-6 for row in summary["spans"])
    ways = [(row["way"], row["alpha"]) for row in summary["passages"] if row["kind"] == "true"]
    assert ways == [("plain", None), ("cad", 0.0), ("cad", 1.0), ("micd", 0.0), ("micd", 1.0), ("micd", None)]
    plain, same = (next(row for row in summary["passages"] if (row["way"], row["alpha"]) == way) for way in ways[:2])
    assert {k: v for k, v in plain.items() if k not in ("way", "alpha")} == {
        k: v for k, v in same.items() if k not in ("way", "alpha")
    }
    assert [(row["file"], row["way"]) for row in summary["files"]].count(("micd", "micd")) == 2
    assert {row["batch"] for row in summary["speed"]} == {1}
    assert all(row["seconds_times_greedy"] == 1 for row in summary["speed"] if row["way"] == "greedy")
    assert records.read_record(tmp_path / "run" / "summary.json") == summary

    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "passages" / "done.json").unlink()  # as if killed in between
    again = decoded.run(chosen, tmp_path / "run")
    assert numbers(again) == numbers(summary)
    with pytest.raises(UserError, match="plausible"):
        decoded.run(config(model, facts, bad="skip", plausible=0.2, **files), tmp_path / "run")


def test_rows_are_what_answers_say(model: str, facts: Path, tmp_path: Path) -> None:
    summary = decoded.run(config(model, facts, parts=("choices",)), tmp_path / "run")
    answers = pq.read_table(tmp_path / "run" / "choices-facts" / "answers.parquet").to_pylist()
    test = {(a["way"], a["question"]): a for a in answers if a["half"] == "test"}
    validation = {a["question"] for a in answers if a["half"] == "validation"}
    assert validation.isdisjoint(question for _, question in test)
    for row in summary["rows"]:
        if row["way"] in ("greedy", "low", "high"):
            assert row["mc2"] == pytest.approx(np.mean([a["mc2"] for (way, _), a in test.items() if way == row["way"]]))
    (chosen,) = summary["chosen"]
    means = {
        way: np.mean([a["mc1"] for a in answers if a["half"] == "validation" and a["way"] == way])
        for way in {a["way"] for a in answers}
    }
    assert means[chosen["bucket"]] == max(means["low"], means["high"])
    assert means[chosen["static"]] == max(v for way, v in means.items() if way.startswith("static"))


def test_the_test_half_chooses_nothing(facts: Path) -> None:
    """Whatever comes out there, the layers are those of the validation half."""
    judged = {name: np.zeros((4, 3)) for name in ("greedy", "low", "high", "static 0", "static 1")}
    judged["high"][:2, 0] = judged["static 1"][:2, 0] = 1
    halves = {name: values[:2] for name, values in judged.items()}
    judged["low"][2:] = judged["static 0"][2:] = 1
    assert choices.choose(config("m", facts), halves) == {"bucket": "high", "static": "static 1", "validation": 2}


@pytest.mark.parametrize(
    ("true", "false", "found"),
    [
        ([-1.0], [-2.0, -3.0], (1, np.exp(-1) / np.exp([-1.0, -2, -3]).sum(), 1)),
        ([-2.0, -0.5], [-1.0], (0, np.exp([-2, -0.5]).sum() / np.exp([-2, -0.5, -1.0]).sum(), 0.5)),
        ([-1000.0, -3000.0], [-2000.0], (1, 1, 0.5)),
        ([-1.0], [-1.0], (0, 0.5, 0)),
    ],
)
def test_mc(true: list[float], false: list[float], found: tuple[float, float, float]) -> None:
    assert choices.judge(true, false) == pytest.approx(found)
    assert choices.judge([-1.0], [-1.0], ties=True)[0] == 1


def test_what_is_followed_is_what_is_written(model: str, facts: Path, tmp_path: Path) -> None:
    """The shares are read off scores; a loop that writes agrees, passage by passage."""
    chosen = config(model, facts)
    net, tokenizer = models.load(model)
    read = FactTable.read(facts)
    asked = passages.made(chosen, read, list(read)[:4])
    assert all(len({stated for _, stated in a.passages.values()}) == 3 for a in asked)
    assert all(a.passages["true"][1] == a.fact.object for a in asked)
    _, answers = passages.followed(chosen, net, tokenizer, asked, None)
    for name, how in (("cad", cad.Config(1.0)), ("micd", micd.Config(1.0))):
        for kind in passages.KINDS:
            streams = {"bare": [a.question for a in asked], "irrelevant": [a.other for a in asked]}
            beside = [streams[context] for context in how.beside]
            prompts = [a.prompts[kind] for a in asked]
            texts = generate(net, tokenizer, prompts, decoding=how, beside=beside, max_new_tokens=8)
            rows = [r for r in answers if (r["kind"], r["way"], r["alpha"]) == (kind, name, 1.0)]
            for a, text, row in zip(asked, texts, rows, strict=True):
                assert row["follows"] == text.startswith(a.passages[kind][1])


def test_shots_are_never_asked_for(facts: Path) -> None:
    chosen, read = config("m", facts), FactTable.read(facts)
    shown = {fact.subject for fact in asking.shots(chosen, read, "home")}
    assert len(shown) == 2
    of = [q for q in choices.facts(chosen, read) if q.id.startswith("home/")]
    assert {q.id.split("/")[1] for q in of} == {row[0] for row in ROWS} - shown
    assert all(q.prompt.count("Q: ") == 3 and q.prompt.endswith("\nA:") for q in of)
    (one, *_) = passages.made(chosen, read, [f for f in read if f.relation == "home" and f.subject not in shown])
    assert one.prompts["true"].count(one.passages["true"][0] + "\nQ: ") == 1
    assert one.prompts["true"].count(" home is ") == 3
    assert one.question.count(" home is ") == 0


def test_tokens_of_answers_and_of_function_words() -> None:
    text = "The home of Zor is the town."
    cuts = [0, 3, 8, 11, 15, 18, 22, 27, 28]
    found = spans.places(text, list(pairwise(cuts)), 22, 27)
    assert found == {"answer": [6], "function": [0, 2, 4, 5]}
    assert spans.dies_at(np.array([0.6, 0.5, 0.2, 0.1]), (0, 2, 4, 6)) == 4
    assert spans.dies_at(np.array([0.1, 0.1, 0.2, 0.6]), (0, 2, 4, 6)) == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"limit": 1}, "limit must be at least 2"),
        ({"parts": ()}, "parts: name at least one"),
        ({"alphas": ()}, "alphas: name at least one weight"),
        ({"alphas": (float("nan"),)}, "alphas: must be finite numbers"),
        ({"alphas": (1.0, 1.0)}, "alphas: 1.0 is there twice"),
        ({"plausible": 0.0}, "plausible: must be above 0"),
        ({"penalty": 0.0}, "penalty: must be a finite number above 0"),
        ({"candidates": (9,)}, "candidates: layer 9 is not below"),
        ({"micd_questions": Path("q.tsv")}, "micd_questions and micd_passages go together"),
        ({"truthfulqa": Path("nowhere.csv")}, "nowhere.csv"),
        ({"model": ""}, "model: say which model is asked"),
    ],
)
def test_options_that_cannot_be(model: str, facts: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        decoded.run(config(model, facts, **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_questions_beyond_the_context_are_left_out_and_named(facts: Path, tmp_path: Path) -> None:
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, facts.read_text()])
    net = zoo.model("gpt2", vocabulary=len(tokenizer), max_position_embeddings=48)
    long = FACT | {"full_prefix": "It rained. " * 40}
    path = table(tmp_path / "f.csv", FACT, long, FACT)
    (_, of) = choices.sets(config("m", facts, factor=path), FactTable.read(facts))
    kept, left = choices.fitting(net, tokenizer, of)
    assert len(kept) == 2
    assert "factor, question 1: has about" in left[0]
