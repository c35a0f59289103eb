"""Other people's tables of facts, recognised by their columns: one file a format, and the file name is the registration.

A format is a module with

- ``KEYS``: the columns that it is recognised by;
- ``read(table, relations) -> Builder``: its facts, of these relations (None for all). Raises UserError with row and column.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from types import ModuleType

from engramlab.base import registry
from engramlab.base.errors import UserError, quoted
from engramlab.files.tables import ColumnTable


def of(table: ColumnTable) -> ModuleType | None:
    """The format of a table; None for one of our own forms."""
    package = sys.modules[__name__]
    found = (registry.load(package, name, "format of facts") for name in registry.names(package))
    return next((one for one in found if all(key in table.columns for key in one.KEYS)), None)


def filled(table: ColumnTable, column: str) -> Sequence[str]:
    """A column without empty cells. Raises UserError."""
    cells = table.column(column)
    if "" in cells:
        row = cells.index("")
        raise UserError(f"{table.where(row, column)}: is empty; a fact needs {quoted(column)}")
    return cells


def as_number(text: str, where: str) -> float:
    """A cell as a finite number. Raises UserError."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{where}: {quoted(text)} is no number")
    return found
