"""Whether files that somebody named are still what they were: a digest of what is in them, cheap for large ones."""

from __future__ import annotations

import glob
import hashlib
import json
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files import hub

WHOLE = 256 << 20  # bytes up to which everything is read
PLACES, BLOCK = 256, 4096  # where larger files are looked at, evenly spread from the first byte to the last
_RUN = (
    "config.json",
    "*/*/model/*",
)  # of a run's folder, what others read: its report and its metrics are nobody's input


def digest(source: Any, apart: Path | None = None) -> str | None:
    """A name of what is in a file, a folder, or the files of a pattern: 16 hexadecimal digits.

    Sizes, names inside a folder, and the bytes: all of them up to `WHOLE` together, of more than that `PLACES` blocks a file.

    Args:
        source: a path, or what an option takes in its place: a hub's name, a named size.
        apart: a folder whose files do not count (that of the run itself).

    Returns:
        None where the source is no file here.

    Raises:
        UserError: a file that cannot be read.
    """
    name = str(source)
    if not name or name.startswith(hub.PREFIX):
        return None
    root = Path(name).expanduser()
    files = sorted(path for path in _files(root) if apart is None or not path.is_relative_to(apart))
    if not files:
        return None
    try:
        sizes = [path.stat().st_size for path in files]
        made = hashlib.blake2b(digest_size=8)
        for path, size in zip(files, sizes, strict=True):
            inside = str(path.relative_to(root)) if root.is_dir() else ""
            made.update(f"{inside}\0{size}\0".encode(errors="surrogateescape"))
            with path.open("rb") as file:
                if sum(sizes) <= WHOLE:
                    made.update(hashlib.file_digest(file, "blake2b").digest())
                    continue
                for place in range(PLACES):
                    file.seek(max(0, size - BLOCK) * place // (PLACES - 1))
                    made.update(file.read(BLOCK))
    except OSError as error:
        raise UserError(f"{error.filename or name}: cannot be read: {error.strerror or error}") from None
    return made.hexdigest()


def _files(root: Path) -> list[Path]:
    try:
        if root.is_file():
            return [root]
        if not root.is_dir():
            return [path for found in glob.glob(str(root), recursive=True) if (path := Path(found)).is_file()]
        patterns = _RUN if _is_run(root) else ("**/*",)
        found = (path for pattern in patterns for path in root.glob(pattern))
        return [path for path in found if path.is_file() and not _passing(path.relative_to(root))]
    except OSError:  # such as a name that is too long
        return []


def _passing(path: Path) -> bool:
    """Is this a lock, a cache, or what a killed process left?"""
    return any(part.startswith(".") or part.endswith(".partial") for part in path.parts)


def _is_run(folder: Path) -> bool:
    try:
        about = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and "experiment" in about
