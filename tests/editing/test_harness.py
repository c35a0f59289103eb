"""Tasks of lm-evaluation-harness: the tool's own numbers of a plain model, and edits of every kind take part.

The tool's data sets come from a hub; the tasks here are files of our own, which it reads in the same way.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.small import EDITS, quick
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core import deltas
from engramlab.editing import method
from engramlab.editing.judge import abilities

MISSING = importlib.util.find_spec("lm_eval") is None
needs_it = pytest.mark.skipif(MISSING, reason="lm_eval is not installed: pip install 'engramlab[oracle]'")

CHOICES = """task: choices
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
"""
WRITTEN = """task: written
output_type: generate_until
doc_to_text: question
doc_to_target: said
generation_kwargs: {until: ["e"], max_gen_toks: 12, do_sample: DRAWN}
metric_list:
  - metric: exact_match
"""
RUNNING = """task: running
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: text
metric_list:
  - metric: word_perplexity
"""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return zoo.ZOO["llama3"](zoo.SENTENCES)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> nn.Module:
    return zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=96).eval()


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, str]:
    """Files of tasks, by name: to choose (the edited answer is right), to write, to write as drawn, and to read a text longer
    than the network's context."""
    rows = [
        {
            "question": edit.query.prompt,
            "choices": [edit.target, edit.query.target, "Kyoto and the sea"],
            "answer": 0,
            "said": "",
            "text": " ".join(zoo.SENTENCES[:30]) if i % 2 else zoo.SENTENCES[i],
        }
        for i, edit in enumerate(EDITS[:2])
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = (
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\ntest_split: test\n"
    )
    files = {"choices": CHOICES, "written": WRITTEN.replace("DRAWN", "false"), "running": RUNNING}
    files["drawn"] = WRITTEN.replace("task: written", "task: drawn").replace("DRAWN", "true")
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text + data)
    return {name: str(tmp_path / f"{name}.yaml") for name in files}


def _theirs(model: nn.Module, tokenizer: Any, tasks: dict[str, str], chosen: list[str], **given: Any) -> Any:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    listed = TaskManager(include_path=str(Path(tasks["choices"]).parent))
    plain = HFLM(pretrained=model, tokenizer=tokenizer, backend="causal", **given)
    return lm_eval.simple_evaluate(model=plain, tasks=chosen, bootstrap_iters=0, task_manager=listed)


@needs_it
def test_of_a_plain_model_the_numbers_are_the_tools_own(
    model: nn.Module, tokenizer: Any, tasks: dict[str, str]
) -> None:
    """Its own pass over whole rows, in windows as long as ours."""
    from engramlab.editing.judge import harness

    names = ["choices", "written", "running"]
    theirs = _theirs(model, tokenizer, tasks, names, max_length=95)
    states = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    found = harness.scored(model, tokenizer, [tasks[name] for name in names], None)
    assert random.getstate() == states[0]  # the tool seeds them all
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(np.random.get_state()[1], states[2][1])  # noqa: NPY002
    assert found[tasks["choices"]] == theirs["results"]["choices"]["acc,none"]
    assert found[tasks["written"]] == theirs["results"]["written"]["exact_match,none"]
    assert found[tasks["running"]] == pytest.approx(theirs["results"]["running"]["word_perplexity,none"], rel=1e-4)
    samples = {name: [one["resps"] for one in theirs["samples"][name]] for name in names}
    ours = harness._asked(model, tokenizer)
    asked = {name: [one["arguments"] for one in theirs["samples"][name]] for name in names}
    pairs = [tuple(pair) for one in asked["choices"] for pair in one]
    from lm_eval.api.instance import Instance

    def instances(kind: str, given: list[Any]) -> list[Any]:
        return [Instance(kind, {}, one, k) for k, one in enumerate(given)]

    expected = [tuple(resp[0]) for one in samples["choices"] for resp in one]
    got = ours.loglikelihood(instances("loglikelihood", pairs))
    for (value, exact), (their_value, their_exact) in zip(got, expected, strict=True):
        assert value == pytest.approx(float(their_value), abs=1e-4)
        assert exact == (str(their_exact) == "True")
    prompts = [(one[0][0], {"until": ["e"], "max_gen_toks": 12}) for one in asked["written"]]
    assert ours.generate_until(instances("generate_until", prompts)) == [one[0][0] for one in samples["written"]]


@needs_it
@pytest.mark.parametrize("name", ["ft-m", "grace", "wise", "ike", "p-tuning"])
def test_edits_of_every_kind_take_part(model: nn.Module, tokenizer: Any, tasks: dict[str, str], name: str) -> None:
    """The edited answer becomes likelier than it was, wherever the edit stands."""
    from lm_eval.api.instance import Instance

    from engramlab.editing.judge import harness

    edit = EDITS[0]
    asked = [Instance("loglikelihood", {}, (edit.query.prompt, f" {edit.target}"), 0)]
    before = harness._asked(model, tokenizer).loglikelihood(asked)[0][0]
    with method.applied(model, tokenizer, edit, method=name, config=quick(name)):
        after = harness._asked(model, tokenizer).loglikelihood(asked)[0][0]
        found = abilities.Tasks([tasks["choices"]], None).scored(model, tokenizer)
    assert (after != before) if name == "ike" else (after > before)
    assert set(found) == {tasks["choices"]}
    assert harness._asked(model, tokenizer).loglikelihood(asked)[0][0] == before
    assert not deltas.installed(model)


@needs_it
def test_a_task_that_cannot_be_run_is_one_error(model: nn.Module, tokenizer: Any, tasks: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"lm-eval: a task that draws what is written is not asked here"):
        abilities.Tasks([tasks["drawn"]], None).scored(model, tokenizer)
    with pytest.raises(UserError, match=r"lm-eval: no_such_task could not be run: "):
        abilities.Tasks(["no_such_task"], None).scored(model, tokenizer)


def test_what_is_not_there_is_said_before_anything_is_edited(
    model: nn.Module, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: None if name == "lm_eval" else found(name, *at))
    with pytest.raises(UserError, match=r"lm-eval: .*pip install 'engramlab\[oracle\]'"):
        abilities.check("", "piqa")
    abilities.check("", "")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"lm-eval: lm_eval is not installed; pip install"):
        abilities.Tasks(["piqa"], 5).scored(model, tokenizer)
    assert abilities.Tasks([], 5).scored(model, tokenizer) == {}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *at: name if name == "lm_eval" else found(name, *at))
    with pytest.raises(UserError, match=r"mine\.yaml"):
        abilities.check("", str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("dataset_path: json\n")
    with pytest.raises(UserError, match=r"mine\.yaml names no task; it wants a line such as task: mine"):
        abilities.check("", str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("tag: own\ntask: 'mine'  # of ours\n")
    abilities.check("", str(tmp_path / "mine.yaml"))
