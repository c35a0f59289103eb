"""Rows of named columns from anything: CSV, TSV, JSON, JSON lines, Parquet, each also gzipped, the hub, a table in memory.

    for record in records("edits.json"): record.value, record.place      # whatever stands there
    read_table("facts.csv").column("capital")                            # columns of clean text

Whatever is wrong is refused with its place: the line in text formats, else the record's number from 1.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError, nearest
from engramlab.files import hub

KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
#: An object with one of these keys is a record itself, whatever lists are in it; another may be a wrapper around a list.
_OF_A_RECORD = {"prompt", "edit", "requested_rewrite", "src", "text", "train_context"}
_SHOWN = 60  # characters of a bad value in a message


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `value` is an object, or anything else if the file is wrong there.

    `place` helps to find it ("line 7", or "" where its number is all there is); `broken` says why it could not be read.
    """

    value: object
    place: str = ""
    broken: str = ""


def kind_of(path: Path) -> str:
    """What a file is by its ending, in lower case and without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, which must be UTF-8 (a byte order mark is dropped); gzipped or not.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8.
    """
    before = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    byte = f"byte {before + error.start} (0x{raw[error.start]:02x})"
                    raise UserError(f"{path}, line {number}: {byte} is not UTF-8; save the file as UTF-8") from None
                if number == 1 and text.startswith("version https://git-lfs"):
                    raise UserError(
                        f"{path} is a Git LFS pointer, not the data it stands for; fetch that with `git lfs pull`"
                    )
                yield number, text
                before += len(raw)
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_text(path: str | Path) -> str:
    """A text file whole, as ``lines`` reads it."""
    return "".join(text for _, text in lines(Path(path).expanduser()))


def source_name(source: object) -> str:
    """What messages call a source."""
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def records(source: object) -> Iterator[Record]:
    """The records of a source, in its order. JSON lines and Parquet are read as they are asked for, other files at once.

    Args:
        source: a path, ``hub:owner/name[:file or split]``, a pandas data frame or an Arrow table.

    Raises:
        UserError: there is no such file, it is none of these, or the hub cannot be reached.
    """
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        found = hub.fetched(source, KINDS)
        if isinstance(found, Path):
            return records(found)
        return (Record(dict(row) if isinstance(row, Mapping) else row) for row in found)
    if not isinstance(source, str | Path):
        return _in_memory(source)
    path = Path(source).expanduser()
    kind = kind_of(path)
    if path.is_dir():
        raise UserError(f"{path} cannot be read: it is a folder; name a file in it ({', '.join(KINDS)})")
    if kind not in KINDS:
        raise UserError(f"{path}: cannot read a file that ends in {kind!r}; use one of {', '.join(KINDS)}")
    if kind == ".parquet":
        return map(Record, parquet_rows(path))
    if kind == ".json":
        return iter(_of_json(path))
    return _of_csv(path, "\t" if kind == ".tsv" else None) if kind in (".csv", ".tsv") else _of_lines(lines(path))


