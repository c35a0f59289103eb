"""A command that is told to end, as a real process by a real signal."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from engramlab import cli

LONG = ["run", "knowledge-extraction", "--people", "6", "--variants", "single", "--evaluations", "0"]
LONG += ["--pretrain.steps", "8000", "--pretrain.batch", "4", "--checkpoint-minutes", "99"]


def started(words: list[str], said: Path) -> int:
    """A process of its own that runs the command line, its handlers of signals as a new one's; what it says goes to a file."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        cli.main(words)
    except SystemExit as stop:
        sys.stderr.flush()
        os._exit(int(stop.code or 0))
    finally:
        os._exit(99)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_saves_its_step_names_it_and_goes_on_from_there(tmp_path: Path, number: int, code: int) -> None:
    stage, said = tmp_path / "run" / "single" / "pretrain", tmp_path / "said"
    reached = 0
    for _ in range(2):
        child = started([*LONG, "--out", str(tmp_path / "run")], said)
        deadline = time.monotonic() + 120
        while _last_step(stage / "metrics.jsonl") <= reached and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child, number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
        *_, last = re.findall(
            r"interrupted; step (\d+) of 8000 of single pretrain is saved; the same", said.read_text()
        )
        assert int(last) > reached
        reached = int(last)
        assert [path.name for path in (stage / "checkpoints").iterdir()] == [f"step-{reached:08d}"]


def _last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return max((int(found[1]) for line in lines if (found := re.search(r'"step": (\d+),', line))), default=0)
