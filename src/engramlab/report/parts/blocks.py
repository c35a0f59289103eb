"""What a report page is made of: sections, each a title and a list of blocks.

A block is a dataclass with a `kind`; `templates/<kind>.html.j2` draws it. A new kind of block is one
dataclass and one template. Blocks carry plain text: the templates escape it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from plotly import graph_objects as go


class Block(Protocol):
    kind: ClassVar[str]


@dataclass(frozen=True)
class Text:
    """One paragraph; `quoted` sets it off as something that was read."""

    kind: ClassVar[str] = "text"
    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text; columns from `numbers_from` on hold numbers and are set flush right, but those in `words`.

    Attributes:
        rows: text, and in tables for the terminal `rich.text.Text` too.
        groups: headings over several columns: (text, how many columns), from the first column on.
        long: the page lets its reader filter the rows and sort them.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    numbers_from: int = 1000
    groups: Sequence[tuple[str, int]] = ()
    long: bool = False
    words: Sequence[int] = ()

    def trimmed(self) -> Table:
        """Without columns that say the same in every row: the caption says it once."""
        if len(self.rows) < 2 or self.groups:
            return self
        cells = {k: {str(row[k]) for row in self.rows} for k in range(1, len(self.columns))}
        empty = [k for k, found in cells.items() if found <= {"–", ""}]
        same = [k for k, found in cells.items() if len(found) == 1 and k not in empty and not self.numeric(k)]
        kept = [k for k in range(len(self.columns)) if k not in (*same, *empty)]
        if len(kept) == len(self.columns):
            return self
        said = [self.caption.rstrip(".")] if self.caption else []
        said += ["In every row, " + "; ".join(f"{self.columns[k]}: {self.rows[0][k]}" for k in same)] if same else []
        said += ["Not measured: " + ", ".join(self.columns[k] for k in empty)] if empty else []
        return replace(
            self,
            columns=[self.columns[k] for k in kept],
            rows=[[row[k] for k in kept] for row in self.rows],
            caption=". ".join(said) + ".",
            numbers_from=sum(k < self.numbers_from for k in kept),
            words=[kept.index(k) for k in self.words if k in kept],
        )

    def numeric(self, column: int) -> bool:
        """Is this a column of numbers?"""
        return column >= self.numbers_from and column not in self.words


@dataclass(frozen=True)
class Figures:
    """Figures under their titles; several stand side by side where the screen has room.

    `beside`: where a figure has a list to choose from, blocks shown with each choice.
    """

    kind: ClassVar[str] = "figures"
    figures: Sequence[tuple[str, go.Figure]]
    note: str = ""
    beside: Sequence[Sequence[Block]] = ()


@dataclass(frozen=True)
class Details:
    """Preformatted text behind a line that opens it."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str


@dataclass(frozen=True)
class SideBySide:
    """Questions with every dataset's answer to them, and what each dataset's model has read.

    `rows`: (whom it is about, question, right answer, an answer as a run writes it, or None, for each of `datasets`).
    """

    kind: ClassVar[str] = "examples"
    title: str
    datasets: Sequence[str]
    rows: Sequence[tuple[str, str, str, Sequence[dict[str, Any] | None]]]
    entries: Mapping[str, Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class EditedCases:
    """Edits to leaf through, one line each, drawn by the page's script when they are looked at.

    `data` is plain JSON (see `knowledge_editing.leaves`); the script puts every string into the page as text.
    """

    kind: ClassVar[str] = "cases"
    data: dict[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `missing` is the one line shown when there are no blocks."""

    title: str
    blocks: Sequence[Block]
    missing: str = "Not measured."
