"""What a report page is made of: sections, each a title and a list of blocks.

A block is a dataclass with a `kind`; `templates/<kind>.html.j2` draws it. A new kind of block is one
dataclass and one template. Blocks carry plain text: the templates escape it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from plotly import graph_objects as go


class Block(Protocol):
    kind: ClassVar[str]


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A table of text; columns from `numbers_from` on hold numbers and are set flush right.

    Attributes:
        rows: text, and in tables for the terminal `rich.text.Text` too.
        groups: headings over several columns: (text, how many columns), from the first column on.
        narrow: tables that say the same to a terminal without room for this one.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    numbers_from: int = 1000
    groups: Sequence[tuple[str, int]] = ()
    narrow: Sequence[Table] = ()


@dataclass(frozen=True)
class Figures:
    """Figures under their titles; several stand side by side where the screen has room."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[tuple[str, go.Figure]]
    note: str = ""


@dataclass(frozen=True)
class Details:
    """Preformatted text behind a line that opens it."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str


@dataclass(frozen=True)
class EntriesAndAnswers:
    """Entries a model has read, and the questions it was asked: `answers` as a run writes them."""

    kind: ClassVar[str] = "examples"
    title: str
    entries: Sequence[str]
    answers: Sequence[dict[str, Any]]
    note: str = ""
    opened: bool = False


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