def objects(source: object, found: Iterable[Record] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a source with their places ("line 7", "record 7"); raises UserError for one that is no object."""
    name = source_name(source)
    for number, record in enumerate(records(source) if found is None else found, 1):
        place = record.place or f"record {number}"
        if record.broken:
            raise UserError(f"{name}, {place}: {record.broken}")
        if not isinstance(record.value, dict):
            raise UserError(f"{name}, {place}: {cut(record.value)} is no object with named values; write one a record")
        yield place, record.value


def cut(value: object) -> str:
    """A value as messages quote it, at a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, or some of its columns; raises UserError for a damaged file or a column that is not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as raw, pq.ParquetFile(raw) as file:
            for column in columns or ():
                if column not in file.schema_arrow.names:
                    raise UserError(f"{path}: has no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(1024, columns=columns and list(columns)):
                yield from batch.to_pylist()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _in_memory(source: Any) -> Iterator[Record]:
    import pyarrow as pa

    if hasattr(source, "to_dict") and not hasattr(source, "to_pylist"):
        try:
            source = pa.Table.from_pandas(source, preserve_index=False)
        except (pa.ArrowException, TypeError, AttributeError) as error:
            raise UserError(f"{source_name(source)}: is no table with one kind of value a column ({error})") from None
    if not hasattr(source, "to_pylist"):
        raise UserError(f"{source_name(source)} is no table; give a path, a pandas data frame or an Arrow table")
    return map(Record, source.to_pylist())


def _of_lines(numbered: Iterable[tuple[int, str]]) -> Iterator[Record]:
    for number, line in numbered:
        if line.strip():
            try:
                yield Record(_parsed(line), f"line {number}")
            except ValueError as error:
                yield Record(None, f"line {number}", f"not JSON ({error}); write one object a line")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _of_json(path: Path) -> list[Record]:
    text = read_text(path)
    try:
        value = _parsed(text)
    except ValueError as error:
        found = list(_of_lines(enumerate(text.split("\n"), 1)))  # JSON lines under the wrong name are common
        if len(found) < 2 or any(line.broken for line in found[:2]):
            raise UserError(f"{path}: not JSON ({error}); write a list of records, or one record a line") from None
        return found
    if isinstance(value, list):
        return [Record(one) for one in value]
    if not isinstance(value, dict) or _OF_A_RECORD & value.keys():
        return [Record(value)]
    lists = [key for key, one in value.items() if _is_table(one)]
    if len(lists) > 1:
        raise UserError(
            f"{path}: several lists of records ({', '.join(lists)}); write the one to use to a file of its own"
        )
    return [Record(one) for one in value[lists[0]]] if lists else [Record(value)]


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _of_csv(path: Path, delimiter: str | None) -> Iterator[Record]:
    text = read_text(path)
    if delimiter is None:  # what a spreadsheet calls CSV is separated by semicolons in half of the world
        first = text.partition("\n")[0]
        delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        header = [clean(name) for name in next(reader, [])]
        _check_header(path, header)
        line = reader.line_num + 1  # a record can take several lines: name the one it starts on
        for row in reader:
            if row:
                wrong = (
                    f"{len(row)} cells, but the header has {len(header)} columns; quote cells that hold the separator"
                )
                value = {name: cell if cell.strip() else None for name, cell in zip(header, row, strict=False)}
                yield Record(value, f"line {line}", wrong if len(row) != len(header) else "")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise UserError(f"{path}: the first line must name the columns, and it is empty")
    for number, name in enumerate(header, 1):
        if not name:
            raise UserError(f"{path}, line 1: column {number} has no name")
        if name in header[: number - 1]:
            raise UserError(f"{path}, line 1: two columns are called {name!r}")


@dataclass(frozen=True)
class ColumnTable:
    """Columns of equally many cells, in the source's order.

    name: what messages call the source.
    columns: the cells of each column as text: trimmed, white space inside collapsed, whole numbers without
        ".0". Empty where the source has nothing; a tuple of such texts where it has a list.
    places: "line 7" or "record 7", for each row.
    """

    __repr__ = brief

    name: str
    columns: Mapping[str, list[Any]]
    places: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int, column: str) -> str:
        """How messages name a cell."""
        return f"{self.name}, {self.places[row]}, column {column!r}"

    def column(self, name: str) -> list[str]:
        """A column's cells; raises UserError with the columns there are when this is none of them, or for a list in a cell."""
        if name not in self.columns:
            raise UserError(
                f"{self.name}: there is no column {name!r}; did you mean {nearest(name, self.columns)!r}? "
                f"The columns are {', '.join(self.columns)}"
            )
        for row, cell in enumerate(self.columns[name]):
            if not isinstance(cell, str):
                raise UserError(
                    f"{self.where(row, name)}: {cut(list(cell))} is not a single value; write text or a number"
                )
        return self.columns[name]

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """A column's cells as lists: those of the source, or texts split at ``|``; empty for a column that is not there."""
        return [
            tuple(dict.fromkeys(filter(None, map(clean, cell.split("|") if isinstance(cell, str) else cell))))
            for cell in self.columns.get(name, [""] * len(self))
        ]


def read_table(source: object) -> ColumnTable:
    """Reads a table of clean text from whatever ``records`` takes.

    Raises:
        UserError: the file is missing, of another kind, not UTF-8, ragged, has no rows, or a cell that is neither a single
            value nor a list of them.
    """
    name = source_name(source)
    columns: dict[str, list[Any]] = {}
    places: list[str] = []
    for place, value in objects(source):
        for key in value:
            columns.setdefault(str(key), [""] * len(places))
        places.append(place)
        for key, cells in columns.items():
            cells.append(_cell(value.get(key), f"{name}, {place}, column {key!r}"))
    if not places:
        raise UserError(f"{name}: the table has no rows; write one row an entity")
    return ColumnTable(name, columns, places)


def clean(text: str) -> str:
    """Trimmed, and white space inside collapsed."""
    return " ".join(text.split())


def _cell(value: object, where: str) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(_scalar(one, where) for one in value)
    return _scalar(value, where)


def _scalar(value: object, where: str) -> str:
    """A cell of a typed format as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict | tuple | set):
        raise UserError(f"{where}: {cut(value)} is not a single value; write text or a number")
    if isinstance(value, bytes):
        try:
            return clean(value.decode())
        except UnicodeDecodeError:
            raise UserError(f"{where}: the cell is not UTF-8 text") from None
    return clean(str(value))
