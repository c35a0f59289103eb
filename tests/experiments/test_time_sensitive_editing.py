"""Time-sensitive editing: which layers and how many parameters, what is judged, a small run, refusals."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.small import quick
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.core.models.geometry import depth, matrix_shape
from engramlab.editing import benchmarks, method
from engramlab.editing import cases as editing_cases
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge import abilities
from engramlab.editing.judge.beyond import fluencies, nats, passages
from engramlab.editing.methods import lora
from engramlab.experiments import time_sensitive_editing as timed
from engramlab.experiments._run import tried
from engramlab.experiments.time_sensitive_editing import work
from engramlab.experiments.time_sensitive_editing.work import Arm
from engramlab.files import records


@pytest.fixture(scope="module")
def network() -> tuple[Any, Any]:
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256), tokenizer


@pytest.fixture(scope="module")
def model(network: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    for part in network:
        part.save_pretrained(folder)
    return str(folder)


def config(model: str, **more: Any) -> timed.Config:
    hyper = Hyperparameters()
    hyper = replace(hyper, **{name.replace("-", "_"): quick(name) for name in ("p-tuning", "rome", "memit")})
    small = {"benchmarks": ("dated",), "counts": (1, 2), "groups": 2, "limit": 4, "judges": 1, "steps": 2, "rank": 2}
    return timed.Config(model=model, hyper=hyper, **{**small, "window": 0, **more})


@pytest.mark.parametrize(
    ("layers", "width", "stride", "expected"),
    [
        (6, 2, 2, [(0, 1), (2, 3), (4, 5)]),
        (7, 4, 2, [(0, 3), (2, 5), (3, 6)]),
        (3, 3, 1, [(0, 2)]),
        (30, 4, 4, [(k, k + 3) for k in (0, 4, 8, 12, 16, 20, 24, 26)]),
    ],
)
def test_a_window_slides_from_the_first_layer_to_the_last(
    layers: int, width: int, stride: int, expected: list[tuple[int, int]]
) -> None:
    assert work.windows(layers, width, stride) == expected


@pytest.mark.parametrize("arm", ["lora-attention", "lora-mlp", "lora-both"])
def test_parameters_are_the_sum_over_matrices(network: tuple[Any, Any], arm: str) -> None:
    """Of what the delta holds, against r (in + out) of every matrix that the arm's name means."""
    model, tokenizer = network
    made = work.settings(config("m"), Arm(arm), model)
    (case,) = benchmarks.load("dated", limit=1).cases
    (delta,) = method.make_each(model, tokenizer, [case.edits], method="lora", config=made)
    parts = {"lora-attention": ("self_attn",), "lora-mlp": ("mlp",), "lora-both": ("self_attn", "mlp")}[arm]
    linear = [
        m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name.split(".")[-2:][0] in parts
    ]
    assert work.numbers(delta) == sum(2 * (m.in_features + m.out_features) for m in linear)
    assert work.numbers(delta) == lora.parameters(model, made)


def test_a_window_of_all_layers_is_the_arm_itself(network: tuple[Any, Any]) -> None:
    model, tokenizer = network
    (case,) = benchmarks.load("dated", limit=1).cases
    found = []
    for arm in (Arm("lora-both"), Arm("lora-both", (0, depth(model) - 1))):
        made = work.settings(config("m"), arm, model)
        (delta,) = method.make_each(model, tokenizer, [case.edits], method="lora", config=made)
        found.append(delta.tensors())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_fine_tuning_changes_every_down_projection(network: tuple[Any, Any]) -> None:
    model, tokenizer = network
    (case,) = benchmarks.load("dated", limit=1).cases
    made = work.settings(config("m"), Arm("ft"), model)
    (delta,) = method.make_each(model, tokenizer, [case.edits], method="ft-m", config=made)
    rows, columns = matrix_shape(model, "model.layers.0.mlp.down_proj")
    assert work.numbers(delta) == depth(model) * rows * columns


