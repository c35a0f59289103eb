"""A stage that is killed at any moment ends as one that was left alone."""

import contextlib
import json
import math
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import zoo
from accelerate import Accelerator

from engramlab.core import checkpoints, runs
from engramlab.core.batches import Mixed, Order, Packed, Rows
from engramlab.core.stages import evaluation_steps, train_stage
from engramlab.core.tokens import Sequences
from engramlab.core.training import NonFiniteLoss, Recipe

STEPS = 120


def make_stream() -> Mixed:
    rows = Rows(Sequences.of([[(7 * i + 3 * k) % 60 + 2 for k in range(3 + i % 6)] for i in range(11)]))
    first, second = (Packed(rows, Order(11, seed), end=1, length=12) for seed in (0, 1))
    return Mixed(first, second, ratio=0.5, end=0, seed=2)


def stage(folder: Path, steps: int = STEPS, *, fail_at: int = 0, minutes: float = 0.0, **more) -> dict:
    """A stage of a model with dropout, with a checkpoint after every step."""
    model = zoo.model("gpt_neox", hidden_dropout=0.3, attention_dropout=0.3)
    seen = []

    def evaluate():
        seen.append(1)
        if len(seen) == fail_at:
            raise KeyboardInterrupt
        with torch.no_grad():
            return [{"corpus": "x", "value": float(model.eval()(torch.tensor([[1, 2]])).logits.sum())}]

    def total() -> float:
        return sum(p.detach().double().sum().item() for p in model.parameters())

    more = {
        "evaluate": evaluate,
        "evaluate_at": evaluation_steps(steps, 6),
        "finish": lambda: {"sum": total()},
        "save_model": lambda path: (path / "sum.json").write_text(json.dumps(total())),
        "minutes_between_checkpoints": minutes,
        "label": "stage",
        "accelerator": Accelerator(cpu=True),
    } | more
    recipe = Recipe(steps=steps, batch=4, learning_rate=1e-2, warmup=2)
    return train_stage(folder, model, make_stream(), recipe, **more)


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    """What the stage wrote, but for the seconds."""
    record, rows = runs.read_json(folder / "done.json"), runs.read_rows(folder / "metrics.jsonl")
    return {k: v for k, v in record.items() if k != "seconds"}, [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("undisturbed") / "stage"
    stage(folder, minutes=99)
    return outcome(folder)


def test_evaluation_steps():
    assert evaluation_steps(1000, 4) == [250, 500, 750, 1000]
    assert evaluation_steps(3, 10) == [1, 2, 3]
    assert evaluation_steps(10, 0) == []


def test_a_stage_leaves_its_measurements_its_model_and_nothing_else(tmp_path):
    folder = tmp_path / "stage"
    before = torch.get_rng_state()
    record = stage(folder, 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(p.name for p in folder.iterdir()) == ["done.json", "metrics.jsonl", "model"]
    rows = runs.read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "value" in row] == [1, 2, 3, 4, 5, 6]
    assert set(rows[0]) == {"step", "loss", "lr", "gradient_norm", "tokens", "seconds"}
    assert (record["steps"], record["tokens"]) == (6, 6 * 4 * 12)
    assert record["loss"] == rows[-2]["loss"]
    assert runs.read_json(folder / "model" / "sum.json") == record["sum"]
    assert stage(folder, 6) == record == runs.read_json(folder / "done.json")  # not trained again
    assert len(runs.read_rows(folder / "metrics.jsonl")) == len(rows)


def test_dropout_is_of_the_stages_seed_alone(tmp_path):
    def losses(name: str, seed: int) -> list[float]:
        torch.rand(7)
        stage(tmp_path / name, 4, seed=seed)
        return [row["loss"] for row in runs.read_rows(tmp_path / name / "metrics.jsonl") if "loss" in row]

    assert losses("a", 3) == losses("b", 3) != losses("c", 4)


@pytest.mark.parametrize("minutes", [0.0, 99.0], ids=["with checkpoints", "without"])
def test_interrupted_twice(tmp_path, undisturbed, minutes):
    for fail_at in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            stage(tmp_path, fail_at=fail_at, minutes=minutes)
        assert not (tmp_path / "done.json").exists()
    stage(tmp_path, minutes=minutes)
    assert outcome(tmp_path) == undisturbed


def rows_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def child(folder: Path) -> None:
    """What is killed: a process of its own that trains the stage to its end."""
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        stage(folder)


def test_killed_again_and_again(tmp_path, undisturbed):
    """Each life a few steps further: on a clock, a fast machine would be done before it is killed."""
    metrics, rng, kills = tmp_path / "metrics.jsonl", random.Random(0), 0
    while not (tmp_path / "done.json").exists():
        process = zoo.process(child, tmp_path)
        if kills < 5:
            enough = rows_in(metrics) + rng.randint(1, 20)
            while process.is_alive() and rows_in(metrics) < enough:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.005))  # somewhere within a step
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills >= 3
    assert outcome(tmp_path) == undisturbed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.json", "metrics.jsonl", "model"]


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(tmp_path):
    model = zoo.model("llama")
    wrong = iter([False] * 3 + [True] * 9)

    class Breaking:
        """A stream that spoils the model before its fourth batch."""

        inner = make_stream()
        state, restore = inner.state, inner.restore

        def take(self, rows: int):
            if next(wrong):
                with torch.no_grad():
                    model.get_input_embeddings().weight.fill_(math.nan)
            return self.inner.take(rows)

    with pytest.raises(NonFiniteLoss, match="step 4: the loss became nan"):
        train_stage(
            tmp_path,
            model,
            Breaking(),
            Recipe(steps=9, batch=4),
            accelerator=Accelerator(cpu=True),
            label="stage",
            minutes_between_checkpoints=0,
        )
    last = checkpoints.latest(tmp_path / "checkpoints")
    assert last.name == "step-00000003"
    assert json.loads((last / "state.json").read_text())["step"] == 3
    assert not (tmp_path / "done.json").exists()
