"""Learning to edit: parallel data, its split, and the run (arXiv 2402.11905)."""

from __future__ import annotations

import importlib.util
import itertools
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import tiny_runs, zoo

from engramlab.base.errors import UserError
from engramlab.core import deltas, models
from engramlab.corpora.countries import countries
from engramlab.editing import method
from engramlab.editing.benchmarks.world import apart
from engramlab.editing.judge import abilities, beyond, evaluation
from engramlab.editing.methods import lte
from engramlab.experiments import learning_to_edit
from engramlab.experiments.learning_to_edit import examples as data
from engramlab.experiments.learning_to_edit.config import Config
from engramlab.files import records


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(scope="module")
def split() -> Any:
    return apart(seed=0, size=60, test=0.4)


@pytest.fixture(scope="module")
def made(split: Any) -> list[data.Example]:
    return data.examples(split[0][:60], dict.fromkeys(data.INSTRUCTIONS[:5], " something"), seed=0)


def test_no_case_of_one_part_speaks_of_a_country_of_the_other(split: Any) -> None:
    names = {one.name for one in countries()[:60]}

    def touched(cases: Any) -> set[str]:
        found = set()
        for case in cases:
            for edit in case.edits:
                found.add(edit.query.subject)
                for judge in edit.judges:
                    found |= {need.partition("/")[2] for need in judge.needs if "/" in need}
                    found |= {judge.subject, judge.target} & names
        return found

    training, tested = map(touched, split)
    assert training & tested == set()
    assert len(training) == 36
    assert len(tested) == 24
    text = " ".join(q.prompt for case in split[1] for q in evaluation.queries_of(case))
    several = {one for one in names if any(one != other and one in other for other in names)}
    assert not [name for name in training - several if re.search(rf"\b{re.escape(name)}\b", text)]
    again = apart(seed=0, size=60, test=0.4)
    assert [c.id for c in again[1]] == [c.id for c in split[1]]
    with pytest.raises(UserError, match="fewer than 20"):
        apart(size=60, test=0.1)


def test_every_twin_is_there_and_says_what_it_must(made: list[data.Example], split: Any) -> None:
    by_fact = {data.statement_of(case.edits[0]): case.edits[0] for case in split[0]}
    assert {one.kind for one in made} == {"in-scope", "out-of-scope", "instruction"}
    for example in made:
        behind, bare = example.queries(twins=True)
        assert behind.prompt == lte.block(example.facts, example.prompt)
        assert bare.prompt == example.prompt
        assert example.queries(twins=False) == [behind]
        assert 1 <= len(example.facts) <= 3
        edits = [by_fact[fact] for fact in example.facts]
        assert len({edit.query.subject for edit in edits}) == len(edits) or len(edits) == 1
        if example.kind == "in-scope":
            assert any(example.behind == edit.target and example.bare == edit.query.target for edit in edits)
        else:
            assert example.behind == example.bare
    sizes = np.bincount([len(one.facts) for one in made], minlength=4)[1:] / len(made)
    assert abs(sizes - [0.5, 0.25, 0.25]).max() < 0.12


def test_training_and_inference_read_the_same_bytes(tokenizer: Any, split: Any) -> None:
    model = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512).eval()
    case = split[0][0]
    delta: Any = method.make(model, tokenizer, list(case.edits), method="lte")
    (edit,) = case.edits
    asked = edit.judges[0].prompt
    example = data.Example("in-scope", (data.statement_of(edit),), asked, edit.target, edit.query.target)
    text = delta.context(asked)
    assert text.encode() == example.queries(twins=True)[0].prompt.encode()
    assert text == delta.read([delta], [asked], model, tokenizer)[0]
    rows = data.Rows.of([example], tokenizer)
    row = rows.entries.tokens(np.array([0]))
    whole = tokenizer(f"{text} {edit.target}", add_special_tokens=False)["input_ids"]
    assert row.ids.tolist() == whole
    assert tokenizer.decode(row.ids[row.marks > 0]).strip() == edit.target


def test_an_empty_memory_leaves_the_prompt_alone_and_what_is_no_question_is_refused() -> None:
    assert lte.block((), "The capital of France is") == "The capital of France is"
    with pytest.raises(UserError, match=r"holds \[New facts\] or \[Asked\]"):
        lte.check_lines(("A is B", f"Say {lte.HEADER}"))