def test_what_a_question_counts_for() -> None:
    rows = [
        {"case": "a", "role": "portability", "group": "two-hop", "generated": 1.0, "teacher_forced": 0.5},
        {"case": "a", "role": "portability", "group": "one-hop", "generated": 0.0, "teacher_forced": 0.5},
        {"case": "a", "role": "portability", "group": "Subject_Aliasing", "generated": 1.0, "teacher_forced": 1.0},
        {"case": "b", "role": "portability", "group": "multi-hop", "generated": 1.0, "teacher_forced": None},
        {"case": "b", "role": "locality", "group": "past", "generated": 0.0, "teacher_forced": 0.25},
        {"case": "b", "role": "wanted", "group": "x", "generated": 0.0, "teacher_forced": 0.0},
    ]
    found = work.scored(rows, 0)
    assert (found["multi_hop"], found["multi_hop_forced"]) == (0.75, 0.5)  # by case, then over cases
    assert (found["locality"], found["locality_forced"], found["reliability"]) == (0.0, 0.25, None)
    assert (found["multi_hop_cases"], found["cases"]) == (2, 2)


def test_a_run(model: str, tmp_path: Path) -> None:
    arms = ("ft", "lora-mlp", "lora-both", "p-tuning", "rome")
    one = config(model, arms=arms, window=1)
    found = timed.run(one, tmp_path / "run")
    assert found["failed"] == []
    cells = [(row["arm"], row["edits"], row["window"]) for row in found["rows"]]
    swept = [("lora-both", 2, [first, first]) for first in range(2)]
    assert cells == [("before", 0, None), *((arm, n, None) for arm in arms for n in (1, 2)), *swept]
    assert all(row["cases"] == 2 * row["edits"] for row in found["rows"][1:])
    sizes = {row["arm"]: row["parameters"] for row in found["rows"] if row["window"] is None}
    assert sizes["before"] == 0 < sizes["rome"] < sizes["lora-mlp"] < sizes["lora-both"] < sizes["ft"]
    assert found["rows"][0]["locality"] is None
    assert numbers(timed.run(one, tmp_path / "run")) == numbers(found)
    (source,) = work.sources_of(one).values()
    values = fluencies(*editing_cases.model(model), source.cases, one.fluency)
    assert found["rows"][0]["fluency"] == pytest.approx(np.mean([value for value in values if value is not None]))
    assert all(row["fluency"] > 0 for row in found["rows"])


