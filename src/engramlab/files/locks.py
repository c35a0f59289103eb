"""Where output goes, and that one process at a time makes or changes it, whether it exists yet or not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.files import writing
from engramlab.files.writing import room

_NAME = 255 - 40  # bytes: most file systems' names, less what is put behind one while it is unfinished
_PATH = 4096 - 512
_LOCK = ".lock"
_held: dict[tuple[int, int, str], int] = {}  # by process, thread and place: how often it is held


def place(out: str | Path, *, folder: bool = True) -> Path:
    """Where output goes: what the user gave, with ``~`` and a link that it is resolved.

    Args:
        folder: is it to be a folder, not a file?

    Raises:
        UserError: output cannot go there: a name too long, a user there is not, a file where a folder should be, no right to
            write. Nothing is made.
    """
    try:
        path = Path(out).expanduser()
    except RuntimeError as error:
        raise _nowhere(out, str(error).rstrip(".")) from None
    if "\0" in str(path):
        raise _nowhere(repr(str(out)), "a name cannot hold a zero byte")
    if os.path.islink(path):
        path = path.resolve()
    there = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    for long, most in ((max(len(os.fsencode(name)) for name in path.parts or "."), _NAME), (len(bytes(path)), _PATH)):
        if long > most and there != path:
            raise _nowhere(f"{str(path)[:60]}…", f"{long} bytes are too long for a name, at most {most} will do")
    if there == path and not folder:
        if path.is_dir():
            raise _nowhere(path, "it is a folder: give a file name")
        there = path.absolute().parent
    if not there.is_dir():
        raise _nowhere(path, f"{'it' if there == path else there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _nowhere(path, f"{'it' if there == path else there} may not be written to")
    return path


def _nowhere(out: object, why: str) -> UserError:
    return UserError(f"cannot write {out} ({why}); choose another place with --out")


def vacant(folder: Path) -> bool:
    """Is nothing there, or a folder with nothing in it but what an attempt that was killed left?"""
    if not folder.is_dir():
        return not os.path.lexists(folder)
    return all(path.name == _LOCK or writing.is_unfinished(path) for path in folder.iterdir())


@contextlib.contextmanager
def held(folder: Path, instead: str = "", *, make: bool = False) -> Iterator[None]:
    """Inside the block no other process makes, fills or changes this place, whether it exists yet or not.

    What a process that is dead now left beside it unfinished is finished or removed first. Whoever holds it already enters
    the block at once. On systems and file systems without locks nothing is held.

    Args:
        instead: what else than to wait the user could do, for the message.
        make: makes the folder, and does not enter again.

    Raises:
        UserError: another process holds it, it cannot be written to, or its lock is a link.
    """
    there = Path(os.path.realpath(folder))
    key = os.getpid(), threading.get_ident(), str(there)
    refusal = UserError(f"{folder} is in use by another process; wait for it{instead}")
    if make and key in _held:
        raise refusal
    with contextlib.ExitStack() as holds:
        _held[key] = _held.get(key, 0) + 1
        holds.callback(_let_go, key)
        if _held[key] == 1:
            beside = holds.enter_context(contextlib.ExitStack())
            if not there.is_dir():  # what does not exist is held by a file beside it
                with room(folder):
                    there.parent.mkdir(parents=True, exist_ok=True)
                beside.enter_context(_locked(there.with_name(f".{there.name}{_LOCK}"), refusal, keep=False))
                if make:
                    with room(folder):
                        there.mkdir(exist_ok=True)
            if there.is_dir():
                holds.enter_context(_locked(there / _LOCK, refusal, keep=True))
                beside.close()
            writing.tidy(*writing.unfinished(there))
        yield


def _let_go(key: tuple[int, int, str]) -> None:
    _held[key] -= 1
    if not _held[key]:
        del _held[key]


@contextlib.contextmanager
def _locked(path: Path, refusal: UserError, *, keep: bool) -> Iterator[None]:
    """Holds a lock file, which is neither read nor written; it goes again where it is not to be kept."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    while True:
        with room(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise refusal from None
        except OSError:  # no locks on this file system
            break
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), os.lstat(path)):
                break
        os.close(file)  # who held it removed it meanwhile
    try:
        yield
    finally:
        if not keep:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(file)
