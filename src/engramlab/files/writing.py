"""Files and folders that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from engramlab.base.errors import UserError

PARTIAL, WHOLE = "partial", "whole"  # what is being written; a folder that is, and has not yet taken its place
_UNFINISHED = re.compile(rf"(?P<of>.+)\.(?P<process>\d+)-[0-9a-f]{{8}}\.(?P<state>{PARTIAL}|{WHOLE})")


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into one clear sentence."""
    try:
        yield
    except Exception as error:  # safetensors reports a full disk as its own error type
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise UserError(
                f"the disk is full while writing {path}; free some space and run the same command again"
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link, and nothing is written through links; remove it") from None
        raise UserError(f"cannot write {path} ({error.strerror or error}); choose another place with --out") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; it takes the place of ``path`` once the block ends well.

    Its name is this process's own, so that two never write into one, and ``path`` is replaced, never followed where it is a
    link. An older file goes in the same moment. An older folder cannot: the new one, flushed, is called ``NAME.….whole``
    first, the old one moves out of its way and is removed last, and where the process is killed in between ``tidy`` goes on.

    Raises:
        UserError: the disk is full, or the place cannot be written to; ``path`` then is what it was.
    """
    partial = _beside(path, PARTIAL)
    with room(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _flush(partial)
            if partial.is_dir() and os.path.lexists(path):
                whole = _beside(path, WHOLE)
                os.replace(partial, whole)
                _settle(whole, path)
            else:
                os.replace(partial, path)
            _flush_folder(path.parent)
        finally:
            clear(partial)


def cache_folder() -> Path:
    """Where what was computed once is kept: $ENGRAMLAB_CACHE, or engramlab in the user's cache folder ($XDG_CACHE_HOME, or
    ~/.cache)."""
    own, shared = os.environ.get("ENGRAMLAB_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{shared}/engramlab").expanduser()


def _beside(path: Path, state: str) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.{state}")


def _settle(whole: Path, path: Path) -> None:
    """Puts a folder that is whole and flushed in the place of an older one, which is removed last."""
    try:
        old = _beside(path, PARTIAL)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, old)
        os.replace(whole, path)
    except OSError:
        if not os.path.lexists(path):
            os.replace(old, path)
        clear(whole)
        raise
    clear(old)


def tidy(*paths: Path) -> None:
    """Finishes or removes what processes that are dead now left unfinished, by its name: ``….partial`` and ``….whole``.

    Ask it only of what no other process can be changing.
    """
    for path in paths:
        name = _UNFINISHED.fullmatch(path.name)
        if name is None:
            if path.suffix == f".{PARTIAL}":  # of an older engramlab
                clear(path)
        elif not _lives(int(name["process"])):
            if name["state"] == WHOLE:
                with room(path):
                    _settle(path, path.with_name(name["of"]))
            else:
                clear(path)


def is_unfinished(path: Path) -> bool:
    """Is this, by its name, a file or folder that never took its place?"""
    return _UNFINISHED.fullmatch(path.name) is not None


def unfinished(path: Path) -> list[Path]:
    """What was written for ``path`` and never took its place."""
    found = []
    with contextlib.suppress(OSError):
        for other in path.parent.iterdir():
            name = _UNFINISHED.fullmatch(other.name)
            if name is not None and name["of"] == path.name:
                found.append(other)
    return found


def _lives(process: int) -> bool:
    """Is there such a process, another one than this?"""
    if os.name == "nt":  # where asking would be a signal
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return process != os.getpid()


def _flush(path: Path) -> None:
    inside = path.is_dir()
    for each in [path, *path.rglob("*")] if inside else [path]:
        if each.is_dir():
            _flush_folder(each)
        else:
            if inside:  # as the umask says, like the folder; safetensors lets its owner alone read a file
                each.chmod(path.stat().st_mode & 0o666)
            with each.open("rb") as written:
                os.fsync(written.fileno())


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system has this
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def clear(*paths: Path) -> None:
    """Removes files and folders, whatever is left of them; a link goes, not what it leads to.

    Whoever is killed meanwhile leaves a folder whole or, under its own name, none.
    """
    for path in paths:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        gone = path
        if path.suffix != f".{PARTIAL}":
            gone = _beside(path, PARTIAL)
            try:
                os.replace(path, gone)
            except OSError:
                gone = path
        shutil.rmtree(gone, ignore_errors=True)


def open_own(path: Path, mode: str) -> IO[bytes]:
    """A file opened for writing, in a binary mode, unless it is a link: what lies elsewhere is not ours."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)

    return cast("IO[bytes]", open(path, mode, opener=opener))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it holds either its old content or all of the new. Raises UserError when the disk is full."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """``write_bytes`` of text as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """``write_text`` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Calls ``write`` on a temporary folder beside ``folder``, flushes its files and renames it; replaces an older one."""
    with replacing(folder) as partial:
        partial.mkdir()
        write(partial)


def name_of(text: str) -> str:
    """A folder's name for any text: its letters and digits, and where that is not all of it a digest, so that two texts never
    have the same and none leads elsewhere."""
    plain = re.sub(r"[^\w-]+", "_", text)[:60].strip("_")
    return plain if plain == text else f"{plain}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def read_json(path: Path, remedy: str = "remove it to start that part again") -> Any:
    """Parsed JSON; raises UserError for a damaged file, with what can be done about it."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON (line {error.lineno}: {error.msg}); {remedy}") from error
    except RecursionError:
        raise UserError(f"{path} is not JSON that can be read (nested too deep); {remedy}") from None
