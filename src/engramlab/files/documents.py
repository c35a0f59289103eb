"""Running text from anything: files, a folder of them, or a data set of the hub, read one document after another.

    for text in documents("corpus/*.parquet"): ...

What kind a file is its ending says: ``.txt`` and ``.md`` (cut at blank lines into documents of about 4,000 characters), or any
table of `files/tables.py`, whose records are texts or have one under a key; each also as ``.gz`` or ``.zst``. Of a folder the
files of one kind are taken, that which has most bytes; others are passed over, and a note says so. ``hub:owner/name`` streams
the training part of a data set, ``hub:owner/name:config`` that of one of its configurations.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from engramlab.base.errors import UserError, at_places, listed, note, quoted
from engramlab.files import hub, parquet, tables
from engramlab.files.tables import Record, missing
from engramlab.files.text import LINE, kind_of, lines, wrong_with

PLAIN = (".txt", ".md")
KINDS = (*PLAIN, *tables.KINDS)
#: Kinds of which a folder may hold both; JSON alone is apart from JSON lines: beside these it mostly describes them.
_TOGETHER = {".md": ".txt", ".ndjson": ".jsonl", ".tsv": ".csv"}
#: Beginnings of the names of files that are about a folder's data and no part of it.
_ABOUT = ("README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CHANGELOG", "CITATION")
CHARACTERS = 4_000  # of a document made from paragraphs of a plain text


def check_source(source: str) -> None:
    """Raises UserError if ``source`` is nothing that ``documents`` reads; opens no file."""
    if not source.startswith(hub.PREFIX):
        _files(source)


def documents(source: str, column: str = "text", *, by_line: bool = False) -> Iterator[str]:
    """The documents of a source that are not blank, in their order.

    Args:
        source: a file, a folder, a pattern such as ``texts/*.txt``, or ``hub:owner/name[:config]``.
        column: of JSON, CSV, Parquet and hub data sets.
        by_line: each line of a plain text is a document.

    Raises:
        UserError: nothing there, a kind of file not known, a file that cannot be read, or no such column.
    """
    if source.startswith(hub.PREFIX):
        yield from _texts(source, map(Record, hub.streamed(source)), column)
        return
    for path in _files(source):
        if kind_of(path) in PLAIN:
            texts = (line for _, line in lines(path))
            yield from (line.rstrip("\r\n") for line in texts if line.strip()) if by_line else _paragraphs(texts)
        elif kind_of(path) == ".parquet":
            yield from _texts(str(path), map(Record, parquet.rows(path, [column])), column)
        else:
            yield from _texts(str(path), tables.records(path, held=False), column)


def file_digest(source: str) -> str:
    """What files say, as a hexadecimal number: of one file the SHA-256 of its bytes, of several that of theirs."""
    found = []
    for path in _files(source):
        try:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not found:
        raise UserError(
            f"text {source}: cannot be read, there is no such file; give a file, a folder, a pattern or hub:owner/name"
        )
    for one in found:
        if kind_of(one) not in KINDS:
            raise UserError(f"text {one}: cannot read a file that ends in {kind_of(one)!r}; use {', '.join(KINDS)}")
    return found


def _in_folder(folder: Path) -> list[Path]:
    """The files of one kind, and a note on what is passed over."""
    every = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p.relative_to(folder)))
    kinds: dict[str, list[Path]] = {}
    for path in every:
        if kind_of(path) in KINDS and not path.name.upper().startswith(_ABOUT):
            kinds.setdefault(_kind_in_folder(path), []).append(path)
    if not kinds:
        raise UserError(
            f"text {folder}: the folder holds no {', '.join(KINDS)} file that is not about it, as a README is"
        )
    taken = max(kinds.values(), key=lambda paths: (sum(p.stat().st_size for p in paths), paths))
    left = [str(p.relative_to(folder)) for p in every if p not in set(taken)]
    if left:
        one = _kind_in_folder(taken[0])
        note(f"text {folder}: read are its {len(taken)} {one} files; passed over: {at_places(left)}")
    return taken


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind_in_folder(path: Path) -> str:
    kind = kind_of(path)
    if kind == ".json" and path.suffix != ".json":  # JSON that is packed is a shard, and has a record a line
        return ".jsonl"
    return _TOGETHER.get(kind, kind)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line.replace("\r\n", "\n"))
        size += len(held[-1])
        if size >= CHARACTERS and not line.strip():
            yield from filter(None, ["".join(held).strip()])
            held, size = [], 0
    yield from filter(None, ["".join(held).strip()])


def _texts(name: str, records: Iterable[Record], column: str) -> Iterator[str]:
    without = 0
    try:
        for number, record in enumerate(records, 1):
            place, value = record.place or f"record {number}", record.value
            if record.broken:
                raise UserError(f"text {name}, {place}: {record.broken}")
            if isinstance(value, dict):
                if column not in value:
                    raise UserError(
                        f"text {name}, {place}: has no key {quoted(column)}; it has {listed(value)}; name the text's with "
                        "--column"
                    )
                value = value[column]
            if missing(value):
                without += 1
                continue
            if not isinstance(value, str):
                raise UserError(f"text {name}, {place}: {quoted(value)} must be a text, not {type(value).__name__}")
            if wrong := wrong_with(value, LINE):
                raise UserError(f"text {name}, {place}: the text {wrong}")
            if value.strip():
                yield value
    finally:
        if without:
            note(f"text {name}: records without a text under {quoted(column)} were passed over: {without}")
