"""What experiments write and reports read: rows, and the names that stand in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engramlab.base.errors import UserError

if TYPE_CHECKING:
    import pandas
    import pyarrow

Row = dict[str, Any]
"""One measurement: names and plain values, as JSON has them."""

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer", "work_city")
"""What bioS people have, in the paper's order."""
DEPTHS = ("memorization", "semantic", "compositional")
"""How far a query lies from the text it is about."""
ROLES = ("reliability", "generality", "portability", "locality")
"""What a query says about an edit."""
PROTOCOLS = ("teacher_forced", "generated")
"""How an answer is got: each token after the right ones before it, or written freely. Never mixed."""
PLAIN_LOSS, NO_LOSS = "cross-entropy", "none"
"""The loss that others are compared with, and what stands for a method without one."""


def protocol_of(row: Row) -> str | None:
    """The protocol of a row, None where it has none of them; runs made before the two spellings became one say
    "teacher-forced"."""
    name = str(row.get("protocol")).replace("-", "_")
    return name if name in PROTOCOLS else None


class Rows(list[Row]):
    """Rows that one call makes a table of; otherwise a list."""

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table with a column for every name in any row; None where a row lacks it.

        Raises:
            UserError: a column holds values of several kinds.
        """
        import pyarrow

        columns = {}
        for name in _names(self):
            try:
                columns[name] = pyarrow.array([row.get(name) for row in self])
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
                raise UserError(
                    f"column {name!r} is no Arrow column: its values must be of one kind ({error})"
                ) from None
        return pyarrow.table(columns)

    def to_pandas(self) -> pandas.DataFrame:
        """A pandas data frame with a column for every name in any row.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError(
                "to_pandas needs pandas, which is not installed: pip install pandas, or take to_arrow"
            ) from None
        return pandas.DataFrame(list(self), columns=_names(self))


def _names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
