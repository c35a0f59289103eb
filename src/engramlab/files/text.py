"""The text of other people's files: unpacked, decoded, and looked at before it is used.

    for number, line in lines(Path("a.jsonl.gz")): ...
    values = json_of(line)

Nothing here takes a size on trust: lines, whole files and nesting have limits, so that a file that unfolds to more than
anybody meant is refused and not tried.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from engramlab.base.errors import UserError

PACKED = (".gz", ".zst")
LINE = 1 << 24  # bytes of a line
WHOLE = 1 << 29  # bytes of a file that is read whole
CELL = 1_000_000  # characters of a cell, a name, a prompt
DEEPEST = 100  # lists and objects inside each other

_HALF = re.compile("[\ud800-\udfff]")


def kind_of(path: Path) -> str:
    """What a file is by its ending, in lower case and without ``.gz`` or ``.zst``."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, which must be UTF-8 (a byte order mark is dropped); packed or not.

    Raises:
        UserError: the file cannot be read or unpacked, or a line is not UTF-8, has a NUL or is longer than ``LINE``.
    """
    before = number = 0
    try:
        with _opened(path) as file:
            while raw := file.readline(LINE + 1):
                number += 1
                if len(raw) > LINE:
                    raise UserError(
                        f"{path}, line {number}: is longer than {LINE >> 20} MB; break it into lines, or records, of its own"
                    )
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    byte = f"byte {before + error.start} (0x{raw[error.start]:02x})"
                    raise UserError(f"{path}, line {number}: {byte} is not UTF-8; save the file as UTF-8") from None
                if "\0" in text:
                    raise UserError(f"{path}, line {number}: holds a NUL character; is it a text file?")
                if number == 1 and text.startswith("version https://git-lfs"):
                    raise UserError(
                        f"{path} is a Git LFS pointer, not the data it stands for; fetch that with `git lfs pull`"
                    )
                yield number, text
                before += len(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: str | Path) -> str:
    """A text file whole, as ``lines`` reads it but with lines of any length, up to ``WHOLE`` bytes. Raises UserError."""
    path = Path(path).expanduser()
    try:
        with _opened(path) as file:
            raw = file.read(WHOLE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > WHOLE:
        raise UserError(
            f"{path}: is larger than {WHOLE >> 20} MB, too much to be read whole; write JSON lines or Parquet, or split it"
        )
    try:
        text = raw.decode("utf-8-sig")
        if "\0" not in text and not text.startswith("version https://git-lfs"):
            return text
    except UnicodeDecodeError:
        pass
    for _ in lines(path):  # which knows the words for what is wrong, and the line
        pass
    raise UserError(f"{path}: holds a NUL character, or is not UTF-8; save it as UTF-8 text")


def json_of(text: str) -> Any:
    """Parsed JSON; raises ValueError, also for what is nested deeper than ``DEEPEST``."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST}") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [
            one
            for held in level
            for one in (held.values() if isinstance(held, dict) else held if isinstance(held, list) else ())
            if isinstance(one, dict | list)
        ]
        if not level:
            return value
    raise ValueError(f"nested deeper than {DEEPEST}")


def wrong_with(text: str, most: int = CELL) -> str:
    """Why a text cannot be used, as messages end; empty where it can."""
    if len(text) > most:
        return f"is {len(text):,} characters long; at most {most:,} can be used"
    if "\0" in text:
        return "holds a NUL character; leave it out"
    if _HALF.search(text):  # no tokenizer takes it
        return "holds half of a surrogate pair; it must be valid Unicode text"
    return ""


def _opened(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path)  # type: ignore[return-value]
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        packed: Any = pa.CompressedInputStream(path.open("rb"), "zstd")
        return io.BufferedReader(packed)
    return path.open("rb")
