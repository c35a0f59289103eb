"""The contract of experiments, held by every file in experiments; and the scaffold that they stand on."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tests.support.documented import undocumented

from engramlab import experiments
from engramlab.base.errors import UserError
from engramlab.experiments._run import Run
from engramlab.files import records

NAMES = experiments.names()


def inside(config: Any) -> list[type]:
    """The dataclasses of a config and of what it holds, once each, without those made from others."""
    found: dict[type, None] = {type(config): None}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= dict.fromkeys(inside(value))
    return [kind for kind in found if kind.__name__ != "Hyperparameters"]


def test_the_scaffold_is_no_experiment() -> None:
    assert "-run" not in NAMES
    assert "run" not in NAMES
    with pytest.raises(UserError, match="did you mean 'knowledge-capacity'"):
        experiments.load("knowledge-capacty")


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name: str) -> None:
    module = experiments.load(name)
    assert f"engramlab run {name}" in module.__doc__
    assert list(inspect.signature(module.run).parameters) == ["config", "out", "preset", "console"]
    assert "tiny" in module.PRESETS
    for config in module.PRESETS.values():
        assert type(config) is module.Config
        assert isinstance(config.seed, int)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.seed = 1
    for kind in inside(module.Config()):
        assert undocumented(kind) == [], kind


def scaffold(folder: Path, **more: Any) -> Run:
    return Run("nothing", {"seed": 3} | more, folder, console=Console(quiet=True))


def test_a_run_that_is_refused_before_its_first_result_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights"), scaffold(tmp_path / "run"):
        raise UserError("no weights")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="a loss"), scaffold(tmp_path / "run") as run:
        (run.folder / "part").mkdir()
        raise UserError("a loss")
    with pytest.raises(UserError, match="no weights"), scaffold(tmp_path / "run") as run:
        raise UserError("no weights")
    assert (tmp_path / "run" / "part").exists()


def test_nothing_is_written_before_the_run_begins(tmp_path: Path) -> None:
    run = scaffold(tmp_path / "run")
    assert not run.resumed
    assert not (tmp_path / "run").exists()
    with run:
        assert (tmp_path / "run" / "config.json").exists()
        with pytest.raises(UserError, match="in use"), scaffold(tmp_path / "run"):
            pass
    again = scaffold(tmp_path / "run")  # given free
    assert again.resumed
    with pytest.raises(UserError, match="another config"):
        scaffold(tmp_path / "run", seed=4)


def test_a_run_that_failed_gives_its_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scaffold(tmp_path / "run"):
        _ = 1 / 0
    with scaffold(tmp_path / "run") as run:
        assert run.resumed


def test_the_tokenizer_is_trained_once(tmp_path: Path) -> None:
    texts = ["one two three", "three two one"]
    run = scaffold(tmp_path / "run")
    first = run.scratch_tokenizer(lambda: texts, 300)
    assert not (tmp_path / "run").exists()
    with run:
        pass

    def again() -> list[str]:
        raise AssertionError("it has a tokenizer")

    second = scaffold(tmp_path / "run").scratch_tokenizer(again, 300)
    assert second.get_vocab() == first.get_vocab()
    with pytest.raises(UserError, match="`--tokenizer compact` trains one"):
        scaffold(tmp_path / "run").scratch_tokenizer(again, 300, chosen="./nowhere")


def test_the_summary_says_what_it_is_of(tmp_path: Path) -> None:
    run = Run("nothing", SimpleNamespace(seed=3), tmp_path / "run", recorded=lambda _: {"seed": 3})
    with run:
        summary = run.finish(seconds=1.23, rows=[{"a": 1}])
    assert summary == {"experiment": "nothing", "seed": 3, "seconds": 1.2, "rows": [{"a": 1}]}
    assert records.read_record(tmp_path / "run" / "summary.json") == summary