def test_an_edit_in_the_words_of_the_block_is_refused_and_a_question_is_not(tokenizer: Any, split: Any) -> None:
    model: Any = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512).eval()
    setattr(model.config, lte.ALIGNED, "lte")
    (edit,) = split[0][0].edits
    for query in (replace(edit.query, prompt=f"{lte.ASKED} who"), edit.query):
        wrong = replace(edit, query=query, statement="" if query is not edit.query else f"{lte.HEADER} x")
        with pytest.raises(UserError, match=r"holds \[New facts\] or \[Asked\]"):
            method.make(model, tokenizer, [wrong], method="lte")
    delta = method.make(model, tokenizer, [edit], method="lte")
    assert delta.context(f"{lte.ASKED} who").endswith(f"{lte.ASKED}\n{lte.ASKED} who")


def test_lte_says_what_it_wants_and_refuses_long_blocks(tokenizer: Any, split: Any) -> None:
    model: Any = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=128).eval()
    edits = list(split[0][0].edits)
    with (
        pytest.warns(UserWarning, match="aligned|trained"),
        pytest.raises(UserError, match="64 of the model.s context"),
    ):
        method.make(model, tokenizer, edits, method="lte")
    model.config.max_position_embeddings = 512
    with pytest.warns(UserWarning, match="engramlab run learning-to-edit"):
        method.make(model, tokenizer, edits, method="lte")
    setattr(model.config, lte.ALIGNED, "lte")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.make(model, tokenizer, edits, method="lte")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("alignment")
    inputs = folder / "inputs"
    inputs.mkdir()
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    model: Any = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=512)
    model.save_pretrained(inputs / "model")
    tokenizer.save_pretrained(inputs / "model")
    return tiny_runs.RUNS["learning to edit"](inputs, folder / "run"), folder


def test_a_run_keeps_a_model_that_is_named_by_its_fingerprint(finished: Any) -> None:
    summary, folder = finished
    aligned, _ = models.load(str(folder / "run" / "model"))
    plain, _ = models.load(str(folder / "inputs" / "model"))
    assert getattr(aligned.config, lte.ALIGNED) == "lte"
    assert deltas.fingerprint(aligned) != deltas.fingerprint(plain)
    changed = {
        name for name, p in plain.named_parameters() if not torch.equal(p, dict(aligned.named_parameters())[name])
    }
    assert {name.split(".")[-2] for name in changed} <= {"q_proj", "v_proj"}
    assert changed
    arms = {row["arm"] for row in summary["rows"]}
    assert arms == {"ike", "ft-m", "untouched", "aligned"}
    assert [row["arm"] for row in summary["kept"]] == ["aligned"]
    for row in summary["rows"]:
        assert row["low"] <= row["share"] <= row["high"]
        assert (row["recall"] is None) == (row["arm"] == "ft-m")
    one = [row for row in summary["rows"] if row["count"] == 1 and row["role"] == "reliability"]
    assert all(row["recall"] in (None, 1.0) for row in one)
    rows = records.read_rows(folder / "run" / "aligned" / "rows.parquet", ("count", "bare", "recalled"))
    assert not any(row["bare"] for row in rows)
    # Every case is judged at every count: a memory that the cases do not fill is filled up with the first ones.
    cases = {n: sorted({row["case"] for row in rows if row["count"] == n}) for n in (1, 2)}
    assert len(cases[1]) % 2
    assert cases[1] == cases[2]


