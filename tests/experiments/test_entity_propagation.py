"""Entity propagation: what is asked, its numbers against plain loops, a small run, refusals."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Query
from engramlab.core import deltas, models
from engramlab.core.text.tokens import encode_queries
from engramlab.editing import method
from engramlab.editing.judge import abilities, beyond
from engramlab.experiments import entity_propagation as propagation
from engramlab.experiments.entity_propagation import told, work
from engramlab.files import records
from engramlab.measuring.asking import evidence_on
from engramlab.measuring.questions import behind

INFERENCE = {
    "ex_id": "lund",
    "definition": "Lund is the capital of <extra_id_0> and was once called Edo.",
    "def_target": "<extra_id_0> Japan <extra_id_1>",
    "ent_str": "Lund",
    "probe_sentences": {
        "template_0": {
            "probe_sentence": "The language of Lund is <extra_id_0>.",
            "labels": ["<extra_id_0> Seine <extra_id_1>", "<extra_id_0> Paris <extra_id_1>", "<extra_id_0> the Seine"],
        }
    },
    "label": "<extra_id_0> Paris <extra_id_1>",
}
OTHER = json.loads(json.dumps(INFERENCE).replace("Lund", "Bern").replace("lund", "bern"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=1024).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "entities.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (INFERENCE, OTHER)))
    return str(path)


def test_what_is_told_and_asked(file: str) -> None:
    found = told.told_of(propagation.Config(files=(file, "fictional"), limit=3))
    lund = found[file][0]
    assert lund.definition == "Lund is the capital of Japan and was once called Edo."
    assert (lund.passage.query.prompt, lund.passage.target) == tuple(lund.definition.split(" ", 1))
    assert (lund.fact.query.prompt, lund.fact.target, lund.fact.statement) == (
        "Lund is the capital of", "Japan", lund.definition,
    )  # fmt: skip
    (probe,) = lund.probes
    assert (probe.query.prompt, probe.query.target, set(probe.options)) == (
        "The language of Lund is", "Paris", {"Seine", "the Seine"},
    )  # fmt: skip
    # "the", "of", "Lund" and "is" of the probe's six words stand in the definition.
    assert probe.overlap == pytest.approx(4 / 6)
    assert len(found["fictional"]) == 3
    for one in found["fictional"]:
        assert one.definition.startswith(one.fact.query.prompt)
        assert one.fact.query.subject in one.fact.query.prompt
        assert one.fact.target in one.definition
        assert {probe.kind for probe in one.probes} == {"memorization", "semantic", "compositional"}
        for probe in one.probes:
            assert len(probe.options) == 4
            assert probe.query.target not in probe.options


def test_numbers_against_loops(model: str, file: str, tmp_path: Path) -> None:
    """Nats of a token loop, choice by brute force, with and without the definition in front."""
    config = propagation.Config(model=model, files=(file,), arms=("context", "random"), specificity=2, seed=0)
    summary = propagation.run(config, tmp_path / "run")
    network, tokenizer = models.load(model)

    def logprobs(prompt: str, target: str) -> list[float]:
        encoded = encode_queries(tokenizer, [Query(prompt, target)]).sequences
        ids = torch.tensor(encoded.ids[: encoded.offsets[1]].tolist())
        marks = np.flatnonzero(encoded.marks[: encoded.offsets[1]])
        return [float(network(input_ids=ids[None, :k]).logits[0, -1].log_softmax(-1)[ids[k]].detach()) for k in marks]

    entities = told.told_of(config)[file]
    nats: dict[str, list[float]] = {"before": [], "context": [], "random": []}
    right = []
    for i, one in enumerate(entities):
        for arm in nats:
            front = {"before": "", "context": one.definition, "random": entities[1 - i].definition}[arm]
            (probe,) = one.probes
            prompt = behind(front, probe.query.prompt)
            own = logprobs(prompt, probe.query.target)
            nats[arm].append(-float(np.mean(own)))
            if arm == "context":
                right.append(all(sum(own) > sum(logprobs(prompt, other)) for other in probe.options))
    for arm in ("context", "random"):
        row = next(row for row in summary["rows"] if (row["arm"], row["kind"]) == (arm, "probe"))
        assert row["perplexity_before"] == pytest.approx(math.exp(np.mean(nats["before"])), rel=1e-3)
        assert row["perplexity_after"] == pytest.approx(math.exp(np.mean(nats[arm])), rel=1e-3)
        assert row["gain"] == pytest.approx(np.mean(nats["before"]) - np.mean(nats[arm]), abs=1e-4)
        if arm == "context":
            assert row["sum_after"] == pytest.approx(np.mean(right))
        popular = next(row for row in summary["rows"] if (row["arm"], row["kind"]) == (arm, "specificity"))
        assert (popular["probes"], popular["entities"]) == (4, 2)


def test_a_run(model: str, file: str, tmp_path: Path) -> None:
    config = propagation.Config(
        model=model, files=(file,), arms=("ft-last", "ft-all", "distillation"), specificity=1, steps=2, at_once=1
    )
    summary = propagation.run(config, tmp_path / "run")
    assert {(row["arm"], row["kind"]) for row in summary["rows"]} == {
        (arm, kind) for arm in config.arms for kind in ("probe", "specificity")
    }
    assert all(row["gain_low"] <= row["gain"] <= row["gain_high"] for row in summary["rows"])
    (tmp_path / "run" / "summary.json").unlink()
    next((tmp_path / "run" / "ft-all").glob("*/done.json")).unlink()
    assert numbers(propagation.run(config, tmp_path / "run")) == numbers(summary)


def test_many_told_in_one_change(model: str, file: str, tmp_path: Path) -> None:
    """Under the change of all of them, which one call of the method makes; what should stay is asked once."""
    asked = {"model": model, "files": (file,), "arms": ("ft-all", "context"), "steps": 3, "learning_rate": 1e-2}
    config = propagation.Config(**asked, together=2, specificity=1)
    summary = propagation.run(config, tmp_path / "run")
    assert summary["together"] == 2
    entities = told.told_of(config)[file]
    network, tokenizer = models.load(model)
    network.eval()
    edits = [entity.passage for entity in entities]
    delta = method.make(network, tokenizer, edits, method="ft-m", config=work.settings(config, "ft-all", network))
    probes = [entity.probes[0].query for entity in entities]
    with deltas.active(network, delta):
        nats = [-np.mean(one.logprobs) for one in evidence_on(network, tokenizer, probes, None, None)]
    row = next(row for row in summary["rows"] if (row["arm"], row["kind"]) == ("ft-all", "probe"))
    assert row["perplexity_after"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-3)
    popular = {row["arm"]: row["probes"] for row in summary["rows"] if row["kind"] == "specificity"}
    assert popular == {"ft-all": 1, "context": 2}
    alone = propagation.run(replace(config, together=1), tmp_path / "alone")
    assert [row for row in alone["rows"] if row["arm"] == "context"] == [
        row for row in summary["rows"] if row["arm"] == "context"
    ]
    with pytest.raises(UserError, match="rome tells one entity at a time, not 2 in one change; give --arms context"):
        propagation.run(replace(config, arms=("rome", "context")), tmp_path / "other")


def test_what_is_measured_beside_the_probes(
    model: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same measures of the model with the change on it, alone and told together. What lm-evaluation-harness would
    say is put in its place; of which models it is asked, and when, is the run's own."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name if name == "lm_eval" else found(name, *at))

    def scored(self: abilities.Tasks, model: Any, tokenizer: Any) -> dict[str, float]:
        return {name: beyond.nats(model, tokenizer, ["The sun is yellow."]) or 0.0 for name in self.names}

    monkeypatch.setattr(abilities.Tasks, "scored", scored)
    asked: Any = {"model": model, "files": (file,), "arms": ("ft-all", "context"), "steps": 3, "learning_rate": 1e-2}
    alone = propagation.Config(**asked, specificity=1, fluency=4, drift_text="ordinary", text_rows=2)
    joint = replace(alone, together=2, lm_eval="piqa")
    entities = told.told_of(alone)[file]
    network, tokenizer = models.load(model)
    network.eval()
    texts = beyond.passages(network, tokenizer, "ordinary", 2, 0)
    bare = beyond.nats(network, tokenizer, texts)
    for config, groups in ((alone, [[one] for one in entities]), (joint, [entities])):
        summary = propagation.run(config, tmp_path / str(config.together))
        (row,) = summary["beside"]  # a definition in front changes no model
        values, fluent, tasks = [], [], []
        for group in groups:
            edits, how = [one.passage for one in group], work.settings(config, "ft-all", network)
            delta = method.make(network, tokenizer, edits, method="ft-m", config=how)
            cases = [Case(one.id, (one.fact,)) for one in group]
            with deltas.active(network, delta):
                values.append(beyond.nats(network, tokenizer, texts) or 0.0)
                fluent += beyond.fluencies(network, tokenizer, cases, 4)
                tasks.append(beyond.nats(network, tokenizer, ["The sun is yellow."]))
        assert (row["arm"], row["entities"], row["nats_before"]) == ("ft-all", 2, pytest.approx(bare, rel=1e-5))
        assert row["nats"] == pytest.approx(np.mean(values), rel=1e-4)
        assert row["nats"] != pytest.approx(bare, rel=1e-4)
        assert row["fluency"] == pytest.approx(np.mean(fluent), rel=1e-5)
        scores = [(one["arm"], one["task"], one["score"]) for one in summary["tasks"]]
        assert scores == ([("ft-all", "piqa", pytest.approx(tasks[0], rel=1e-4))] if config is joint else [])
    (done,) = (tmp_path / "1" / "ft-all").glob("*/done.json")
    record = records.read_record(done)
    old = {name: record[name] for name in ("rows", "failed", "seconds", "editing_seconds")}
    records.write_record(done, old)  # as older runs kept it
    (row,) = propagation.run(alone, tmp_path / "1")["beside"]
    assert (row["entities"], row["fluency"]) == (0, None)
    with pytest.raises(UserError, match="lm_eval: is of many edits on one model; leave it out, or take --together 20"):
        propagation.check(replace(alone, lm_eval="piqa"))


def test_a_share_of_the_target_that_was_asked_for_is_kept() -> None:
    """The paper's 0 only takes the place of the method's own default, which is for facts."""
    network = zoo.model("llama")
    config = propagation.Config(model="m")
    assert work.settings(config, "distillation", network).hard == 0.0
    hyper = replace(config.hyper, distillation=replace(config.hyper.distillation, hard=0.25))
    assert work.settings(replace(config, hyper=hyper), "distillation", network).hard == 0.25


def test_gain_by_overlap() -> None:
    rows = [{"entity": str(i), "kind": "probe", "probe": 0, "sum": 0.0, "mean": None} for i in range(12)]
    before = [{**row, "nats": 3.0, "overlap": i / 12} for i, row in enumerate(rows)]
    after = [{**row, "nats": 3.0 - i / 10, "overlap": i / 12} for i, row in enumerate(rows)]
    (found,) = work.scored(before, after, 0)
    assert found["by_overlap"] == pytest.approx(1.0)
    assert found["gain"] == pytest.approx(np.mean(np.arange(12) / 10))
    assert found["mean_after"] is None
    (none,) = work.scored(before, before, 0)
    assert none["by_overlap"] is None
    assert none["gain"] == none["sum_more"] == 0.0


def test_bad_input(model: str, file: str, tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps(INFERENCE))
    with pytest.raises(UserError, match="holds one entity"):
        told.told_of(propagation.Config(files=(str(one),)))
    with pytest.raises(UserError, match="limit must be at least 2"):
        propagation.check(propagation.Config(model="m", limit=1))
    with pytest.raises(UserError, match="arms: name at least one"):
        propagation.check(propagation.Config(model="m", arms=()))
    long = dict(INFERENCE, definition="Lund is the capital of <extra_id_0>" + " and of Edo" * 600)
    many = tmp_path / "long.jsonl"
    many.write_text(json.dumps(long) + "\n" + json.dumps(OTHER))
    with pytest.raises(UserError, match=r"entity lund: .*the model reads 1024: shorten it"):
        propagation.run(propagation.Config(model=model, files=(str(many),)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_definition_that_a_method_cannot_take(model: str, tmp_path: Path) -> None:
    """ROME needs the entity before the gap: that entity is left out of ROME's row, and the page says why."""
    path = tmp_path / "entities.jsonl"
    late = dict(INFERENCE, definition="In <extra_id_0>, there is Lund.")
    path.write_text(json.dumps(late) + "\n" + json.dumps(OTHER))
    config = propagation.Config(model=model, files=(str(path),), arms=("rome",), specificity=0)
    network, tokenizer = models.load(model)
    entities = told.told_of(config)[str(path)]
    run: Any = type("Run", (), {"config": config})()
    found = work.Work(run, lambda: (network, tokenizer), [])._some(
        network, tokenizer, "rome", str(path), entities[:1], 0
    )
    assert [one["entity"] for one in found["failed"]] == ["lund"]
    assert found["rows"] == []
