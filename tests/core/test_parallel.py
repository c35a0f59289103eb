"""Two processes that share each batch train as one process does."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.core.text.batches import OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.core.training import checkpoints, sharding
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.core.training.stage import Stage
from engramlab.files import writing

RECIPE = Recipe(steps=8, batch=6, learning_rate=1e-2, warmup=1, micro_batch=2)


def make(accelerator: Accelerator) -> tuple[torch.nn.Module, OneEntryARow]:
    texts = [[(7 * i + 3 * k) % 60 + 2 for k in range(3 + i % 6)] for i in range(20)]
    rows = TokenRows(Sequences.of(texts, [[0] * (len(text) - 1) + [1] for text in texts]))
    return zoo.model("gpt_neox"), OneEntryARow(rows, Order(20, 1), start=[0], end=1, length=16, answers_only=True)


def objective_of_a_share(accelerator: Accelerator) -> list[float]:
    """A point drawn to the mean of six, each process seeing its share of them."""
    points = torch.arange(6.0)[accelerator.process_index :: accelerator.num_processes]
    point = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor([9.0]))])
    state = TrainState(point, RECIPE, accelerator=accelerator)
    return [step.loss for step in train(state, objective=lambda: (point[0] - points).square().mean())]


def work(folder: Path, rank: int = 0, port: int = 0, sharded: bool = False) -> None:
    """What each process does: half the training, a checkpoint, the rest from there; then the same as a stage."""
    torch.set_num_threads(1)
    if port:  # as a launcher says it
        world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= world | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if sharded else {}
    accelerator = Accelerator(cpu=True)
    model, stream = make(accelerator)
    state = TrainState(model, RECIPE, accelerator=accelerator)
    steps = []
    for step in train(state, stream):
        steps.append(step)
        if step.number == 4:
            checkpoints.save(folder / "checkpoints", state, stream)
            break
    model, stream = make(accelerator)
    state = TrainState(model, RECIPE, accelerator=accelerator)
    checkpoints.load(folder / "checkpoints" / "step-00000004", state, stream)
    steps += train(state, stream)
    model, stream = make(accelerator)
    state = TrainState(model, RECIPE, accelerator=accelerator)
    with Stage(folder / "stage", state, stream, label="stage", minutes=0) as stage:
        for _ in stage:
            pass
        if stage.main:
            stage.record["processes"] = accelerator.num_processes
    if sharded:
        full, own = (sum(p.numel() for p in m.parameters()) for m in (state.bare, state.own))
        assert full == own
        assert sum(p.to_local().numel() for p in state.own.parameters()) < 0.75 * full
    mean = objective_of_a_share(accelerator) if not sharded else None
    if accelerator.is_main_process:
        numbers = [[s.loss, s.gradient_norm, s.tokens, s.targets] for s in steps]
        norms = [p.detach().norm().item() for p in model.parameters()]
        result = {"steps": numbers, "record": stage.record, "norms": norms, "mean": mean}
        (folder / "result.json").write_text(json.dumps(result))
    if port:
        with pytest.raises(UserError, match="batch 5 cannot be shared evenly by 2 processes"):
            TrainState(model, Recipe(batch=5), accelerator=accelerator)
        accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()
        os._exit(0)  # at once: taking the group's objects down can wait for threads of gloo that have ended


@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["DDP", "FSDP2"])
def test_two_processes_train_as_one(tmp_path, sharded):
    two, one = tmp_path / "two", tmp_path / "one"
    one.mkdir()
    two.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = [zoo.process(work, two, rank, port, sharded) for rank in range(2)]
    work(one)
    for process in launched:
        process.join(600)
        assert process.exitcode == 0
    pair, alone = (writing.read_json(folder / "result.json") for folder in (two, one))
    assert (pair["record"]["processes"], alone["record"]["processes"]) == (2, 1)
    for a, b in zip(pair["steps"], alone["steps"], strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert pair["record"]["loss"] == pytest.approx(alone["record"]["loss"], rel=1e-5)
    assert pair["record"]["tokens"] == alone["record"]["tokens"]
    if not sharded:
        assert pair["mean"] == pytest.approx(alone["mean"], rel=1e-5)
    assert pair["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    model, stream = make(Accelerator(cpu=True))
    with pytest.raises(UserError, match="was saved by 2 processes and cannot go on with 1"):
        checkpoints.load(two / "checkpoints" / "step-00000004", TrainState(model, RECIPE), stream)


def test_the_first_fsdp_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match="add --fsdp_version 2"):
        sharding.wanted()
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert sharding.wanted()
