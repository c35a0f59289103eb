"""The summary of a run as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engramlab.base.terminal import Console
from engramlab.report.page import every_row, sections_module
from engramlab.report.parts import blocks


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `terminal(summary)` of the experiment's report module gives; without one, every row.

    Args:
        summary: the content of a run's summary.json.
    """
    module = sections_module(str(summary.get("experiment", "")))
    terminal = getattr(module, "terminal", None)
    tables = terminal(summary) if terminal else every_row(summary.get("rows") or [])
    for table in tables:
        for part in (table,) if not table.narrow or _fits(table, console) else table.narrow:
            console.print(_drawn(part))
    if not tables:
        console.print("Nothing measured yet: the run is unfinished.")


def _fits(table: blocks.Table, console: Console) -> bool:
    return console.measure(_drawn(table), options=console.options.update(width=10_000)).maximum <= console.width


def _drawn(table: blocks.Table) -> Table:
    """A table whose columns of words may fold and whose numbers never do."""
    drawn = Table(
        title=table.caption,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, column in enumerate(table.columns):
        words = index < table.numbers_from
        drawn.add_column(Text(column), justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in table.rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return drawn
