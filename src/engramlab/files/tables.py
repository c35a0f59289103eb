"""Rows of named columns from anything: CSV, TSV, JSON, JSON lines, Parquet, each also packed, the hub, a table in memory.

    for record in records("edits.json"): record.value, record.place      # whatever stands there
    read_table("facts.csv").column("capital")                            # columns of clean text

Whatever is wrong is refused with its place: the line in text formats, else the record's number from 1. What nobody asks for is
not looked at.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError, listed, nearest, note, quoted
from engramlab.files import hub, parquet
from engramlab.files.parquet import Unreadable
from engramlab.files.text import json_of, kind_of, lines, read_text, wrong_with

KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
#: An object with one of these keys is a record itself, whatever lists are in it; another may be a wrapper around a list.
_OF_A_RECORD = {"prompt", "edit", "requested_rewrite", "src", "text", "train_context"}
_NO_NAME = re.compile(r"(Unnamed: \d+)?")  # of a column: what pandas calls one that had no name
_NUMBER = re.compile(r"\d*")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `value` is an object, or anything else if the file is wrong there.

    `place` helps to find it ("line 7", or "" where its number is all there is); `broken` says why it could not be read.
    """

    value: object
    place: str = ""
    broken: str = ""


def source_name(source: object) -> str:
    """What messages call a source."""
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def records(
    source: object, *, held: bool = True, whole: Callable[[dict[str, Any]], bool] = lambda value: False
) -> Iterator[Record]:
    """The records of a source, in its order. JSON lines and Parquet are read as they are asked for, other files at once.

    Args:
        source: a path, ``hub:owner/name[:file or split]``, a pandas data frame or an Arrow table.
        held: they are all kept in memory, so a file with far too many is refused at once.
        whole: is an object that is all of a JSON file a record itself, and no wrapper around a list of them?

    Raises:
        UserError: there is no such file, it is none of these, or the hub cannot be reached.
    """
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        found = hub.fetched(source, KINDS)
        if isinstance(found, Path):
            return records(found, held=held, whole=whole)
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
        return map(Record, parquet.rows(path, most=parquet.ROWS if held else None))
    if kind == ".json":
        return _of_json(path, whole)
    return _of_csv(path, "\t" if kind == ".tsv" else None) if kind in (".csv", ".tsv") else _of_lines(lines(path))


def objects(source: object, found: Iterable[Record] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a source with their places ("line 7", "record 7"); raises UserError for one that is no object."""
    name = source_name(source)
    for number, record in enumerate(records(source) if found is None else found, 1):
        place = record.place or f"record {number}"
        if record.broken:
            raise UserError(f"{name}, {place}: {record.broken}")
        if not isinstance(record.value, dict):
            raise UserError(
                f"{name}, {place}: {quoted(record.value)} is no object with named values; write one a record"
            )
        yield place, record.value


def missing(value: object) -> bool:
    """Does a record have nothing there? Null, or the NaN that data frames put in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _in_memory(source: Any) -> Iterator[Record]:
    import pyarrow as pa

    if hasattr(source, "to_dict") and not hasattr(source, "to_pylist"):
        try:
            source = pa.Table.from_pandas(source, preserve_index=False)
        except (pa.ArrowException, TypeError, AttributeError) as error:
            raise UserError(f"{source_name(source)}: is no table with one kind of value a column ({error})") from None
    if not isinstance(source, pa.Table | pa.RecordBatch):
        raise UserError(f"{source_name(source)} is no table; give a path, a pandas data frame or an Arrow table")
    return map(Record, parquet.cells_of(pa.table(source)))


def _of_lines(numbered: Iterable[tuple[int, str]]) -> Iterator[Record]:
    for number, line in numbered:
        if line.strip():
            try:
                yield Record(json_of(line), f"line {number}")
            except ValueError as error:
                yield Record(None, f"line {number}", f"not JSON ({error}); write one object a line")


def _of_json(path: Path, whole: Callable[[dict[str, Any]], bool]) -> Iterator[Record]:
    try:
        first = list(islice(_of_lines(lines(path)), 2))
    except UserError:  # such as a whole list on one line, which may be of any length
        first = []
    if len(first) == 2 and not any(record.broken for record in first):  # JSON lines under the wrong name are common
        return _of_lines(lines(path))
    text = read_text(path)
    try:
        value = json_of(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); write a list of records, or one record a line") from None
    if isinstance(value, list):
        return map(Record, value)
    if not isinstance(value, dict) or _OF_A_RECORD & value.keys() or whole(value):
        return iter([Record(value)])
    lists = [key for key, one in value.items() if _is_table(one)]
    if len(lists) > 1:
        raise UserError(
            f"{path}: several lists of records ({listed(lists)}); write the one to use to a file of its own"
        )
    return map(Record, value[lists[0]]) if lists else iter([Record(value)])


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _of_csv(path: Path, delimiter: str | None) -> Iterator[Record]:
    text = read_text(path)
    first, _, rest = text.partition("\n")
    before = 0
    if said := re.fullmatch(r"sep=(.)\s*", first):  # written by spreadsheets, for themselves
        delimiter, text, before = said[1], rest, 1
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or _separator(text), strict=True, skipinitialspace=True
    )
    try:
        header = _header(path, before + 1, next(reader, []))
        line = before + reader.line_num + 1  # a record can take several lines: name the one it starts on
        nameless = [number for number, name in enumerate(header) if _NO_NAME.fullmatch(name)]
        for row in reader:
            if any(map(str.strip, row)):
                record = _row(path, header, row, line)
                if any(number < len(row) and row[number].strip() for number in nameless):
                    note(f"{path}: a column without a name, which numbers the rows, is passed over")
                    nameless = []
                yield record
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {before + reader.line_num}: {error}") from None


