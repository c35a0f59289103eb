"""A whole experiment by two processes, killed in every stage and gone on with, comes to the numbers of one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.torch import load_file
from tests.support import zoo
from tests.support.extraction import smallest
from tests.support.tiny_runs import made_inputs

from engramlab.corpora.people import Pools
from engramlab.experiments import knowledge_extraction, teaching
from engramlab.experiments.teaching import asking
from engramlab.files import records

KILLED = 9
_POOLS = Pools(birth_years=2, birth_cities=3, universities=3, majors=3, companies=3)


def extraction(out: Path) -> None:
    """Packed rows: where an entry stands in them depends on all that came before."""
    config = smallest(
        pretrain_steps=4,
        finetune_batch=8,
        people=6,
        variants=("single",),
        pools=_POOLS,
        layout="packed",
        checkpoint_minutes=0.0,
    )
    config = replace(config, finetune=replace(config.finetune, recipe=replace(config.finetune.recipe, steps=3)))
    knowledge_extraction.run(config, out, console=Console(quiet=True))


def teach(out: Path) -> None:
    """Of what ``made_inputs`` put beside ``out``, as the preset for several processes does it; it has enough when it was asked
    for the third time."""
    asking.enough = lambda course, *_: "asked three times" if len(course) == 3 else ""
    config = replace(
        teaching.PRESETS["paper"],
        model=str(out.parent / "model"),
        facts=out.parent / "pupils.csv",
        encounters=2,
        batch=16,
        replay_texts=4,
        replay_tokens=8,
        points=4,
        watched_facts=2,
        asked_facts=2,
        native_facts=0,
        audit_facts=12,
        precision="no",
        checkpoint_minutes=0.0,
    )
    teaching.run(config, out, console=Console(quiet=True))


def run(
    out: Path, kill_at: int = 0, rank: int = 0, port: int = 0, sharded: bool = False, work: Any = extraction
) -> None:
    """The experiment in this process; it ends, without a word, behind its ``kill_at``-th checkpoint."""
    import torch

    from engramlab.core.training import checkpoints

    torch.set_num_threads(1)
    if port:  # as a launcher says it
        os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if sharded else {}
    save: Callable[..., None] = checkpoints.save
    count = 0

    def saved(*args: Any, **more: Any) -> None:
        nonlocal count
        save(*args, **more)
        count += 1
        if count == kill_at:
            os._exit(KILLED)

    checkpoints.save = saved
    work(out)
    if port:
        torch.distributed.destroy_process_group()
        os._exit(0)  # at once: taking the group's objects down can wait for threads of gloo that have ended


def launch(out: Path, kill_at: int, sharded: bool, work: Any = extraction) -> set[int | None]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [zoo.process(run, out, kill_at, rank, port, sharded, work) for rank in range(2)]
    for process in both:
        process.join(600)
    return {process.exitcode for process in both}


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_every_stage_of_two_processes_as_of_one(tmp_path: Path, sharded: bool) -> None:
    pair, alone = tmp_path / "two", tmp_path / "one"
    assert launch(pair, 2, sharded) == {KILLED}  # in pretraining
    assert launch(pair, 4, sharded) == {KILLED}  # and, gone on with, in finetuning
    assert launch(pair, 0, sharded) == {0}
    one = zoo.process(run, alone)
    one.join(600)
    assert one.exitcode == 0
    two, whole = (records.read_record(folder / "summary.json") for folder in (pair, alone))
    for a, b in zip(two["training"], whole["training"], strict=True):
        assert (a["stage"], a["steps"], a["tokens"]) == (b["stage"], b["steps"], b["tokens"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert [(row["attribute"], row["questions"]) for row in two["rows"]] == [
        (row["attribute"], row["questions"]) for row in whole["rows"]
    ]
    weights = [load_file(folder / "single" / "finetune" / "model" / "model.safetensors") for folder in (pair, alone)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_allclose(value.numpy(), weights[1][name].numpy(), atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_teaching_by_two_processes_killed_and_gone_on_with(tmp_path: Path) -> None:
    """Sharded by FSDP2, rows of four kinds mixed, and a step's rows dealt out: what one process comes to."""
    made_inputs(tmp_path)
    pair, alone = tmp_path / "two", tmp_path / "one"
    assert launch(pair, 2, True, teach) == {KILLED}
    assert launch(pair, 0, True, teach) == {0}
    one = zoo.process(run, alone, 0, 0, 0, False, teach)
    one.join(600)
    assert one.exitcode == 0
    two, whole = (records.read_record(folder / "summary.json") for folder in (pair, alone))
    for a, b in zip(two["training"], whole["training"], strict=True):
        assert (a["steps"], a["tokens"]) == (b["steps"], b["tokens"])
        assert a["stopped"] == b["stopped"] == "asked three times"
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    assert [(row["arm"], row["facts"]) for row in two["rows"]] == [(row["arm"], row["facts"]) for row in whole["rows"]]
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (pair, alone)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(value.numpy(), weights[1][name].numpy(), atol=2e-4, err_msg=name)
