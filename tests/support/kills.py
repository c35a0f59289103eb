"""A process killed inside its k-th call of the file system, for every k: what a rerun must bear."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CALLS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def killed(work: Callable[[], Any], root: Path, at: int) -> bool:
    """Does ``work()`` in a forked process that ends, without another instruction, as it is about to make its call number ``at``
    (from 1) that changes something under ``root``. Returns False where it makes fewer and ends well.

    Raises:
        AssertionError: it ended with an exception.
    """
    child = os.fork()
    if not child:
        try:
            _die_at(root, at)
            work()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), f"ended with exit code {code}"
    return code == 9


def every_kill(work: Callable[[], Any], root: Path, step: int = 1, first: int = 1) -> Iterator[int]:
    """Kills ``work()`` inside every ``step``-th call in turn, as often as there are calls; yields its number."""
    at = first
    while killed(work, root, at):
        yield at
        at += step
    assert at > first, "it never changed anything"


def _die_at(root: Path, at: int) -> None:
    left = at
    inside = str(root.resolve())

    def counted(path: Any) -> None:
        nonlocal left
        if isinstance(path, (str, bytes, os.PathLike)):
            name = os.fsdecode(path)
            if os.path.isabs(name) and not os.path.realpath(os.path.dirname(name)).startswith(inside):
                return  # a relative name is one inside a folder that is being removed
        left -= 1
        if not left:
            os._exit(9)

    def watch(event: str, given: tuple[Any, ...]) -> None:
        if event in _CALLS or (event == "open" and isinstance(given[2], int) and given[2] & _WRITES):
            counted(given[0])

    fsync = os.fsync

    def synced(file: int) -> None:
        counted(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    os.fsync = synced
    sys.addaudithook(watch)
