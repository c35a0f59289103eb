"""Rows as JSON lines, added one by one: what a process did before it was killed, and where it writes down what it does next."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.files.writing import room, write_text


class Journal:
    """A file of rows that outlives the process: the metrics of a stage, the answers of a chat model.

    Args:
        path: of the file; its folder is made.
        durable: is every row on the disk before the next is begun? Else a crash of the machine may lose the last ones.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path, self._durable = path, durable
        with room(path):
            path.parent.mkdir(parents=True, exist_ok=True)

    @cached_property
    def rows(self) -> list[Any]:
        """The rows there were when this was first asked, and a last line that was not written to its end cut off.

        Raises:
            UserError: another line is not JSON.
        """
        rows: list[Any] = []
        whole = 0
        if not self.path.exists():
            return rows
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise UserError(f"{self.path}, line {number}: not JSON; remove the folder to start over") from None
            whole += len(line)
        os.truncate(self.path, whole)
        return rows

    def rewind(self, step: int) -> None:
        """Drops rows after ``step`` and a half-written last line: they will be written again."""
        if self.path.exists():
            kept = [row for row in read_rows(self.path) if row.get("step", 0) <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, **row: Any) -> None:
        """Appends one row. Raises UserError if it cannot be written."""
        with room(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            if self._durable:
                file.flush()
                os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a journal; a half-written last line is left out, an absent file has none."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n"):  # not at U+2028, as splitlines would
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return rows
