"""Reading a user's table: CSV, TSV, JSON lines or Parquet, as columns of clean text.

Whatever is wrong with the file is refused with its place in it: the line for text formats, the record for
Parquet.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError, nearest


@dataclass(frozen=True)
class Table:
    """Columns of equally many cells, in the file's order.

    columns: the cells of each column as text: trimmed, white space inside collapsed, whole numbers without
        ".0". Empty where the file has nothing.
    places: "line 7" or "record 7", for each row.
    """

    path: Path
    columns: Mapping[str, list[str]]
    places: list[str]

    def __len__(self) -> int:
        return len(self.places)

    def where(self, row: int, column: str) -> str:
        """How messages name a cell."""
        return f"{self.path}, {self.places[row]}, column {column!r}"

    def column(self, name: str) -> list[str]:
        """A column's cells; raises UserError with the columns there are when this is none of them."""
        if name not in self.columns:
            raise UserError(
                f"{self.path}: there is no column {name!r}; did you mean {nearest(name, self.columns)!r}? "
                f"The columns are {', '.join(self.columns)}"
            )
        return self.columns[name]

    def full_column(self, name: str) -> list[str]:
        """A column's cells; raises UserError when one is empty."""
        cells = self.column(name)
        if "" in cells:
            raise UserError(f"{self.where(cells.index(''), name)}: the cell is empty; fill it or leave the row out")
        return cells


def read_table(path: str | Path) -> Table:
    """Read a table; the format goes by the file's ending.

    Raises:
        UserError: the file is missing, of another kind, not UTF-8, ragged, has no rows, or a cell that is no
        single value.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: cannot read a table that ends in {path.suffix!r}; use one of {', '.join(_READERS)}")
    table = reader(path)
    if not len(table):
        raise UserError(f"{path}: the table has no rows; write one row an entity")
    return table


def read_text(path: str | Path) -> str:
    """A text file, which must be UTF-8 (a byte order mark is dropped)."""
    path = Path(path)
    raw = _read_bytes(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"byte {error.start} (0x{raw[error.start]:02x})"
        raise UserError(f"{path}, line {line}: {byte} is not UTF-8; save the file as UTF-8") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _clean(text: str) -> str:
    return " ".join(text.split())


def _scalar(value: object, where: str) -> str:
    """A cell of a typed format as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (list, dict, tuple, set)):
        raise UserError(f"{where}: {str(value)[:60]} is not a single value; write text or a number")
    if isinstance(value, bytes):
        try:
            return _clean(value.decode())
        except UnicodeDecodeError:
            raise UserError(f"{where}: the bytes are not UTF-8 text") from None
    return _clean(str(value))


def _read_csv(path: Path, delimiter: str = ",") -> Table:
    lines = io.StringIO(read_text(path), newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    places: list[str] = []
    try:
        header = [_clean(name) for name in next(reader, [])]
        _check_header(path, header)
        cells: list[list[str]] = [[] for _ in header]
        line = reader.line_num + 1  # a record can take several lines: name the one it starts on
        for row in reader:
            if row:
                if len(row) != len(header):
                    raise UserError(
                        f"{path}, line {line}: {len(row)} cells, but the header has {len(header)} columns; "
                        "quote cells that hold the separator"
                    )
                for column, cell in zip(cells, row, strict=True):
                    column.append(_clean(cell))
                places.append(f"line {line}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    return Table(path, dict(zip(header, cells, strict=True)), places)


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise UserError(f"{path}: the first line must name the columns, and it is empty")
    for number, name in enumerate(header, 1):
        if not name:
            raise UserError(f"{path}, line 1: column {number} has no name")
        if name in header[: number - 1]:
            raise UserError(f"{path}, line 1: two columns are called {name!r}")


def _read_jsonl(path: Path) -> Table:
    columns: dict[str, list[str]] = {}
    places: list[str] = []
    for line, record in _json_records(path):
        for name in record:
            columns.setdefault(name, [""] * len(places))
        places.append(f"line {line}")
        for name, cells in columns.items():
            cells.append(_scalar(record.get(name), f"{path}, line {line}, column {name!r}"))
    return Table(path, columns, places)


def _json_records(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for line, text in enumerate(read_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}, line {line}: not JSON ({error}); write one object a line") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {line}: {text.strip()[:40]!r} is no object; write one object a line")
        yield line, record


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            table = pq.read_table(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    columns = {}
    for name in table.column_names:
        cells = enumerate(table.column(name).to_pylist(), 1)
        columns[name] = [_scalar(cell, f"{path}, record {row}, column {name!r}") for row, cell in cells]
    return Table(path, columns, [f"record {row}" for row in range(1, len(table) + 1)])


_READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
