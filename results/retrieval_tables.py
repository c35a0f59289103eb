"""The tables of retrieval tokens, from runs kept as `retrieval-tokens-*`; nothing where there is none."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, Kept, kept, made_by, percent, table


def _found() -> list[Kept]:
    return kept("retrieval-tokens-")


def _about(summary: dict[str, Any]) -> list[str]:
    named = [str(summary[name]).rstrip("/").rpartition("/")[2].removesuffix(".gguf") for name in ("model", "data")]
    return [*named, str(summary["seed"])]


def _ends(row: dict[str, Any], name: str) -> str:
    return f"{percent(row[name])} [{percent(row[name + '_low'])}, {percent(row[name + '_high'])}]"


def _more(row: dict[str, Any]) -> str:
    value, low, high = (f"{100 * row[key]:+.1f}" for key in ("em_more", "em_more_low", "em_more_high"))
    return f"{value} [{low}, {high}]"


def _way(row: dict[str, Any]) -> str:
    return f"{row['way']}, {row['k']}" if row["k"] else str(row["way"])


def _change(change: float) -> str:
    return "0, exactly" if change == 0 else f"{change:+.4f}"


def tokens() -> str:
    """What is answered from passages, by way of reading."""
    lines = [
        [*_about(summary), _way(row), str(row["questions"]), _ends(row, "em"), _ends(row, "f1"), _more(row)]
        for summary, _ in _found()
        for row in summary["rows"]
    ]
    heads = ["model", "facts", "seed", "reading", "questions", "EM", "F1", "EM less plain"]
    return "\n".join([*table(heads, lines), "", made_by(_found())]) if lines else ABSENT


def without() -> str:
    """The answers' loss without passages."""
    lines = [
        [*_about(summary), row["way"], f"{row['nats']:.4f}", _change(row["change"])]
        for summary, _ in _found()
        for row in summary["without"]
    ]
    heads = ["model", "facts", "seed", "after", "nats a token", "change"]
    return "\n".join(table(heads, lines)) if lines else ABSENT