def test_what_is_measured_beside_the_answers(finished: Any) -> None:
    """A row an arm and count; text and what is written behind prompts as they are under the first memory's edits, and under
    training alone."""
    summary, folder = finished
    rows = {(row["arm"], row["count"]): row for row in summary["beside"]}
    arms = ("ike", "ft-m", "untouched", "aligned")
    assert set(rows) == {(arm, count) for arm in arms for count in (1, 2)} | {("aligned", 0)}
    assert {row["cases"] for row in rows.values()} == {3}
    plain, tokenizer = models.load(str(folder / "inputs" / "model"))
    aligned, _ = models.load(str(folder / "run" / "model"))
    texts = beyond.passages(plain, tokenizer, "ordinary", 1, 0)
    cases = apart(0, 40, 0.5)[1][:3]
    for found, model in ((rows["aligned", 0], aligned.eval()), (None, plain.eval())):
        nats, fluent = beyond.nats(model, tokenizer, texts), beyond.fluencies(model, tokenizer, cases, 2)
        if found is not None:
            assert found["nats"] == pytest.approx(nats, rel=1e-4)
            assert found["fluency"] == pytest.approx(np.mean(fluent), rel=1e-5)
        else:
            assert all(row["nats_before"] == pytest.approx(nats, rel=1e-5) for row in rows.values())
            assert all(row["fluency_before"] == pytest.approx(np.mean(fluent), rel=1e-5) for row in rows.values())
    moved = []
    for group in (cases[:2], [cases[2], cases[0]]):
        delta = method.make(plain, tokenizer, [edit for case in group for edit in case.edits], method="ft-m")
        with deltas.active(plain, delta):
            moved.append(beyond.nats(plain, tokenizer, texts) or 0.0)
    assert rows["ft-m", 2]["nats"] == pytest.approx((2 * moved[0] + moved[1]) / 3, rel=1e-4)


def test_tasks_are_of_trained_models_and_of_memories_of_several_edits(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lm-evaluation-harness would say is put in its place; of which models it is asked, and when, is the run's own."""
    _, folder = finished
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name if name == "lm_eval" else found(name, *at))

    def scored(self: abilities.Tasks, model: Any, tokenizer: Any) -> dict[str, float]:
        return {name: beyond.nats(model, tokenizer, ["The sun is yellow."]) or 0.0 for name in self.names}

    monkeypatch.setattr(abilities.Tasks, "scored", scored)
    config = Config(
        model=str(folder / "inputs" / "model"),
        arms=("ike", "ft-m", "aligned"),
        countries=40,
        test_share=0.5,
        training_cases=4,
        test_cases=2,
        counts=(1, 2),
        epochs=1,
        batch=8,
        rank=1,
        fluency=0,
        lm_eval="piqa",
    )
    made = learning_to_edit.run(config, tmp_path / "run")
    assert [(row["arm"], row["count"], row["task"]) for row in made["tasks"]] == [
        ("ike", 2, "piqa"),
        ("ft-m", 2, "piqa"),
        ("aligned", 0, "piqa"),
        ("aligned", 2, "piqa"),
    ]
    plain, tokenizer = models.load(config.model)
    bare = beyond.nats(plain.eval(), tokenizer, ["The sun is yellow."])
    assert all(row["before"] == pytest.approx(bare, rel=1e-5) for row in made["tasks"])
    aligned, _ = models.load(str(tmp_path / "run" / "model"))
    assert made["tasks"][2]["score"] == pytest.approx(
        beyond.nats(aligned.eval(), tokenizer, ["The sun is yellow."]), rel=1e-4
    )
    done = tmp_path / "run" / "ft-m" / "train" / "done.json"
    record = records.read_record(done)
    del record["beside"], record["tasks"]
    records.write_record(done, record)  # as older runs kept it
    again = learning_to_edit.run(config, tmp_path / "run")
    assert [row["arm"] for row in again["tasks"]] == ["ike", "aligned", "aligned"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"arms": ("ike", "ft-m"), "counts": (1, 900), "lm_eval": "piqa"}, "lm_eval: is of many edits on one model"),
        ({"arms": ("ike",), "counts": (1,), "lm_eval": "piqa"}, "leave it out, or take an arm that trains"),
        ({"fluency": -1}, "fluency must be at least 0"),
        ({"arms": ("teach",)}, "arms: there is no 'teach'"),
        ({"counts": ()}, "counts must be numbers of edits"),
        ({"epochs": 0}, "epochs must be"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"model": " "}, "model: say which model is trained"),
    ],
)
def test_options_that_cannot_work(more: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        learning_to_edit.run(Config(**{"model": "m", **more}), tmp_path / "run")


def test_arms_that_leave_examples_out(made: list[data.Example], tokenizer: Any) -> None:
    whole, alone = (data.Rows.of(made, tokenizer, twins=twins) for twins in (True, False))
    assert len(whole.entries) == 2 * len(alone.entries) == 2 * len(made)
    taken = itertools.islice(data.batches.batches(whole.stream(0, 512), len(made)), 2)
    assert sum(len(batch.input_ids) for batch in taken) == 2 * len(made)