def test_text_and_tasks_beside_the_answers(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lm-evaluation-harness would say is put in its place here; of which models it is asked, and when, is the run's own.

    Nats of the text against each group's edit on the model; tasks under the first group's, where that is several edits."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name if name == "lm_eval" else found(name, *at))

    def scored(self: abilities.Tasks, model: Any, tokenizer: Any) -> dict[str, float]:
        return {name: nats(model, tokenizer, ["The sun is yellow."]) or 0.0 for name in self.names}

    monkeypatch.setattr(abilities.Tasks, "scored", scored)
    more: Any = {"drift_text": "ordinary", "text_rows": 2, "lm_eval": "piqa", "fluency": 2}
    asked = config(model, arms=("ft",), **more)
    made = timed.run(asked, tmp_path / "run")
    network, tokenizer = editing_cases.model(model)
    (source,) = work.sources_of(asked).values()
    texts = passages(network, tokenizer, "ordinary", 2, 0)
    how: Any = {"method": "ft-m", "config": work.settings(asked, Arm("ft"), network)}
    tasks, moved = [], list[list[float]]()
    for count in (1, 2):
        groups = [source.cases[start : start + count] for start in (0, count)]
        moved.append([])
        for group in groups:
            delta = method.make(network, tokenizer, [edit for case in group for edit in case.edits], **how)
            with deltas.active(network, delta):
                moved[-1].append(nats(network, tokenizer, texts) or 0.0)
                tasks.append(nats(network, tokenizer, ["The sun is yellow."]))
    rows = {(row["arm"], row["edits"]): row for row in made["rows"]}
    assert rows["before", 0]["nats"] == pytest.approx(nats(network, tokenizer, texts), rel=1e-5)
    for count, values in zip((1, 2), moved, strict=True):
        assert rows["ft", count]["nats"] == pytest.approx(np.mean(values), rel=1e-4)
    (row,) = made["tasks"]  # of no single edits
    assert (row["source"], row["arm"], row["edits"], row["task"]) == ("dated", "ft", 2, "piqa")
    assert row["score"] == pytest.approx(tasks[2], rel=1e-4)
    assert row["before"] == pytest.approx(nats(network, tokenizer, ["The sun is yellow."]), rel=1e-5)
    assert numbers(timed.run(asked, tmp_path / "run")) == numbers(made)


def test_a_part_of_an_older_run_is_read(model: str, tmp_path: Path) -> None:
    asked = config(model, arms=("ft",), counts=(2,), fluency=2)
    made = timed.run(asked, tmp_path / "run")
    done = tmp_path / "run" / "dated" / "ft" / "2" / "done.json"
    record = records.read_record(done)
    del record["nats"], record["tasks"]
    records.write_record(done, record)
    assert numbers(timed.run(asked, tmp_path / "run")) == numbers(made)


@pytest.mark.filterwarnings("ignore:.*pairs of edits")
def test_contradictions_are_out_before_anything_is_edited(tmp_path: Path) -> None:
    path = tmp_path / "edits.csv"
    edits = ["The capital of Zog is,Zog,Edo", "The capital of Lum is,Lum,Bern", "The capital of Zog is,Zog,Oslo"]
    path.write_text("\n".join(["prompt,subject,target", *edits]))
    (source,) = work.sources_of(config("m", benchmarks=(str(path),))).values()
    assert (len(source.cases), source.contradictions) == (2, 1)


def test_questions_that_do_not_hold_beside_the_others_are_left_out() -> None:
    of = work.sources_of(timed.Config(model="m", limit=40, judges=None))
    made = work.Work(type("R", (), {"config": timed.Config(model="m"), "folder": Path(), "console": None})(), of)  # type: ignore[arg-type]
    alone, together = (
        sum(len(edit.judges) for group in made.groups("world", n) for case in group for edit in case.edits)
        for n in (1, 20)
    )
    assert together < 2 * alone
    (joint, _) = made.groups("world", 20)
    edited = {edit.query.id for case in joint for edit in case.edits}
    needs = {need for case in joint for edit in case.edits for judge in edit.judges for need in judge.needs}  # type: ignore[attr-defined]
    assert not needs & edited


def test_a_window_past_the_end_is_refused_before_a_model_is_loaded(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work.editing_cases, "model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=r"window: 9 layers end past the model's, which are 0 to 1; use 2 or fewer"):
        timed.run(config(model, window=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    plan = tried(lambda: timed.run(config(model, window=1, arms=("ft",)), tmp_path / "run")).stages
    assert [stage.label for stage in plan] == [
        "ft, 1 at once, dated",
        "ft, 2 at once, dated",
        "lora-both, layers 0 to 0, 2 at once, dated",
        "lora-both, layers 1 to 1, 2 at once, dated",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arms": ()}, "arms: name at least one"),
        ({"counts": (0, 1)}, "counts: must be numbers of edits from 1 up"),
        ({"counts": (1, 1)}, "counts: 1 is there twice"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"benchmarks": ("nowhere.csv",)}, "no such file"),
        ({"window": -1}, "window must be at least 0"),
        ({"fluency": -1}, "fluency must be at least 0"),
        ({"counts": (1,), "lm_eval": "piqa"}, "lm_eval: .* leave it out, or take a larger number in --counts"),
        ({"limit": 1, "lm_eval": "piqa"}, "lm_eval: is of many edits on one model"),
        ({"model": ""}, "model: say which model"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        timed.check(timed.Config(**{"model": "m", **options}))