def _separator(text: str) -> str:
    """What stands between a header's names: what a spreadsheet calls CSV is separated by semicolons in half of the world."""
    bare = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    return max(",;\t", key=bare.count)


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    header = [clean(name) for name in cells]
    if not any(header):
        raise UserError(f"{path}: the first line must name the columns, and it is empty")
    named: dict[str, int] = {}
    for number, name in enumerate(header, 1):
        if name and named.setdefault(name, number) != number:
            raise UserError(
                f"{path}, line {line}: two columns are called {quoted(name)} ({named[name]} and {number}); rename one"
            )
    return header


def _row(path: Path, header: list[str], row: list[str], line: int) -> Record:
    if len(row) != len(header):
        wrong = f"{len(row)} cells, but the header has {len(header)} columns; quote cells that hold the separator"
        return Record(dict(zip(header, row, strict=False)), f"line {line}", wrong)
    value = {}
    for number, (name, cell) in enumerate(zip(header, row, strict=True), 1):
        if not _NO_NAME.fullmatch(name):
            value[name] = cell if cell.strip() else None
        elif not _NUMBER.fullmatch(cell.strip()):  # numbers of rows are passed over
            raise UserError(f"{path}, line {line}: column {number} has no name, and holds {quoted(cell)}; give it one")
    return Record(value, f"line {line}")


class _Columns(Mapping[str, list[Any]]):
    """Columns by name, made of the rows when they are asked for."""

    def __init__(self, name: str, places: list[str], rows: list[dict[str, Any]]) -> None:
        self._name, self._places, self._rows = name, places, rows
        self._names = dict.fromkeys(map(str, chain.from_iterable(rows)))
        self._made: dict[str, list[Any]] = {}

    def __getitem__(self, column: str) -> list[Any]:
        if column not in self._names:
            raise KeyError(column)
        if column not in self._made:
            self._made[column] = [
                _cell(row.get(column), f"{self._name}, {place}, column {quoted(column)}")
                for row, place in zip(self._rows, self._places, strict=True)
            ]
        return self._made[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class ColumnTable:
    """Columns of equally many cells, in the source's order; a column is looked at when it is asked for.

    name: what messages call the source.
    columns: the cells of each column as text: trimmed, white space inside collapsed, whole numbers without
        ".0". Empty where the source has nothing; a tuple of such texts where it has a list. Asking for one raises UserError for
        a cell that is neither a single value nor a list of them.
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
        return f"{self.name}, {self.places[row]}, column {quoted(column)}"

    def cells(self, name: str) -> list[Any]:
        """A column's cells, texts and tuples of them; raises UserError with the columns there are when this is none of them."""
        if name not in self.columns:
            raise UserError(
                f"{self.name}: there is no column {quoted(name)}; did you mean {quoted(nearest(name, self.columns))}? "
                f"The columns are {listed(self.columns)}"
            )
        if wrong := wrong_with(name, 1000):
            raise UserError(f"{self.name}: the name of the column {quoted(name)} {wrong}")
        return self.columns[name]

    def column(self, name: str) -> list[str]:
        """A column's cells where each is a single value; raises UserError as ``cells`` does, or for a list in a cell."""
        for row, cell in enumerate(found := self.cells(name)):
            if not isinstance(cell, str):
                raise UserError(
                    f"{self.where(row, name)}: {quoted(list(cell))} is not a single value; write text or a number"
                )
        return found

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """A column's cells as lists: those of the source, or texts split at ``|``; empty for a column that is not there."""
        return [
            tuple(dict.fromkeys(filter(None, map(clean, cell.split("|") if isinstance(cell, str) else cell))))
            for cell in (self.columns[name] if name in self.columns else [""] * len(self))
        ]


def read_table(source: object) -> ColumnTable:
    """Reads a table of clean text from whatever ``records`` takes.

    Raises:
        UserError: the file is missing, of another kind, not UTF-8, ragged, or has no rows.
    """
    name = source_name(source)
    places: list[str] = []
    rows: list[dict[str, Any]] = []
    for place, value in objects(source):
        places.append(place)
        rows.append(value)
    if not places:
        raise UserError(f"{name}: the table has no rows; write one row an entity")
    return ColumnTable(name, _Columns(name, places, rows), places)


def clean(text: str) -> str:
    """Trimmed, and white space inside collapsed."""
    return " ".join(text.split())


def _cell(value: object, where: str) -> str | tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(_scalar(one, where) for one in value)
    return _scalar(value, where)


def _scalar(value: object, where: str) -> str:
    """A cell of a typed format as text."""
    if missing(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Unreadable):
        raise UserError(f"{where}: {value.why}")
    if isinstance(value, list | dict | tuple | set):
        raise UserError(
            f"{where}: {quoted(value)} is not a single value; write text or a number, or leave the column out"
        )
    if isinstance(value, bytes):
        try:
            return clean(value.decode())
        except UnicodeDecodeError:
            raise UserError(f"{where}: the cell is not UTF-8 text") from None
    text = str(value)
    if wrong := wrong_with(text):
        raise UserError(f"{where}: the cell {wrong}")
    return clean(text)
