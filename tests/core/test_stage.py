"""A stage that is killed at any moment ends as one that was left alone."""

import contextlib
import json
import math
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tests.support import zoo

from engramlab.base import random_access
from engramlab.base.errors import UserError
from engramlab.base.interrupts import Interrupted
from engramlab.core.text.batches import Mixed, Order, Packed, TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Exploded, Stage, evaluation_steps, finished, refuse_explosion
from engramlab.core.training.step import NonFiniteLoss, Step
from engramlab.files import writing
from engramlab.files.journal import read_rows

STEPS = 120


def make_stream() -> Mixed:
    rows = TokenRows(Sequences.of([[(7 * i + 3 * k) % 60 + 2 for k in range(3 + i % 6)] for i in range(11)]))
    first, second = (Packed(rows, Order(11, seed), end=1, length=12) for seed in (0, 1))
    return Mixed(first, second, ratio=0.5, end=0, seed=2)


def stage(
    folder: Path,
    steps: int = STEPS,
    *,
    fail_at: int | str = 0,
    minutes: float = 0.0,
    seed: int = 0,
    fail: Callable[[], None] | None = None,
) -> dict:
    """A stage of a model with dropout, with a checkpoint after every step; fails in its n-th measurement, or at a moment."""
    if (record := finished(folder)) is not None:
        return record
    model = zoo.model("gpt_neox", hidden_dropout=0.3, attention_dropout=0.3)
    state = TrainState(
        model, Recipe(steps=steps, batch=4, learning_rate=1e-2, warmup=2), accelerator=Accelerator(cpu=True)
    )
    at, seen = evaluation_steps(steps, 6), 0

    def reached(moment: int | str) -> None:
        if moment == fail_at:
            if fail is None:
                raise KeyboardInterrupt
            fail()

    with Stage(
        folder, state, make_stream(), label="stage", minutes=minutes, seed=random_access.key(seed, "dropout", 0)
    ) as going:
        reached("before the first step")
        for step in going:
            if step.number in at:
                seen += 1
                reached(seen)
                with torch.no_grad():
                    value = float(model.eval()(torch.tensor([[1, 2]])).logits.sum())
                going.add([{"corpus": "x", "value": value}])
        reached("after the last step")
        total = sum(p.detach().double().sum().item() for p in model.parameters())
        going.record["sum"] = total
        writing.write_folder(folder / "model", lambda path: (path / "sum.json").write_text(json.dumps(total)))
        reached("before the record")
    return going.record


def outcome(folder: Path) -> tuple[dict, list[dict]]:
    """What the stage wrote, but for the seconds."""
    record, rows = finished(folder), read_rows(folder / "metrics.jsonl")
    record, *rows = ({k: v for k, v in row.items() if k not in ("seconds", "measuring")} for row in (record, *rows))
    return record, rows


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("undisturbed") / "stage"
    stage(folder, minutes=99)
    return outcome(folder)


def test_evaluation_steps():
    assert evaluation_steps(1000, 4) == {250, 500, 750, 1000}
    assert evaluation_steps(3, 10) == {1, 2, 3}
    assert evaluation_steps(10, 0) == set()


def test_a_stage_leaves_its_measurements_its_model_and_nothing_else(tmp_path):
    folder = tmp_path / "stage"
    before = torch.get_rng_state()
    record = stage(folder, 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(p.name for p in folder.iterdir()) == ["done.json", "metrics.jsonl", "model"]
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "value" in row] == [1, 2, 3, 4, 5, 6]
    assert set(rows[0]) == {"step", "loss", "lr", "gradient_norm", "tokens", "seconds"}
    assert (record["steps"], record["tokens"]) == (6, 6 * 4 * 12)
    assert record["loss"] == rows[-2]["loss"]
    assert writing.read_json(folder / "model" / "sum.json") == record["sum"]
    assert stage(folder, 6) == record == finished(folder)  # not trained again
    assert len(read_rows(folder / "metrics.jsonl")) == len(rows)


def test_dropout_is_of_the_stages_seed_alone(tmp_path):
    def losses(name: str, seed: int) -> list[float]:
        torch.rand(7)
        stage(tmp_path / name, 4, seed=seed)
        return [row["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl") if "loss" in row]

    assert losses("a", 3) == losses("b", 3) != losses("c", 4)


