"""What experiments write and reports read: rows, and the names that stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
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
TAUGHT = ROLES[:3]
"""The roles of what is to become right, which the unedited model is asked too; what must stay is as it was by definition."""
OVERRULED = "overruled"
"""The role of the prompt of an edit that a later one took the place of: in no share."""
BEHIND = "behind"
"""The role of an edit's prompt behind a text that no method has seen: in no share, but a number of its own."""
PROTOCOLS = ("teacher_forced", "generated")
"""How an answer is got: each token after the right ones before it, or written freely. Never mixed."""
PLAIN_LOSS, NO_LOSS = "cross-entropy", "none"
"""The loss that others are compared with, and what stands for a method without one."""


_SHOWN = 20  # rows of a table in a notebook


def protocol_of(row: Row) -> str | None:
    """The protocol of a row, None where it has none of them; runs made before the two spellings became one say
    "teacher-forced"."""
    name = str(row.get("protocol")).replace("-", "_")
    return name if name in PROTOCOLS else None


class Rows(list[Row]):
    """Rows that one call makes a table of; otherwise a list."""

    def __repr__(self) -> str:
        return f"Rows({len(self):,} rows: {', '.join(_names(self))})"

    def _repr_html_(self) -> str:
        """The first rows as a table, for notebooks."""
        names, shown = _names(self), self[:_SHOWN]
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(f"<tr>{''.join(f'<td>{_cell(row.get(name))}</td>' for name in names)}</tr>" for row in shown)
        more = f"<p>and {len(self) - _SHOWN:,} more rows</p>" if len(self) > _SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

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


class Summary(dict[str, Any]):
    """What a run found: its summary, whose ``rows`` are a table; otherwise a dict."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        if isinstance(self.get("rows"), list):
            self["rows"] = Rows(self["rows"])

    def __repr__(self) -> str:
        return f"Summary({self.get('experiment', '')}: {len(self.get('rows', ())):,} rows, {', '.join(self)})"

    def _repr_html_(self) -> str:
        rows = self.get("rows")
        return f"<p>{escape(repr(self))}</p>{rows._repr_html_() if isinstance(rows, Rows) else ''}"


def _cell(value: Any) -> str:
    return escape(f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value))


def _names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
