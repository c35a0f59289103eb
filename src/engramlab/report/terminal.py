"""The summary of a run as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from engramlab.base.terminal import Console
from engramlab.report.page import check, every_row, sections_module
from engramlab.report.parts import blocks


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `terminal(summary)` of the experiment's report module gives; without one, every row.

    Args:
        summary: the content of a run's summary.json.

    Raises:
        UserError: the summary lacks what its tables need.
    """
    module = sections_module(str(summary.get("experiment", "")))
    terminal = getattr(module, "terminal", None)
    check(module, summary, Path("summary.json"))
    tables = terminal(summary) if terminal else every_row(summary.get("rows") or [])
    print_tables(tables, console)
    if not tables:
        console.print("Nothing measured yet: the run is unfinished.")


def print_tables(tables: Sequence[blocks.Table], console: Console) -> None:
    """Prints tables, in parts where the console is narrower than they are."""
    for table in tables:
        for part in fitted(table, console.width):
            console.print(_drawn(part, console.width))


def fitted(table: blocks.Table, width: int) -> list[blocks.Table]:
    """A table as it is, or as several under each other that each have its first columns and some of the others.

    No word is broken: a column is never narrower than its longest word, and folds at spaces.
    """
    lead = [k for k in range(len(table.columns)) if k < table.numbers_from][: len(table.columns) - 1] or [0]
    rest = [k for k in range(len(table.columns)) if k not in lead]
    room = width - _wide(table, lead)
    parts: list[list[int]] = [[]]
    for k in rest:
        if parts[-1] and _wide(table, [*parts[-1], k]) > room:
            parts.append([])
        parts[-1].append(k)
    if len(parts) == 1:
        return [table]
    if (trimmed := table.trimmed()) is not table:
        return fitted(trimmed, width)
    return [
        blocks.Table(
            [table.columns[k] for k in [*lead, *some]],
            [[row[k] for k in [*lead, *some]] for row in table.rows],
            table.caption if number == 0 else f"{table.caption} (continued)",
            len(lead),
            words=[len(lead) + some.index(k) for k in table.words if k in some],
        )
        for number, some in enumerate(parts)
    ]


def _wide(table: blocks.Table, columns: list[int]) -> int:
    """Characters that some columns need at least, with the space between them."""
    return sum(_least(table, k) + 2 for k in columns)


def _least(table: blocks.Table, column: int) -> int:
    head = max((cell_len(word) for word in str(table.columns[column]).split()), default=0)
    lines = [line for row in table.rows for line in str(row[column]).split("\n")]
    if table.numeric(column):
        return max([head, *map(cell_len, lines)])
    return max([head, *(cell_len(word) for line in lines for word in line.split())])


def _drawn(table: blocks.Table, width: int) -> Table:
    """A table whose columns fold at spaces; numbers, for which there is always room, never do."""
    drawn = Table(
        title=table.caption,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    # Left to itself rich takes room from the widest column, however little it can do with, and then cuts the last ones off.
    least = [_least(table, k) for k in range(len(table.columns))]
    room = width - sum(least) - 2 * len(least)
    for index, column in enumerate(table.columns):
        lines = [line for cell in [column, *(row[index] for row in table.rows)] for line in str(cell).split("\n")]
        more = min(max(map(cell_len, lines)) - least[index], max(0, room))
        room -= more
        words = not table.numeric(index)
        drawn.add_column(
            Text(column),
            justify="left" if words else "right",
            overflow="fold",
            width=least[index] + more,
        )
    for row in table.rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return drawn
