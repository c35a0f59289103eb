"""Files that say themselves whether they are what was written: a digest in each, looked at whenever it is read.

A run reads again what it wrote days ago. What was cut, flipped, emptied or swapped meanwhile is named in one sentence, with
what to do about it; it is never taken for a result. What an engramlab wrote that kept no digests yet is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files.writing import read_json, replacing, write_folder, write_json

DIGEST = "sha256"  # its key in an object, and in a table's metadata
DIGESTS = "digests.json"  # of the files of a folder
AGAIN = "remove it to do that part again"


def damaged(path: Path, why: str, remedy: str = AGAIN) -> UserError:
    """The error that says so."""
    return UserError(f"{path} is damaged ({why}); {remedy}")


def digest(value: Any) -> str:
    """A name for a JSON value: any change changes it, but for the order of keys."""
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes an object as JSON, with its digest in it."""
    write_json(path, {**record, DIGEST: digest(record)})


def read_record(path: Path, needs: Iterable[str] = (), remedy: str = AGAIN) -> dict[str, Any]:
    """The object that ``write_record`` wrote.

    Args:
        needs: keys that it must have, also where it has no digest.
        remedy: what the user can do, for the message.

    Raises:
        UserError: it is not what was written, or not there.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    record = read_json(path, remedy)
    if not isinstance(record, dict):
        raise damaged(path, f"it holds a {type(record).__name__}, not an object", remedy)
    written = record.pop(DIGEST, None)
    if written is not None and written != digest(record):
        raise damaged(path, "it is not what was written", remedy)
    if lacking := sorted(set(needs) - record.keys()):
        raise damaged(path, f"it lacks {', '.join(lacking)}", remedy)
    return record


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as Parquet, whole or not at all, with their digest; None where a row lacks what others have. Raises UserError when
    the disk is full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict.fromkeys(name for row in rows for name in row)  # Arrow alone would drop what the first row lacks
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    table = table.replace_schema_metadata({DIGEST: digest(table.to_pylist())})
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_rows(path: Path, needs: Iterable[str] = (), remedy: str = AGAIN) -> list[dict[str, Any]]:
    """The rows that ``write_rows`` wrote. Raises UserError: they are not what was written, or not there."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    try:
        table = pq.read_table(path)
        rows: list[dict[str, Any]] = table.to_pylist()
        written = (table.schema.metadata or {}).get(DIGEST.encode())
        there = digest(rows).encode()
    except Exception:  # whatever a decoder says of bytes that are none of its own
        raise damaged(path, "it cannot be read as Parquet", remedy) from None
    if written is not None and written != there:
        raise damaged(path, "its rows are not those that were written", remedy)
    if rows and (lacking := sorted(set(needs) - rows[0].keys())):
        raise damaged(path, f"it lacks {', '.join(lacking)}", remedy)
    return rows


def seal(folder: Path) -> None:
    """Writes down the digests of all files of a folder, in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / DIGESTS)
    write_record(folder / DIGESTS, {path.relative_to(folder).as_posix(): _of_file(path) for path in files})


def write_sealed(folder: Path, write: Callable[[Path], Any]) -> None:
    """``writing.write_folder``, with the digests of what ``write`` has written."""

    def both(partial: Path) -> None:
        write(partial)
        seal(partial)

    write_folder(folder, both)


def check_sealed(folder: Path, remedy: str | None = None) -> None:
    """Raises UserError unless the files of a folder are those it was sealed with; one that never was is let be.

    Args:
        remedy: what the user can do, for the message; to remove the folder, by default.
    """
    remedy = remedy or f"remove {folder} to do that part again"
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; {remedy}")
    if not (folder / DIGESTS).exists():
        return
    for name, written in read_record(folder / DIGESTS, (), remedy).items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {remedy}")
        if _of_file(path) != written:
            raise damaged(path, "it is not what was written", remedy)


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
