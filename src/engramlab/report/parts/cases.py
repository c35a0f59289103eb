"""Judged edits as data for the page to leaf through: few cases, numbers rounded, what is equal for all edits said once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from engramlab.base.rows import ROLES
from engramlab.report.parts.judged import HEADS, table_rows
from engramlab.report.rows import Row, RunData, distinct, number

#: Cases shown of each method and loss; fewer where there are many of them, so that the page stays light.
MOST_CASES, MOST_IN_ALL = 60, 480
_LONGEST, _MOST_TOKENS = 300, 60


def leaves(runs: Sequence[RunData]) -> dict[str, Any]:
    """What the block `EditedCases` draws.

    Returns:
        `keys`: what views differ in; `views`: of a run, method, loss and number of edits, the `cases` (`edit`: a line,
        `answers`: [number of the query, teacher-forced, generated, written after, log-probabilities, ranks, likeliest tokens
        after]) and how many there are in `total`; `queries`: what was asked, with the same before the edit.
    """
    files = [(run, path) for run in runs for path in sorted(run.path.glob("*/*/rows.parquet"))]
    most = max(6, min(MOST_CASES, MOST_IN_ALL // max(1, len(files))))
    known: dict[tuple[Any, ...], int] = {}
    queries: list[Row] = []
    views = []
    for run, path in files:
        counted: dict[str, int] = {}
        rows = table_rows(run, str(path.relative_to(run.path)), partial(_thin, most=most, counted=counted))
        if not rows:
            continue
        cases: dict[str, list[Row]] = {}
        for row in rows:
            cases.setdefault(str(row.get("case")), []).append(row)
        views.append(
            {
                "run": run.name,
                "method": str(rows[0].get("method", path.parent.parent.name)),
                "loss": str(rows[0].get("loss", path.parent.name)),
                "edits": rows[0].get("edits", 1),
                "total": counted["cases"],
                "cases": [_case(of_case, known, queries) for of_case in cases.values()],
            }
        )
    return {
        "keys": ["run", "method", "loss", "edits"],
        "roles": list(ROLES),
        "short": {role: HEADS[role].lower().rstrip(".") for role in ROLES},
        "views": views,
        "queries": queries,
    }


def _thin(table: Any, most: int, counted: dict[str, int]) -> Any:
    """The rows of a few cases, spread over all, as they were after the most edits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if table.num_rows and "edits" in table.column_names:
        table = table.filter(pc.equal(table["edits"], pc.max(table["edits"])))
    if not table.num_rows or "case" not in table.column_names:
        counted["cases"] = 0
        return table.slice(0, 0)
    if "part" in table.column_names:  # turns: what was never edited, or edited again, is no edit that should hold
        table = table.filter(pc.equal(table["part"], "edited"))
    ids = distinct(table["case"].to_pylist())
    counted["cases"] = len(ids)
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(int))]
    return table.filter(pc.is_in(table["case"], value_set=pa.array(chosen, table["case"].type)))


def _case(rows: Sequence[Row], known: dict[tuple[Any, ...], int], queries: list[Row]) -> Row:
    edits = [row for row in rows if row.get("role") == "reliability"]
    line = "; ".join(f"{_text(row.get('prompt'), 90)} → {_text(row.get('target'), 60)}" for row in edits)
    return {"edit": line or _text(rows[0].get("case"), 90), "answers": [_answer(row, known, queries) for row in rows]}


def _answer(row: Row, known: dict[tuple[Any, ...], int], queries: list[Row]) -> list[Any]:
    query = {
        "role": str(row.get("role", "")),
        "kind": str(row.get("group") or "").replace("_", " "),
        "prompt": _text(row.get("prompt")),
        "target": _text(row.get("target")),
        "aliases": [_text(alias, 60) for alias in (row.get("aliases") or [])[:4]],
        "written": _text(row.get("written_before")),
        "tokens": _texts(row.get("tokens")),
        "logprobs": _numbers(row.get("logprobs_before")),
        "ranks": _numbers(row.get("ranks_before")),
        "predicted": _texts(row.get("predicted_before")),
    }
    key = tuple(str(value) for value in query.values())
    if key not in known:
        known[key] = len(queries)
        queries.append(query)
    return [
        known[key],
        _share(row.get("teacher_forced")),
        _share(row.get("generated")),
        _text(row.get("written_after")),
        _numbers(row.get("logprobs_after")),
        _numbers(row.get("ranks_after")),
        _texts(row.get("predicted_after")),
    ]


def _text(value: object, most: int = _LONGEST) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _texts(values: Any) -> list[str]:
    return [str(value) for value in (values or [])[:_MOST_TOKENS]]


def _share(value: object) -> float | None:
    found = number(value)
    return None if found is None else round(found, 3)


def _numbers(values: Any) -> list[float | int | None]:
    found: list[float | int | None] = []
    for value in (values or [])[:_MOST_TOKENS]:
        known = number(value)
        found.append(None if known is None else int(known) if known == int(known) else round(known, 2))
    return found
