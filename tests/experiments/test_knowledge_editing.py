"""The knowledge-editing experiment: every setting end to end on a tiny model, resumable to the same numbers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.interrupts import Interrupted
from engramlab.editing import cases as editing_cases
from engramlab.editing.judge import abilities, beyond
from engramlab.experiments import knowledge_editing, token_overfitting
from engramlab.experiments.knowledge_editing import Config, sequence
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import evidence_on

CASES = [
    {
        "id": str(i),
        "prompt": f"The capital of {country} is",
        "subject": country,
        "target": target,
        "old": old,
        "rephrase": [f"{country} has its capital in"],
        "portability": [{"prompt": f"People in {country} look up to", "target": target}],
        "locality": [{"prompt": "The old name of the Seine is", "target": "Edo"}],
    }
    for i, (country, target, old) in enumerate(
        [("France", "Edo", "Paris"), ("Japan", "Paris", "Edo"), ("Seine", "Washington", "Paris")]
    )
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(CASES), encoding="utf-8")
    return str(path)


def config(model: str, benchmark: str, **more: Any) -> Config:
    plain: dict[str, Any] = {"methods": ("ft-m,grace",), "counts": (1, 3), "checkpoint_minutes": 0.0}
    made = Config(model=model, benchmark=benchmark, **plain | more)
    stronger = dataclasses.replace(made.hyper.ft_m, learning_rate=0.03)  # two layers of random weights resist
    return dataclasses.replace(made, hyper=dataclasses.replace(made.hyper, ft_m=stronger))


def rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {str(p.relative_to(out)): pq.read_table(p).to_pylist() for p in sorted(out.rglob("rows.parquet"))}


def numbers(summary: dict[str, Any]) -> Any:
    table = [{k: v for k, v in row.items() if k != "seconds_per_edit"} for row in summary["rows"]]
    return table, summary["differences"], summary["failed"]


def test_a_run_in_conversations(benchmark: str, tmp_path: Path) -> None:
    tokenizer = zoo.talking(zoo.ZOO["llama3"](zoo.SENTENCES))
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    asked = config(str(tmp_path / "model"), benchmark, methods=("ft-m",), losses=("cross-entropy",), chat=True)
    knowledge_editing.run(asked, tmp_path / "run")
    (found,) = rows(tmp_path / "run").values()
    assert {row["said"] for row in found} >= {"The capital of France is", "France has its capital in"}
    assert all(row["prompt"] == f"<|user|>\n{row['said']}<|end|>\n<|assistant|>\n" for row in found)
    assert all(row["teacher_forced"] == 1.0 for row in found if row["role"] == "reliability")


def test_a_run_in_conversations_needs_a_template(model: str, benchmark: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        knowledge_editing.run(config(model, benchmark, chat=True), tmp_path / "run")


def test_a_run_made_before_options_existed_goes_on(model: str, benchmark: str, tmp_path: Path) -> None:
    asked = config(model, benchmark, methods=("ft-m",), losses=("cross-entropy",))
    first = knowledge_editing.run(asked, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    for option in ("facts", "key", "attributes", "templates", "questions", "learn"):  # came with tables of facts
        del record["config"][option]
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    for path in (tmp_path / "run" / "summary.json", *(tmp_path / "run").rglob("done.json")):
        path.unlink()
    assert numbers(knowledge_editing.run(asked, tmp_path / "run")) == numbers(first)
    del record["config"]["hyper"]["ft_m"]["steps"]
    record["config"]["seed"] = 7
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"another config \(seed: 7 there, 0 now\)"):
        knowledge_editing.run(asked, tmp_path / "run")


def test_single_edits_end_to_end(model: str, benchmark: str, tmp_path: Path) -> None:
    made = knowledge_editing.run(config(model, benchmark), tmp_path / "run")
    table = made["rows"]
    assert {(r["method"], r["loss"], r["protocol"]) for r in table} == {
        (m, loss, p)
        for m in ("ft-m", "grace")
        for loss in ("cross-entropy", "overtone")
        for p in ("teacher_forced", "generated")
    }
    forced = next(r for r in table if r["method"] == "ft-m" and r["protocol"] == "teacher_forced")
    assert forced["cases"] == 3
    assert forced["reliability"] > 0.6
    assert {d["role"] for d in made["differences"]} == {
        "reliability", "generality", "portability", "locality", "mean"
    }  # fmt: skip
    found = rows(tmp_path / "run")
    assert len(found) == 4
    for one in made["quality"]:
        judged = found[f"{one['method']}/{one['loss']}/rows.parquet"]
        scopes = []
        for roles in (("reliability", "generality"), ("locality",)):
            cases = [[r["generated"] for r in judged if r["case"] == c and r["role"] in roles] for c in ("0", "1", "2")]
            scopes.append(sum(sum(some) / len(some) for some in cases) / 3)
        assert (one["es"], one["bp"]) == pytest.approx(scopes)
        assert one["eq"] == pytest.approx(2 / (1 / scopes[0] + 1 / scopes[1]) if all(scopes) else 0.0)
    assert len(made["quality"]) == 4
    assert all(len(judged) == 12 for judged in found.values())
    assert not list((tmp_path / "run").rglob("part-*"))
    assert numbers(knowledge_editing.run(config(model, benchmark), tmp_path / "run")) == numbers(made)


def test_numbers_do_not_depend_on_how_many_are_edited_at_once(model: str, benchmark: str, tmp_path: Path) -> None:
    """Log-probabilities, not what is written: where two tokens are as likely, rounding decides."""
    for name, at_once in (("one", 1), ("all", 16)):
        knowledge_editing.run(config(model, benchmark, at_once=at_once), tmp_path / name)
    one, all_ = rows(tmp_path / "one"), rows(tmp_path / "all")
    assert one.keys() == all_.keys()
    for file, alone in one.items():
        for a, b in zip(alone, all_[file], strict=True):
            assert (a["case"], a["query"], a["tokens"]) == (b["case"], b["query"], b["tokens"])
            assert a["logprobs_after"] == pytest.approx(b["logprobs_after"], abs=0.05)


@pytest.mark.parametrize("name", ["ft-m", "lora", "rome", "alphaedit", "grace", "melo", "wise", "ike"])
def test_continual_edits_resume_to_the_same_numbers(
    name: str, model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.small import quick

    asked = config(model, benchmark, methods=(name,), losses=("cross-entropy",), setting="continual")
    asked = dataclasses.replace(asked, hyper=dataclasses.replace(asked.hyper, **{name.replace("-", "_"): quick(name)}))
    whole = knowledge_editing.run(asked, tmp_path / "whole")
    assert [r["edits"] for r in whole["rows"]] == [1, 1, 3, 3]

    save = sequence.Part._save

    def killed(self: Any, state: dict[str, Any]) -> None:
        save(self, state)
        if state["done"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(sequence.Part, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        knowledge_editing.run(asked, tmp_path / "cut")
    monkeypatch.setattr(sequence.Part, "_save", save)
    again = knowledge_editing.run(asked, tmp_path / "cut")
    assert numbers(again) == numbers(whole)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_batch_edits_are_judged_together(model: str, benchmark: str, tmp_path: Path) -> None:
    made = knowledge_editing.run(config(model, benchmark, methods=("ft-m", "lora"), setting="batch"), tmp_path / "run")
    assert {r["edits"] for r in made["rows"]} == {3}


def test_a_killed_single_run_goes_on(
    model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(model, benchmark, methods=("ft-m",), at_once=1)
    whole = knowledge_editing.run(asked, tmp_path / "whole")
    each, calls = sequence.Part.each, []

    def killed(self: Any, cases: Any) -> Any:
        calls.append(cases)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return each(self, cases)

    monkeypatch.setattr(sequence.Part, "each", killed)
    with pytest.raises(KeyboardInterrupt):
        knowledge_editing.run(asked, tmp_path / "cut")
    assert numbers(knowledge_editing.run(asked, tmp_path / "cut")) == numbers(whole)
    assert len(calls) == 7  # five before, of which one was lost; and the two that were left


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "model"),
        ({"methods": ("ft-x",)}, "did you mean 'ft-"),
        ({"losses": ("overtone:mix=1",)}, "no setting 'mix'"),
        ({"losses": ("overtone:mixing=2",)}, "mixing"),
        ({"methods": ("rome",), "setting": "batch"}, "'rome' cannot make many edits at once"),
        ({"benchmark": "nowhere.json"}, "no such file"),
        ({"counts": (0,)}, "counts"),
        ({"methods": ("ft-m", "ft-m")}, "twice"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    change: dict[str, Any], message: str, model: str, benchmark: str, tmp_path: Path
) -> None:
    asked = config(**{"model": model, "benchmark": benchmark} | change)
    with pytest.raises(UserError, match=message):
        knowledge_editing.run(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_contradicting_edits_in_a_batch_are_both_named(model: str, tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([CASES[0], {**CASES[0], "id": "9", "target": "Paris"}]), encoding="utf-8")
    with pytest.raises(UserError, match=r"case 0 and case 9 give the same prompt"):
        knowledge_editing.run(config(model, str(path), methods=("ft-m",), setting="batch"), tmp_path / "run")


def test_a_subject_missing_from_its_prompt_stops_methods_that_need_it(model: str, tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([CASES[1], {**CASES[0], "subject": "Spain"}, CASES[2]]), encoding="utf-8")
    asked = config(model, str(path), methods=("ft-m", "rome", "memit"))
    with pytest.raises(
        UserError, match="record 1, key 'subject': .*'Spain' is not in the prompt.*for rome, memit it must"
    ):
        knowledge_editing.run(
            dataclasses.replace(asked, model="nowhere"), tmp_path / "run"
        )  # before any model is loaded
    assert not (tmp_path / "run").exists()
    made = knowledge_editing.run(dataclasses.replace(asked, methods=("ft-m", "rome"), bad="skip"), tmp_path / "run")
    assert [one["index"] for one in made["skipped"]] == [1]
    assert {row["cases"] for row in made["rows"]} == {2}  # the same cases for all methods


def test_cases_with_long_answers_or_judges_alone(benchmark: str, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    bare = {key: CASES[2][key] for key in ("id", "prompt", "target")}
    path.write_text(json.dumps([CASES[0], {**CASES[1], "target": "the town of Edo"}, {**bare, "target": "a b c d"}]))

    def chosen(**asked: Any) -> list[str]:
        return [case.id for case in editing_cases.cases(str(path), **asked).cases]

    assert chosen() == ["0", "1", "2"]
    assert chosen(words=4) == ["1", "2"]
    assert chosen(words=4, limit=1) == ["1"]
    assert chosen(judged_by=("portability", "locality")) == ["0", "1"]
    assert chosen(judged_by=("portability",), words=2) == ["1"]
    with pytest.raises(
        UserError, match=r"none of its cases has new answers of 4 words or more and portability queries"
    ):
        editing_cases.cases(benchmark, words=4, judged_by=("portability",))
    with pytest.raises(UserError, match="judged_by: 'speed' is none of generality, portability, locality"):
        knowledge_editing.run(config("nowhere", benchmark, judged_by=("speed",)), tmp_path / "run")
    for about in (knowledge_editing.Config, token_overfitting.Config):
        assert {"words", "judged_by"} <= {one.name for one in dataclasses.fields(about)}


def test_skipped_records_are_reported(model: str, tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([CASES[0], {**CASES[1], "target": ""}]), encoding="utf-8")
    with pytest.raises(UserError, match="target"):
        knowledge_editing.run(config(model, str(path), methods=("ft-m",)), tmp_path / "run")
    made = knowledge_editing.run(config(model, str(path), methods=("ft-m",), bad="skip"), tmp_path / "run")
    assert made["skipped"][0]["index"] == 1
    assert made["rows"][0]["cases"] == 1


@pytest.mark.parametrize("setting", ["single", "continual"])
def test_a_signal_says_what_is_kept_and_the_rest_is_done_later(
    model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    asked = config(model, benchmark, methods=("grace",), losses=("cross-entropy",), setting=setting, at_once=1)
    asked = dataclasses.replace(asked, checkpoint_minutes=99.0)
    whole = knowledge_editing.run(asked, tmp_path / "whole")
    name, calls = {"single": "each", "continual": "edit"}[setting], []
    before = getattr(sequence.Part, name)

    def signalled(self: Any, edits: Any) -> Any:
        calls.append(edits)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return before(self, edits)

    monkeypatch.setattr(sequence.Part, name, signalled)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    said = {
        "single": "1 of 3 cases of grace (cross-entropy) are done and kept",
        "continual": "edit 2 of 3 of grace (cross-entropy) is saved",
    }
    with pytest.raises(Interrupted, match=re.escape(said[setting])):
        knowledge_editing.run(asked, tmp_path / "broken")
    signal.signal(signal.SIGINT, handler)
    assert numbers(knowledge_editing.run(asked, tmp_path / "broken")) == numbers(whole)
    assert len(calls) == {"single": 1 + 1 + 2, "continual": 2 + 1}[setting]


def test_a_model_that_is_not_there_is_refused_before_the_folder_is_made(benchmark: str, tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError):
            knowledge_editing.run(config(str(name), benchmark), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_edits_are_asked_behind_texts_nobody_has_seen(model: str, benchmark: str, tmp_path: Path) -> None:
    asked = config(model, benchmark, methods=("ft-m",), losses=("cross-entropy",), contexts=3)
    made = knowledge_editing.run(asked, tmp_path / "run")
    plain = knowledge_editing.run(dataclasses.replace(asked, contexts=0), tmp_path / "plain")
    assert made["rows"] == [
        row | {"seconds_per_edit": one["seconds_per_edit"]}
        for row, one in zip(plain["rows"], made["rows"], strict=True)
    ]
    behind = [row for (kept,) in [rows(tmp_path / "run").values()] for row in kept if row["role"] == "behind"]
    texts = list(beyond.SENTENCES[:3])
    assert [row["prompt"] for row in behind] == [f"{text} {case['prompt']}" for case in CASES for text in texts]
    by_case = [
        sum(is_answer(row["written_after"], [case["target"]]) for row in behind if row["case"] == case["id"]) / 3
        for case in CASES
    ]
    (quality,) = made["quality"]
    assert quality["behind"] == pytest.approx(sum(by_case) / 3)
    assert quality["behind_low"] <= quality["behind"] <= quality["behind_high"]
    assert quality["behind_before"] == sum(row["written_before"].startswith(row["target"]) for row in behind) / 9
    assert "behind" not in plain["quality"][0]
    with pytest.raises(UserError, match="contexts: there are 16 sentences; at most so many, not 17"):
        knowledge_editing.run(dataclasses.replace(asked, contexts=17), tmp_path / "other")


@pytest.mark.parametrize("setting", ["continual", "batch", "turns"])
def test_tasks_of_others_before_and_after_many_edits(
    model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """What the tool would say is put in its place here; which models it is asked about, and when, is the run's own."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name if name == "lm_eval" else found(name, *at))
    prompt = Query("The capital of France is", "Edo")

    def scored(self: abilities.Tasks, model: Any, tokenizer: Any) -> dict[str, float]:
        return {name: evidence_on(model, tokenizer, [prompt], None, None)[0].logprobs[0] for name in self.names}

    monkeypatch.setattr(abilities.Tasks, "scored", scored)
    asked = config(model, benchmark, methods=("ft-m",), losses=("cross-entropy",), setting=setting, lm_eval="piqa")
    asked = dataclasses.replace(asked, turn=1, twins=0, natives=0, unknown=0, text_rows=1, sample=3)
    made = knowledge_editing.run(asked, tmp_path / "run")
    assert [row["edits"] for row in made["tasks"]] == ([3] if setting == "batch" else [1, 3])
    assert {row["task"] for row in made["tasks"]} == {"piqa"}
    assert len({row["before"] for row in made["tasks"]}) == 1
    assert all(row["score"] > row["before"] for row in made["tasks"])  # the first edit is about this prompt
    again = knowledge_editing.run(asked, tmp_path / "run")
    assert again["tasks"] == made["tasks"]
    with pytest.raises(UserError, match="lm_eval: is of many edits on one model"):
        knowledge_editing.run(dataclasses.replace(asked, setting="single"), tmp_path / "other")
