"""The table of where knowledge lives, from runs kept as `where-*`; nothing where there is none."""

from __future__ import annotations

from typing import Any

from kept import if_any, interval, kept, made_by, percent, table

CALLED = {"training": "weights, by training", "editing": "weights, by editing", "memory": "plug-in memory"}
CALLED |= {"virtual tokens": "retrieval, virtual tokens", "prompt": "retrieval, plain prompt"}


def _row(summary: dict[str, Any], row: dict[str, Any]) -> list[str]:
    return [
        str(summary["model"]).rstrip("/").rpartition("/")[2].removesuffix(".gguf"),
        CALLED[row["way"]],
        percent(row["right_before"]),
        interval(row, "right"),
        interval(row, "known_more"),
        f"{row['add_seconds']:.3g}",
        f"{row['add_tokens']:,.0f}",
        f"{row['change_seconds']:.3g}",
        percent(row["changed"]),
        f"{row['question_tokens']:.0f}",
        "no" if row["source"] is None else interval(row, "source"),
    ]


def _where() -> str:
    found = kept("where-")
    lines = [_row(summary, row) for summary, _ in found for row in summary["rows"]]
    heads = [
        "model",
        "where",
        "before, %",
        "put in",
        "known before, change",
        "s to add",
        "tokens to add",
        "s to change",
    ]
    heads += ["changed, %", "tokens read", "source"]
    return "\n".join([*table(heads, lines), "", made_by(found)])


def where() -> str:
    """A line a way of every run."""
    return if_any(_where, "where-")
