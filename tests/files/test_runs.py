"""Run folders: refused when they are another's, and files that are whole or absent."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engramlab.base import errors
from engramlab.base.errors import UserError
from engramlab.files import locks, runs, writing
from engramlab.files.journal import Journal, read_rows
from engramlab.files.runs import RunFolder
from engramlab.files.writing import read_json, write_folder, write_json, write_text


@dataclasses.dataclass(frozen=True)
class Recipe:
    steps: int = 5
    rates: tuple[float, ...] = (0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0
    facts: Path | None = None
    pretrain: Recipe = Recipe()


def opened(folder: Path, config: Config = Config()) -> RunFolder:
    run = RunFolder(folder, "reading", config, preset="tiny")
    run.open()
    return run


# whose folder -------------------------------------------------------------------------------------------------------


def test_a_run_keeps_what_was_asked(tmp_path):
    folder = tmp_path / "a" / "run"
    run = RunFolder(folder, "reading", Config(facts=Path("x.csv")), preset="tiny")
    assert not folder.exists()  # nothing is written before it is opened
    run.open()
    record = read_json(folder / "config.json")
    assert record["config"] == {"seed": 0, "facts": "x.csv", "pretrain": {"steps": 5, "rates": [0.1, 0.2]}}
    assert (record["experiment"], record["preset"]) == ("reading", "tiny")
    assert {"python", "torch", "transformers", "engramlab"} <= record["versions"].keys()
    run.close()
    again = RunFolder(folder, "reading", Config(facts=Path("x.csv")))
    assert again.resumed
    again.open()
    again.close()
    assert read_json(folder / "config.json") == record


def test_another_config_is_refused_by_the_options_that_differ(tmp_path):
    opened(tmp_path / "run").close()
    before = (tmp_path / "run" / "config.json").read_bytes()
    changed = Config(seed=3, pretrain=Recipe(steps=6, rates=(0.1,)))
    with pytest.raises(UserError) as refusal:
        RunFolder(tmp_path / "run", "reading", changed)
    for part in (
        "pretrain.steps: 5 there, 6 now",
        "pretrain.rates: [0.1, 0.2] there, [0.1] now",
        "seed: 0 there, 3 now",
    ):
        assert part in str(refusal.value)
    assert str(refusal.value).endswith("choose another --out, or remove that folder to start over")
    with pytest.raises(UserError, match="holds a run of 'reading', not of 'writing'; choose another --out"):
        RunFolder(tmp_path / "run", "writing", Config())
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_an_option_that_did_not_exist_counts_as_its_default(tmp_path):
    opened(tmp_path / "run").close()
    path = tmp_path / "run" / "config.json"
    record = read_json(path)

    @dataclasses.dataclass(frozen=True)
    class LaterRecipe(Recipe):
        clip: float | None = 1.0

    @dataclasses.dataclass(frozen=True)
    class LaterConfig(Config):
        pretrain: Recipe = LaterRecipe()
        grid: tuple[Recipe, ...] = (Recipe(),)
        tags: list[str] = dataclasses.field(default_factory=lambda: ["a"])

    assert RunFolder(tmp_path / "run", "reading", LaterConfig()).resumed
    for later, words in (
        (LaterConfig(pretrain=LaterRecipe(clip=0.5)), "pretrain.clip: 1.0 there, 0.5 now"),
        (LaterConfig(tags=["b"]), r'tags: \["a"\] there, \["b"\] now'),
        (LaterConfig(grid=()), "grid: "),
        (LaterConfig(seed=1), "seed: 0 there, 1 now"),
    ):
        with pytest.raises(UserError, match=words):
            RunFolder(tmp_path / "run", "reading", later)
    # An option inside a list of recipes, and an option that is there but no longer exists.
    write_json(path, record | {"config": runs.plain(LaterConfig(grid=(Recipe(),)))})
    assert RunFolder(tmp_path / "run", "reading", LaterConfig(grid=(LaterRecipe(),))).resumed
    with pytest.raises(UserError, match=r'tags: \["a"\] there, null now'):
        RunFolder(tmp_path / "run", "reading", Config())


def test_folders_that_hold_something_else(tmp_path):
    for name, file, text, message in (
        ("files", "thesis.tex", "", "exists and is no run folder"),
        ("model", "config.json", '{"model_type": "gpt2"}', "is no run folder"),
        ("list", "config.json", "[]", "is no run folder"),
        ("damaged", "config.json", '{"experiment": ', r"config.json is not JSON \(line 1: "),
        ("binary", "config.json", "\udcff\udcfe", "config.json is not JSON"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text, errors="surrogateescape")
        with pytest.raises(UserError, match=message):
            RunFolder(tmp_path / name, "reading", Config())
    with pytest.raises(UserError, match="cannot write .*thesis.tex .it is no folder"):
        RunFolder(tmp_path / "files" / "thesis.tex", "reading", Config())
    with pytest.raises(UserError, match="cannot write"):
        opened(tmp_path / "files" / "thesis.tex" / "run")


def test_what_a_killed_process_leaves_behind_is_no_content(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "config.json.partial").write_text("{")
    opened(tmp_path).close()
    (tmp_path / "part" / "step-1.12-ab.partial").mkdir(parents=True)
    (tmp_path / "part" / "step-1.12-ab.partial" / "rest").touch()
    opened(tmp_path).close()
    assert read_json(tmp_path / "config.json")["experiment"] == "reading"
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".lock", "config.json", "part"]


def test_one_process_at_a_time(tmp_path):
    run = opened(tmp_path)
    code = (
        "import json, sys; from pathlib import Path; from engramlab.files.runs import RunFolder, UserError\n"
        "try: RunFolder(Path(sys.argv[1]), 'reading', json.loads(sys.argv[2])).open()\n"
        "except UserError as error: print(error)"
    )
    call = [sys.executable, "-c", code, str(tmp_path), json.dumps(runs.plain(Config()))]
    refused = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert "is in use by another process; wait for it or choose another --out" in refused
    run.close()
    opened(tmp_path).close()


# whole or absent ----------------------------------------------------------------------------------------------------


def test_a_file_is_old_or_new_but_never_half(tmp_path):
    path = tmp_path / "deep" / "value.json"
    write_json(path, {"a": "é"})
    assert read_json(path) == {"a": "é"}
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half " * 1000 + "\udc80")
    assert read_json(path) == {"a": "é"}
    assert [p.name for p in path.parent.iterdir()] == ["value.json"]


def test_a_folder_is_old_or_new_but_never_half(tmp_path):
    folder = tmp_path / "model"
    write_folder(folder, lambda f: (f / "old").write_text("old"))

    def fails(f: Path) -> None:
        (f / "new").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, fails)
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "old"]
    names = []
    for _ in range(2):  # two that write at once have a place each
        write_folder(folder, lambda f: (names.append(f.name), (f / "new").write_text("new")))
    assert len(set(names)) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model", "new"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(small_disk):
    write_text(small_disk / "kept", "kept")
    metrics = Journal(small_disk / "metrics.jsonl")
    metrics.add(step=1)
    big = "x" * 200_000
    message = "the disk is full while writing .*; free some space and run the same command again"
    for fails in (
        lambda: write_text(small_disk / "kept", big),
        lambda: write_folder(small_disk / "folder", lambda f: (f / "a").write_text(big)),
        lambda: write_folder(small_disk / "folder", lambda f: save_file({"a": torch.zeros(50_000)}, f / "a")),
    ):
        with pytest.raises(UserError, match=message):
            fails()
    assert sorted(p.name for p in small_disk.iterdir()) == ["kept", "metrics.jsonl"]
    assert (small_disk / "kept").read_text() == "kept"
    with pytest.raises(UserError, match=message):
        metrics.add(step=2, text=big)
    assert read_rows(metrics.path) == [{"step": 1}]
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)  # somebody frees some space
    metrics.rewind(1)
    metrics.add(step=2)
    assert read_rows(metrics.path) == [{"step": 1}, {"step": 2}]


def test_a_folder_that_may_not_be_written_to(small_disk):
    opened(small_disk / "run").close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for fails in (
        lambda: opened(small_disk / "run"),
        lambda: opened(small_disk / "other"),
        lambda: Journal(small_disk / "new" / "metrics.jsonl"),
        lambda: Journal(small_disk / "metrics.jsonl").add(step=1),
        lambda: write_json(small_disk / "x.json", 1),
        lambda: write_folder(small_disk / "x", lambda f: None),
    ):
        with pytest.raises(UserError, match="cannot write .*; choose another place"):
            fails()


# rows ---------------------------------------------------------------------------------------------------------------


def test_rewinding_drops_what_will_be_written_again(tmp_path):
    metrics = Journal(tmp_path / "stage" / "metrics.jsonl")
    assert read_rows(metrics.path) == []
    metrics.rewind(0)
    assert not metrics.path.exists()
    metrics.add(note="no step")
    for step in range(1, 5):
        metrics.add(step=step, loss=0.1 * step)
        metrics.add(step=step, name="Zoë\u2028O'Neil\x85")
    with metrics.path.open("a") as file:
        file.write('{"step": 2, "loss": 0.1')
    assert len(read_rows(metrics.path)) == 9
    metrics.rewind(2)
    rows = read_rows(metrics.path)
    assert [row.get("step") for row in rows] == [None, 1, 1, 2, 2]
    assert rows[2]["name"] == "Zoë\u2028O'Neil\x85"
    assert rows[3]["loss"] == 0.1 * 2
    metrics.add(step=3)
    assert read_rows(metrics.path)[-1] == {"step": 3}


def test_the_commit_is_of_our_own_checkout(tmp_path):
    if not shutil.which("git"):
        pytest.skip("needs git")
    package = tmp_path / "theirs" / ".venv" / "engramlab"
    for room in ("base", "files"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "__init__.py").touch()
    for module in (errors, locks, runs, writing):
        shutil.copy(module.__file__, package / module.__name__.split(".")[1])
    git = ["git", "-C", str(tmp_path / "theirs"), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *words], check=True)
    code = "from engramlab.files.runs import git_commit; print(git_commit())"

    def found() -> str:
        call = [sys.executable, "-c", code]
        return subprocess.run(
            call, env=os.environ | {"PYTHONPATH": str(package.parent)}, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert found() == "None"
    for words in (["add", "."], ["commit", "-q", "-m", "ours"]):
        subprocess.run([*git, *words], check=True)
    assert len(found()) == 12
    (package / "base" / "errors.py").open("a").write("\n")
    assert found()[12:] == "+"


def test_another_version_s_run_is_named_with_both_versions(tmp_path):
    with_config = dataclasses.make_dataclass("Config", [("seed", int, 0), ("steps", int, 1)], frozen=True)
    run = RunFolder(tmp_path / "run", "reading", with_config())
    run.open()
    run.close()
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    record["versions"]["engramlab"] = "0.0.9"
    record["config"]["gone"] = 7
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"gone.*written by engramlab 0\.0\.9, this is .*choose another --out"):
        RunFolder(tmp_path / "run", "reading", with_config())
    del record["config"]["gone"], record["config"]["steps"]  # an option that did not exist yet counts as its default
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    assert RunFolder(tmp_path / "run", "reading", with_config()).resumed


def test_a_no_may_become_yes_in_a_folder_where_that_is_allowed_and_never_no_again(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Asked:
        finish: bool = False
        seed: int = 0

    def opened(grows: tuple[str, ...] = ("finish",), **given: Any) -> runs.RunFolder:
        place = runs.RunFolder(tmp_path / "run", "any", Asked(**given), grows=grows)
        place.open()
        place.close()
        return place

    assert opened().previous == {}
    with pytest.raises(UserError, match="finish: false there, true now"):
        opened(grows=(), finish=True)
    assert opened(finish=True).previous == {"finish": False, "seed": 0}
    assert opened(finish=True).previous == {"finish": True, "seed": 0}
    assert writing.read_json(tmp_path / "run" / "config.json")["config"] == {"finish": True, "seed": 0}
    for wrong in ({}, {"finish": True, "seed": 1}):
        with pytest.raises(UserError, match="another config"):
            opened(**wrong)
