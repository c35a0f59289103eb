"""Learning to edit: parallel data, its split, and the run (arXiv 2402.11905)."""

from __future__ import annotations

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
from engramlab.editing.judge import evaluation
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


@pytest.mark.parametrize(
    ("more", "words"),
    [
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
