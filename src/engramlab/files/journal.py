"""Rows as JSON lines, added one by one: what a process did before it was killed, and where it writes down what it does next."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files.records import damaged, digest
from engramlab.files.writing import open_own, room, write_text

_SUM = "sum"  # of a row, the beginning of its digest


class Journal:
    """A file of rows that outlives the process: the metrics of a stage, the answers of a chat model.

    Args:
        path: of the file; its folder is made.
        durable: is every row on the disk before the next is begun? Else a crash of the machine may lose the last ones.

    Attributes:
        count: how many rows there are, once they were rewound.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable, self.count = path, durable, 0
        with room(path):
            path.parent.mkdir(parents=True, exist_ok=True)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows there were when this was first asked, and a last line that was not written to its end cut off.

        Raises:
            UserError: another line is not what was written.
        """
        rows = read_rows(self.path)
        if self.path.exists():
            with room(self.path), open_own(self.path, "r+b") as file:
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
        return rows

    def rewind(self, step: int, count: int | None = None) -> None:
        """Drops rows after ``step`` and a half-written last line: they will be written again.

        Args:
            count: how many there were up to that step.

        Raises:
            UserError: a line is not what was written, or some are gone.
        """
        kept = [row for row in read_rows(self.path, count) if row.get("step", 0) <= step]
        check_count(self.path, len(kept), count)
        if self.path.exists():
            write_text(self.path, "".join(map(_line, kept)))
        self.count = len(kept)

    def add(self, **row: Any) -> None:
        """Appends one row. Raises UserError if it cannot be written."""
        self._append(_line(row).encode(), durable=self._durable)
        self.count += 1

    def flush(self) -> None:
        """All rows are on the disk then, also if they are not durable."""
        if self.path.exists():
            self._append(b"", durable=True)

    def _append(self, line: bytes, *, durable: bool) -> None:
        with room(self.path), open_own(self.path, "ab") as file:
            file.write(line)
            if durable:
                file.flush()
                os.fsync(file.fileno())


def _line(row: dict[str, Any]) -> str:
    return json.dumps({**row, _SUM: digest(row)[:8]}) + "\n"


def read_rows(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Rows of a journal; a half-written last line is left out, an absent file has none.

    Args:
        count: how many there must be at least.

    Raises:
        UserError: a line is not what was written, or there are fewer.
    """
    rows: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            written = row.pop(_SUM, None)
            good = written is None or digest(row)[:8] == written
        except (ValueError, RecursionError, AttributeError, TypeError):
            good = False
        if not good:
            raise damaged(path, f"line {number} is not what was written", _remedy(path))
        rows.append(row)
    check_count(path, len(rows), count)
    return rows


def check_count(path: Path, found: int, count: int | None) -> None:
    """Raises UserError where a journal has fewer rows than were written."""
    if count is not None and found < count:
        if not path.exists():
            raise UserError(f"{path} is missing; {_remedy(path)}")
        raise damaged(path, f"it has {found} rows of {count}", _remedy(path))


def _remedy(path: Path) -> str:
    return f"remove {path.parent} to do that part again"
