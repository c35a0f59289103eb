"""Files and folders that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError


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
        raise UserError(f"cannot write {path} ({error.strerror or error}); choose another place with --out") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or a folder to; it takes the place of ``path`` once the block ends well.

    Its name is this process's own, so that two never write into one. What a process that was killed leaves is called
    ``NAME.….partial``; ``clear`` removes it where no other process can be writing.

    Raises:
        UserError: the disk is full, or the place cannot be written to; ``path`` then is what it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
    with room(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            for file in [partial] if partial.is_file() else partial.rglob("*"):
                if file.is_file():
                    with file.open("rb") as written:
                        os.fsync(written.fileno())
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(partial, path)
        finally:
            clear(partial)


def cache_folder() -> Path:
    """Where what was computed once is kept: $ENGRAMLAB_CACHE, or engramlab in the user's cache folder ($XDG_CACHE_HOME, or
    ~/.cache)."""
    own, shared = os.environ.get("ENGRAMLAB_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or f"{shared}/engramlab").expanduser()


def clear(*paths: Path) -> None:
    """Removes files and folders, whatever is left of them."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as Parquet, whole or not at all. Raises UserError when the disk is full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist(list(rows)), partial, compression="zstd")


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Calls ``write`` on a temporary folder beside ``folder``, flushes its files and renames it; replaces an older one."""
    with replacing(folder) as partial:
        partial.mkdir()
        write(partial)


def read_json(path: Path) -> Any:
    """Parsed JSON; raises UserError for a damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON (line {error.lineno}: {error.msg}); remove it to start that part again"
        ) from error
