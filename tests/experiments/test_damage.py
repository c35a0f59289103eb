"""A file of an interrupted run that is not what was written: the same numbers, or one sentence whose advice helps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.kills import killed
from tests.support.tiny_runs import RUNS, made_inputs, numbers

from engramlab.base.errors import UserError
from engramlab.files import writing


def _flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        place = int(at * (len(content) - 1))
        return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda content: content[: len(content) // 2],
    "a flipped bit": _flipped(0.5),
    "a flipped bit near the end": _flipped(0.97),
    "emptied": lambda content: b"",
    "missing": lambda content: None,
    "a list": lambda content: b"[]",
    "an object": lambda content: b"{}",
    "not UTF-8": lambda content: b"\xff\xfe\x00" + content,
}

#: Every so many ways of damaging a file are tried, others of the next one; ENGRAMLAB_DAMAGE_STEP=1 tries all (half an hour).
_STEP = int(os.environ.get("ENGRAMLAB_DAMAGE_STEP", "4"))

#: At which calls the runs are interrupted: checkpoints, measured parts, chunks and finished stages are there.
INTERRUPTED = {
    "extraction": 340,
    "acquisition": 500,
    "acquisition of a checkpoint": 260,
    "single edits": 60,
    "continual edits": 150,
    "probing": 150,
    "token overfitting": 60,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_inputs(tmp_path_factory.mktemp("inputs"))


def outcome(name: str, inputs: Path, out: Path, whole: str) -> str:
    """ "same", or what the run was refused with. Where that says what to remove it is done, until the run goes through."""
    said = ""
    for _ in range(4):
        refused = _refused(lambda: numbers(RUNS[name](inputs, out)), whole)
        if refused is None:
            return said or "same"
        assert refused != said, f"advice that does not help: {said}"
        assert "\n" not in refused
        said = refused
        advice = re.search(rf"remove ({re.escape(str(out))}\S*?),?(?: |$)", said) or re.search(
            rf"({re.escape(str(out))}\S*) is .*; remove it", said
        )
        if advice is None:
            assert "choose another --out" in said
            return said
        writing.clear(Path(advice[1]))
    raise AssertionError(f"advice without end: {said}")


def _refused(run: Callable[[], str], whole: str) -> str | None:
    try:
        found = run()
    except UserError as error:
        return str(error)
    assert found == whole, "other numbers"
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERRUPTED)
def test_every_file_of_an_interrupted_run_damaged(name: str, inputs: Path, tmp_path: Path) -> None:
    whole = numbers(RUNS[name](inputs, tmp_path / "whole"))
    assert killed(lambda: RUNS[name](inputs, tmp_path / "run"), tmp_path / "run", INTERRUPTED[name])
    shutil.copytree(tmp_path / "run", tmp_path / "broken")
    files = [path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    for number, file in enumerate(sorted(files)):
        for damage, change in list(DAMAGES.items())[number % _STEP :: _STEP]:
            shutil.rmtree(tmp_path / "run")
            shutil.copytree(tmp_path / "broken", tmp_path / "run")
            content = (
                change((tmp_path / "run" / file).read_bytes()) if (tmp_path / "run" / file).stat().st_size else b"["
            )
            if content is None:
                (tmp_path / "run" / file).unlink()
            else:
                (tmp_path / "run" / file).write_bytes(content)
            try:
                outcome(name, inputs, tmp_path / "run", whole)
            except Exception as error:
                raise AssertionError(f"{file}, {damage}") from error
