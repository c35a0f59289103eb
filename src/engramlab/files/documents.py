"""Documents of a text stream: files, a folder of them, or a data set of the hub, read one after another.

    for text in documents("corpus/*.parquet"): ...

What kind a file is its ending says: ``.txt`` and ``.md`` (cut at blank lines into documents of about 4,000 characters),
``.jsonl`` and ``.ndjson`` (one object or string a line), ``.parquet``. ``hub:owner/name`` streams the training part of a data
set, ``hub:owner/name:config`` that of one of its configurations.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError

KINDS = (".txt", ".md", ".jsonl", ".ndjson", ".parquet")
CHARACTERS = 4_000  # of a document made from paragraphs of a plain text


def check_source(source: str) -> None:
    """Raises UserError if ``source`` is nothing that ``documents`` reads; opens no file."""
    if not source.startswith("hub:"):
        _files(source)


def documents(source: str, column: str = "text") -> Iterator[str]:
    """The documents of a source that are not blank, in their order.

    Args:
        source: a file, a folder, a pattern such as ``texts/*.txt``, or ``hub:owner/name[:config]``.
        column: of JSON lines, Parquet and hub data sets.

    Raises:
        UserError: nothing there, a kind of file not known, a file that cannot be read, or no such column.
    """
    if source.startswith("hub:"):
        yield from _hub(source, column)
        return
    for path in _files(source):
        for text in _of_file(path, column):
            if text.strip():
                yield text


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in KINDS and p.is_file())
        if not found:
            raise UserError(f"stream {source}: the folder holds no {', '.join(KINDS)} file")
        return found
    found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not found:
        raise UserError(
            f"stream {source}: no such file; give a file, a folder, a pattern, hub:owner/name, or fictional"
        )
    for one in found:
        if one.suffix.lower() not in KINDS:
            raise UserError(f"stream {one}: cannot read a file that ends in {one.suffix!r}; use {', '.join(KINDS)}")
    return found


def _of_file(path: Path, column: str) -> Iterator[str]:
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            yield from _parquet(path, column)
            return
        with path.open(encoding="utf-8") as file:
            yield from (_json_lines(file, path, column) if kind in (".jsonl", ".ndjson") else _plain(file))
    except UnicodeDecodeError as error:
        raise UserError(f"stream {path}: is not UTF-8 (byte {error.start}); convert it first") from None
    except OSError as error:
        raise UserError(f"stream {path}: cannot be read ({error.strerror or error})") from None


def _plain(lines: Any) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= CHARACTERS and not line.strip():
            yield "".join(held).strip()
            held, size = [], 0
    if size:
        yield "".join(held).strip()


def _json_lines(lines: Any, path: Path, column: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"stream {path}, line {number}: not JSON ({error})") from None
        if isinstance(value, dict):
            if column not in value:
                raise UserError(
                    f"stream {path}, line {number}: has no key {column!r}; it has {', '.join(map(str, value))}; name "
                    "the text's with --column"
                )
            value = value[column]
        if not isinstance(value, str):
            raise UserError(f"stream {path}, line {number}: must be a text, not {type(value).__name__}")
        yield value


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise UserError(
                f"stream {path}: has no column {column!r}; it has {', '.join(file.schema_arrow.names)}; name the text's "
                "with --column"
            )
        for batch in file.iter_batches(1024, columns=[column]):
            for value in batch.column(0).to_pylist():
                if isinstance(value, str):
                    yield value
    except pa.ArrowException as error:
        raise UserError(f"stream {path}: is no Parquet file that can be read ({error})") from None


def _hub(source: str, column: str) -> Iterator[str]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"stream {source}: reading a data set of the hub needs `pip install datasets`") from None
    _, name, *config = source.split(":")
    try:
        rows = load_dataset(name, *config, split="train", streaming=True)
        for row in rows:
            if column not in row:
                raise UserError(
                    f"stream {source}: has no column {column!r}; it has {', '.join(row)}; name the text's with --column"
                )
            if isinstance(row[column], str) and row[column].strip():
                yield row[column]
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"stream {source}: cannot be read from the hub ({first})") from error
