"""Files and folders that are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write into one clear sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk is full while writing {path}; free some space and run the same command again"
            ) from error
        raise UserError(f"cannot write {path} ({error.strerror or error}); choose another place with --out") from error
    except Exception as error:  # safetensors reports a full disk as its own error type
        if "No space left" in str(error):
            raise UserError(
                f"the disk is full while writing {path}; free some space and run the same command again"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a file so that it holds either its old content or all of the new. Raises UserError when the disk is full."""
    partial = path.with_name(path.name + ".partial")
    with room(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """``write_text`` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as Parquet, whole or not at all. Raises UserError when the disk is full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(path.name + ".partial")
    with room(path):
        try:
            with partial.open("wb") as file:
                pq.write_table(pa.Table.from_pylist(list(rows)), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Calls ``write`` on a temporary folder beside ``folder``, flushes its files and renames it; replaces an older one."""
    partial = folder.with_name(folder.name + ".partial")
    with room(folder):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            write(partial)
            for path in partial.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def read_json(path: Path) -> Any:
    """Parsed JSON; raises UserError for a damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not JSON (line {error.lineno}: {error.msg}); remove it to start that part again"
        ) from error