@pytest.mark.parametrize("minutes", [0.0, 99.0], ids=["with checkpoints", "without"])
@pytest.mark.parametrize(
    "moments", [(2, 3), ("before the first step", 1), (6, "after the last step"), ("before the record",)]
)
def test_interrupted_at_every_kind_of_moment(tmp_path, undisturbed, moments, minutes):
    for fail_at in moments:
        with pytest.raises(KeyboardInterrupt):
            stage(tmp_path, fail_at=fail_at, minutes=minutes)
        assert not (tmp_path / "done.json").exists()
    stage(tmp_path, minutes=minutes)
    assert outcome(tmp_path) == undisturbed


@pytest.fixture
def fresh_handlers():
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for n, handler in before.items():
        signal.signal(n, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_behind_its_step_with_a_checkpoint(tmp_path, undisturbed, number, fresh_handlers):
    with pytest.raises(Interrupted) as ended:
        stage(tmp_path, fail_at=3, minutes=99, fail=lambda: os.kill(os.getpid(), number))
    assert (str(ended.value), ended.value.code) == ("step 60 of 120 of stage is saved", 128 + number)
    assert checkpoints.latest(tmp_path / "checkpoints").name == "step-00000060"
    stage(tmp_path, minutes=99)
    assert outcome(tmp_path) == undisturbed


def test_a_second_signal_ends_it_at_once(tmp_path, undisturbed, fresh_handlers):
    with pytest.raises(Interrupted):
        stage(tmp_path, fail_at=3, minutes=99, fail=lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert checkpoints.latest(tmp_path / "checkpoints") is None
    stage(tmp_path, minutes=99)
    assert outcome(tmp_path) == undisturbed


def test_what_comes_behind_the_last_step_is_interrupted_without_loss(tmp_path, undisturbed):
    with pytest.raises(Interrupted, match="step 120 of 120 of stage is saved"):
        stage(tmp_path, fail_at="after the last step", minutes=99)
    assert checkpoints.latest(tmp_path / "checkpoints").name == "step-00000120"
    stage(tmp_path, minutes=99)
    assert outcome(tmp_path) == undisturbed


def test_a_damaged_checkpoint_is_passed_over_for_an_older_one_and_it_is_said(tmp_path, undisturbed):
    with pytest.raises(ZeroDivisionError):
        stage(tmp_path, fail_at=3, fail=lambda: 1 // 0)
    newest = checkpoints.latest(tmp_path / "checkpoints")
    older = newest.with_name("step-00000000")
    shutil.copytree(newest, older)
    (newest / "optimizer.safetensors").write_bytes(b"")
    said = []
    assert checkpoints.newest_whole(newest.parent, said.append) == older
    (line,) = said
    assert re.search(
        r"step-00000059/optimizer.safetensors is damaged .*; gone on with is the older step-00000000$", line
    )
    stage(tmp_path)
    assert outcome(tmp_path) == undisturbed


def test_metrics_that_are_not_what_was_written_are_named(tmp_path):
    with pytest.raises(ZeroDivisionError):
        stage(tmp_path, fail_at=3, fail=lambda: 1 // 0)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for content, why in (
        (whole.replace(b'"step": 7', b'"step": 8'), "line 7 is not what was written"),
        (whole[: len(whole) // 2], "it has .. rows of 61"),
        (b"", "it has 0 rows of 61"),
        (b"[]\n", "line 1 is not what was written"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"metrics.jsonl is damaged \({why}\); remove {tmp_path} to do that part"):
            stage(tmp_path)


def test_a_checkpoint_of_the_stages_before_this_one_is_gone_on_from(tmp_path, undisturbed):
    """Checkpoints said tokens, seconds and loss, and nothing about the time spent measuring."""
    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path, fail_at=3)
    path = checkpoints.latest(tmp_path / "checkpoints") / "state.json"
    record = json.loads(path.read_text())
    record["extra"] = {name: record["extra"][name] for name in ("tokens", "seconds", "loss")}
    path.write_text(json.dumps(record))
    (path.parent / "digests.json").unlink()  # nor had they these
    stage(tmp_path)
    assert outcome(tmp_path) == undisturbed


def small_state(steps: int = 8, **recipe) -> TrainState:
    recipe = Recipe(steps=steps, batch=4, learning_rate=1e-2, **recipe)
    return TrainState(zoo.model("llama"), recipe, accelerator=Accelerator(cpu=True))


def test_a_stage_stops_where_it_is_told_or_where_its_caller_leaves_it(tmp_path):
    until, left = small_state(), small_state()
    with Stage(tmp_path / "until", until, make_stream(), label="stage", until=3) as told:
        numbers = [step.number for step in told]
    with Stage(tmp_path / "left", left, make_stream(), label="stage") as leaving:
        for step in leaving:
            if step.number == 3:
                break
    assert numbers == [1, 2, 3]
    assert outcome(tmp_path / "until") == outcome(tmp_path / "left")
    assert told.record["steps"] == leaving.record["steps"] == 3
    assert all(torch.equal(p, q) for p, q in zip(until.trained, left.trained, strict=True))


def test_how_many_losses_are_kept_and_what_the_loop_body_took(tmp_path):
    with Stage(tmp_path, small_state(), make_stream(), label="stage", rows=4) as going:
        for _ in going:
            time.sleep(0.01)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 4, 6, 8]
    assert 0.08 <= going.record["measuring"] <= going.record["seconds"]


def test_what_must_be_on_disk_before_a_checkpoint_is_asked_for_first(tmp_path):
    flushed = []

    def before() -> None:
        assert not (tmp_path / f"checkpoints/step-{going.state.step:08d}").exists()
        flushed.append(going.state.step)

    going = Stage(tmp_path, small_state(), make_stream(), label="s", minutes=0, before=before)
    with pytest.raises(ZeroDivisionError), going:
        for step in going:
            if step.number == 5:
                raise ZeroDivisionError
    assert flushed == [1, 2, 3, 4]
    assert checkpoints.latest(tmp_path / "checkpoints").name == f"step-{flushed[-1]:08d}"


@pytest.mark.parametrize("problems", [False, True])
def test_an_objective_decays_matrices_unless_they_are_rows_of_independent_problems(tmp_path, problems):
    weights = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2, 3))])
    recipe = Recipe(steps=4, batch=1, learning_rate=0.1, weight_decay=0.5, schedule="constant", clip=None)
    state = TrainState(weights, recipe, accelerator=Accelerator(cpu=True), problems=problems)

    def nothing() -> torch.Tensor:
        losses = (weights[0] * 0).sum(1)
        return losses if problems else losses.sum()

    with Stage(tmp_path, state, Order(3, 0), label="stage", objective=nothing) as going:
        for _ in going:
            pass
    assert weights[0].detach().unique().tolist() == pytest.approx([1.0 if problems else 0.95**4])
    with pytest.raises(TypeError, match="a stream, or on an objective"):
        Stage(tmp_path, state, Order(3, 0), label="stage")


