"""A run that is killed inside any call of the file system, and started again, ends with the numbers of one left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.kills import every_kill
from tests.support.tiny_runs import RUNS, made_inputs, numbers

from engramlab.files import records

#: Kills in every so many calls; 1 takes 40 minutes for all experiments (about 1,950 kills).
_STEP = int(os.environ.get("ENGRAMLAB_KILLS_STEP", "83"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_inputs(tmp_path_factory.mktemp("inputs"))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_in_a_call_and_started_again(name: str, inputs: Path, tmp_path: Path) -> None:
    whole = RUNS[name](inputs, tmp_path / "whole")
    places = [tmp_path / "broken-0"]
    for at in every_kill(lambda: RUNS[name](inputs, places[-1]), tmp_path, _STEP):
        again = RUNS[name](inputs, places[-1])
        assert numbers(again) == numbers(records.read_record(places[-1] / "summary.json")) == numbers(whole)
        assert left(places[-1]) == left(tmp_path / "whole")
        places.append(tmp_path / f"broken-{at}")
