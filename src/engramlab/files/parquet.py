"""Rows of Parquet files, of any type that such a file can hold, and whatever is wrong with its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, listed, quoted

ROWS = 20_000_000  # of a table that is held in memory
_AT_ONCE = 64  # rows: their texts may be of any length


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A cell that Python cannot hold: looked at by nobody it does no harm."""

    why: str

    def __repr__(self) -> str:
        return self.why


def rows(path: Path, columns: Sequence[str] | None = None, most: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, or some of its columns, read a few at a time.

    Args:
        most: refuse a file with more rows, before any is read; those it has are to be held, and equal texts then are one.

    Raises:
        UserError: a damaged file, too many rows, or a column that is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as raw, pq.ParquetFile(raw, read_dictionary=_texts(raw) if most else None) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            for column in columns or ():
                if column not in names:
                    raise UserError(f"{path}: has no column {quoted(column)}; it has {listed(names)}")
            if most is not None and file.metadata.num_rows > most:
                raise UserError(
                    f"{path}: has {file.metadata.num_rows:,} rows, more than the {most:,} that can be held; split it"
                )
            for batch in file.iter_batches(_AT_ONCE, columns=list(columns or names)):
                if len(set(batch.schema.names)) < batch.num_columns:
                    raise UserError(
                        f"{path}: two of its columns have one name ({listed(batch.schema.names)}); rename one"
                    )
                cells = [_cells(column) for column in batch.columns]
                for row in zip(*cells, strict=True):
                    yield dict(zip(batch.schema.names, row, strict=True))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or str(error).splitlines()[0]}") from None
    except (pa.ArrowException, ValueError, TypeError, OverflowError, MemoryError, RuntimeError, LookupError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: not a readable Parquet file: {first}") from None


def cells_of(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table in memory."""
    columns = [[cell for chunk in column.chunks for cell in _cells(chunk)] for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _texts(raw: Any) -> list[str]:
    """The columns of text, to be read as their different texts and numbers of them: repeats then take no room."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(raw)
    raw.seek(0)
    return [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]


def _cells(column: Any) -> list[Any]:
    """Arrow values as Python's; times and dates that Python cannot hold as text."""
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        used = column.indices.unique().drop_null()
        known = {None: None} | dict(zip(used.to_pylist(), _cells(column.dictionary.take(used)), strict=True))
        return [known[i] for i in column.indices.to_pylist()]
    try:
        found: list[Any] = column.to_pylist()
        return found
    except (ValueError, OverflowError, TypeError, pa.ArrowException):
        return [_cell(one) for one in column]


def _cell(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (ValueError, OverflowError, TypeError, pa.ArrowException):
        pass
    try:
        return scalar.cast(pa.string()).as_py()
    except (ValueError, OverflowError, TypeError, pa.ArrowException):
        return Unreadable(f"holds a {scalar.type} that cannot be read; write it as text")
