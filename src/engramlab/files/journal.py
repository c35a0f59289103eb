"""A journal of finished work: JSON lines of which each is on the disk before the next is begun."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError


class Journal:
    """What a process did before it was killed, and a place to write down what is done next.

    Opening it reads the rows there are and cuts off a last line that was not written to its end.

    Attributes:
        rows: the rows found when the journal was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Any] = []
        if not path.exists():
            return
        whole = 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                raise UserError(f"{path}, line {number}: not JSON; remove the folder to start over") from None
            whole += len(line)
        os.truncate(path, whole)

    def add(self, row: Any) -> None:
        """Appends a row and waits until it is on the disk. Raises UserError if it cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); the same command goes on once it can"
            ) from error
