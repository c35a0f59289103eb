"""The summary of a run as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engramlab.report.page import sections_module
from engramlab.report.rows import distinct, label, number

# A share below this is called low: in the paper, datasets either stay under it or leave it far behind.
LOW = 0.25


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print what `terminal(summary)` of the experiment's report module gives; without one, exact match by dataset: P_train,
    P_test, and P_test by attribute, in percent.

    `summary` is the content of a run's summary.json; rows without a measured exact match are left out.
    """
    module = sections_module(str(summary.get("experiment", "")))
    if module is not None and hasattr(module, "terminal"):
        tables = module.terminal(summary)
        for table in tables:
            console.print(_table(table.caption, table.columns, table.rows, words_to=table.numbers_from))
        if not tables:
            console.print("Nothing measured yet: the run is unfinished.")
        return
    rows = [row for row in summary.get("rows") or [] if number(row.get("exact_match")) is not None]
    if not rows:
        console.print("Nothing measured yet: the run is unfinished.")
        return
    shares = {
        (
            _name(row),
            str(row.get("mode", "finetune")),
            str(row.get("group")),
            str(row.get("attribute")),
        ): float(row["exact_match"])
        for row in rows
    }
    keys = distinct(key[:2] for key in shares)
    keys.sort(key=lambda key: -shares.get((*key, "test", "mean"), -1.0))
    attributes = [name for name in distinct(key[3] for key in shares) if name != "mean"]
    modes = len({mode for _, mode in keys}) > 1

    means = [("P_train", "train"), ("P_test", "test")]
    overall = [[_cell(shares.get((*key, group, "mean")), words=group == "test") for _, group in means] for key in keys]
    each = [[_cell(shares.get((*key, "test", attribute))) for attribute in attributes] for key in keys]
    names = [list(key if modes else key[:1]) for key in keys]
    first = ["dataset", "mode"] if modes else ["dataset"]
    words = [name.replace("_", "\n") for name in attributes]

    title = "Questions answered exactly (%)"
    whole = _table(
        f"{title}: mean, and P_test by attribute",
        [*first, *(name for name, _ in means), *words],
        [[*name, *left, *right] for name, left, right in zip(names, overall, each, strict=True)],
        words_to=len(first),
    )
    if console.measure(whole, options=console.options.update(width=10_000)).maximum <= console.width:
        console.print(whole)
        return
    parts = [
        (f"{title}: mean", [name for name, _ in means], overall),
        (f"{title}: P_test by attribute", words, each),
    ]
    for heading, columns, cells in parts:
        rows_of_part = [[*name, *row] for name, row in zip(names, cells, strict=True)]
        console.print(_table(heading, [*first, *columns], rows_of_part, words_to=len(first)))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], words_to: int) -> Table:
    """A table whose first `words_to` columns may fold and whose numbers never do."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for index, column in enumerate(columns):
        named = index < words_to
        table.add_column(Text(column), justify="left" if named else "right", overflow="fold", no_wrap=not named)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def _name(row: Mapping[str, Any]) -> str:
    return label(row.get("dataset", ""), row.get("family"))


def _cell(share: float | None, words: bool = False) -> Text:
    """The share in percent; a low one says so in colour and, where `words`, in a word too."""
    if share is None:
        return Text("-")
    low = share < LOW
    return Text(f"{100 * share:.1f}" + (" low" if low and words else ""), style="red" if low else "")
