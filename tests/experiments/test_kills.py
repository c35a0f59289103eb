"""A run that is killed inside any call of the file system, and started again, ends with the numbers of one left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.kills import every_kill
from tests.support.tiny_runs import RUNS, made_inputs, numbers

from engramlab.files import records

_FEW = 3  # kills of each experiment that every run of the tests makes; `slow` ones make as many as there are


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_inputs(tmp_path_factory.mktemp("inputs"))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def borne(name: str, inputs: Path, tmp_path: Path, step: int, first: int) -> None:
    whole = RUNS[name](inputs, tmp_path / "whole")
    killed = tmp_path / "broken"
    out = iter(tmp_path / f"broken-{k}" for k in range(10_000))
    killed = next(out)

    def work() -> None:
        RUNS[name](inputs, killed)

    for _ in every_kill(work, tmp_path, step, first):
        again = RUNS[name](inputs, killed)
        assert numbers(again) == numbers(whole)
        assert left(killed) == left(tmp_path / "whole")
        assert numbers(records.read_record(killed / "summary.json")) == numbers(whole)
        killed = next(out)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_in_every_call(name: str, inputs: Path, tmp_path: Path) -> None:
    borne(name, inputs, tmp_path, 1, 1)