def test_a_loss_that_stays_high_is_refused_and_one_high_loss_is_not():
    totals: dict = {}
    for number, loss in enumerate([2.0] * 10 + [9.0] * 4 + [2.0], 1):
        refuse_explosion(totals, Step(number, loss, 1e-3, 1.0, 1, 1))
    totals = json.loads(json.dumps(totals))  # as a checkpoint keeps it
    with pytest.raises(Exploded, match="step 20: the loss rose from 2.00 to 6.00"):
        for number in range(16, 30):
            refuse_explosion(totals, Step(number, 6.0, 1e-3, 1.0, 1, 1))


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

        def take(self, rows: int, own: slice):
            if next(wrong):
                with torch.no_grad():
                    model.get_input_embeddings().weight.fill_(math.nan)
            return self.inner.take(rows, own)

    state = TrainState(model, Recipe(steps=9, batch=4), accelerator=Accelerator(cpu=True))
    going = Stage(tmp_path, state, Breaking(), label="stage", minutes=0)
    with pytest.raises(NonFiniteLoss, match="step 4: the loss became nan"), going:
        list(going)
    last = checkpoints.latest(tmp_path / "checkpoints")
    assert last.name == "step-00000003"
    assert json.loads((last / "state.json").read_text())["step"] == 3
    assert not (tmp_path / "done.json").exists()
