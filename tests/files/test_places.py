"""Where output goes: refused in one sentence, held by one process at a time, whole or absent whenever a process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.kills import every_kill

from engramlab.base.errors import UserError
from engramlab.files import locks, writing

HOLD = """
import sys, time
from pathlib import Path
from engramlab.base.errors import UserError
from engramlab.files import locks, writing
out = Path(sys.argv[1])
try:
    with locks.held(out):
        print("holds", flush=True)
        sys.stdin.readline()
        if not locks.vacant(out):
            raise UserError("there is something")
        writing.write_folder(out, lambda folder: (folder / "from").write_text(sys.argv[2]))
        print("made", flush=True)
except UserError as error:
    print(error, flush=True)
"""


def maker(out: Path, name: str) -> subprocess.Popen[str]:
    """A process that makes a place, once it is told to."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("there", [False, True], ids=["a new place", "an empty folder"])
def test_of_two_processes_one_makes_a_place(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)
    first = maker(out, "first")
    assert first.stdout is not None
    assert first.stdout.readline() == "holds\n"
    said, _ = maker(out, "second").communicate("\n")
    assert said == f"{out} is in use by another process; wait for it\n"
    said, _ = first.communicate("\n")
    assert said == "made\n"
    assert (out / "from").read_text() == "first"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    said, _ = maker(out, "third").communicate("\n")
    assert said == "holds\nthere is something\n"


def test_a_place_is_held_once_a_process_and_free_afterwards(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locks.held(out), locks.held(out):
        assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError), locks.held(out, make=True):
        raise RuntimeError
    assert locks.vacant(out)


def test_what_a_dead_process_left_is_tidied_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f"out.{process}-0123abcd.partial").mkdir()
        (tmp_path / f"out.v2.{process}-0123abcd.partial").mkdir()  # of another place
    with locks.held(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"out.{os.getppid()}-0123abcd.partial", *(f"out.v2.{p}-0123abcd.partial" for p in (dead.pid, os.getppid()))]
    )


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    folder = tmp_path / "from elsewhere"
    folder.mkdir()
    for name in (".lock", "value.json", "folder"):
        (folder / name).symlink_to(notes)
    with pytest.raises(UserError, match=r"\.lock is a link, and nothing is written through links; remove it"):
        locks.held(folder).__enter__()
    writing.write_json(folder / "value.json", 1)
    writing.write_folder(folder / "folder", lambda path: None)
    assert notes.read_text() == "mine"
    assert not (folder / "value.json").is_symlink()
    assert (folder / "folder").is_dir()
    (folder / "link").symlink_to(tmp_path)
    writing.clear(folder / "link")
    assert notes.read_text() == "mine"
    assert not (folder / "link").is_symlink()


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("~nobody-of-that-name/x", "home directory|no such user"),
        ("runs/" + "x" * 300, "300 bytes are too long for a name"),
        ("runs/" + "x" * 250, "250 bytes are too long for a name"),
        ("é" * 120, "240 bytes are too long for a name"),
        ("/".join(["deep"] * 1000), "4999 bytes are too long for a name"),
        ("notes.txt", "it is no folder"),
        ("notes.txt/x", "notes.txt is no folder"),
        ("a\0b", "zero byte"),
        ("/proc/x", "may not be written to"),
    ],
)
def test_where_output_cannot_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, why: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    if out.startswith("/proc") and os.access("/proc", os.W_OK):
        pytest.skip("who may write anywhere")
    with pytest.raises(UserError, match=f"^cannot write .*({why}).*; choose another place with --out$"):
        locks.place(out)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_output_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locks.place("~/a/b") == tmp_path / "a" / "b"
    assert locks.place("x") == Path("x")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert locks.place(tmp_path / "link") == tmp_path / "disk"
    assert locks.place(tmp_path / "page.html", folder=False) == tmp_path / "page.html"
    with pytest.raises(UserError, match="it is a folder: give a file name"):
        locks.place(tmp_path / "disk", folder=False)


# killed ---------------------------------------------------------------------------------------------------------------


def holding(folder: Path) -> list[str]:
    return sorted(f"{path.name}={path.read_text()}" for path in folder.iterdir())


def test_a_folder_that_is_replaced_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"

    def write(value: str) -> None:
        def fill(path: Path) -> None:
            for name in "ab":
                (path / name).write_text(value)

        writing.write_folder(folder, fill)

    seen = set()
    write("old")
    for _ in every_kill(lambda: write("new"), tmp_path):
        writing.tidy(*tmp_path.iterdir())
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
        found = holding(folder)
        assert found in (["a=old", "b=old"], ["a=new", "b=new"])
        seen.add(found[0])
        write("old")
    assert seen == {"a=old", "a=new"}


def test_a_folder_that_is_removed_is_whole_or_gone(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def write() -> None:
        writing.write_folder(folder, lambda path: [(path / name).write_text("x") for name in "abc"])

    write()
    for _ in every_kill(lambda: writing.clear(folder), tmp_path):
        writing.tidy(*tmp_path.iterdir())
        assert [path.name for path in tmp_path.rglob("*")] in ([], ["model", "a", "b", "c"]) or holding(folder) == [
            "a=x",
            "b=x",
            "c=x",
        ]
        write()
