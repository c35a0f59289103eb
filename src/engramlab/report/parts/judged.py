"""What reports of edits share: tables of reliability, generality, portability and locality, and differences with intervals.

Rows are as experiments write them into summary.json: shares of 0..1 by `protocol`, and `differences` with `low` and `high`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.rows import ROLES, TAUGHT, protocol_of
from engramlab.report.rows import Row, RunData, number

#: What a row is judged by, and how tables call it.
HEADS = dict(zip((*ROLES, "mean"), ("Rel.", "Gen.", "Por.", "Loc.", "mean"), strict=True))
ABOUT = {
    "teacher_forced": (
        "Teacher-forced: the share of a target's tokens that are the likeliest ones, given the true tokens before them; for "
        "locality, the share that are what they were before the edit."
    ),
    "generated": (
        "Generated: the model writes freely, and what it writes must begin with the answer or one of its aliases; for "
        "locality, it must be what it wrote before the edit."
    ),
}


def share(value: object) -> str:
    """0.934 as `93.4`; an en dash where nothing was measured."""
    found = number(value)
    return "–" if found is None else f"{100 * found:.1f}"


def gain(difference: Mapping[str, Any] | None) -> str:
    """A difference in points with its interval on a second line, marked where the interval excludes 0."""
    point = number(difference.get("difference")) if difference else None
    if difference is None or point is None:
        return "–"
    low, high = number(difference.get("low")), number(difference.get("high"))
    text = _signed(point)
    if low is None or high is None:
        return text
    return f"{text}{mark(low, high)}\n[{_signed(low)}, {_signed(high)}]"


def mark(low: float, high: float) -> str:
    """An arrow where a difference is not 0 for all that is known."""
    return " ▲" if low > 0 else " ▼" if high < 0 else ""


def _signed(value: float) -> str:
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def method_name(name: object) -> str:
    """`ft-m` as tables have it: FT-M."""
    known = {"lora": "LoRA", "alphaedit": "AlphaEdit"}
    return known.get(str(name), str(name).upper())


def loss_name(name: object) -> str:
    """`overtone` as tables have it; settings stay as they were given."""
    head, colon, rest = str(name).partition(":")
    return ("OVERTONE" if head == "overtone" else head) + colon + rest


def of_protocol(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of one protocol."""
    return [row for row in rows if protocol_of(row) == name]


def said(protocol: str) -> str:
    """`teacher_forced` as a page says it: teacher-forced."""
    return protocol.replace("_", "-")


def unedited(rows: Sequence[Row]) -> dict[str, float | None]:
    """What the unedited model answers right, by role, of the row with most cases; nothing where no row says it, as of runs of
    older versions."""
    known = [row for row in rows if any(number(row.get(f"{role}_unedited")) is not None for role in TAUGHT)]
    row = max(known, key=lambda row: number(row.get("cases")) or 0, default={})
    return {role: number(row.get(f"{role}_unedited")) for role in TAUGHT if row}


def rows_at(run: RunData, key: str) -> list[Row]:
    """The objects under a key of a run's summary."""
    found = run.summary.get(key)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def table_rows(run: RunData, pattern: str, select: Callable[[Any], Any] | None = None) -> list[Row]:
    """Rows of a run's Parquet files; `select` may thin each file's table before its rows are made.

    Raises:
        UserError: a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: list[Row] = []
    for path in sorted(run.path.glob(pattern)):
        if any(part.startswith(".") or part.endswith(".partial") for part in path.relative_to(run.path).parts):
            continue
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path} is not readable as Parquet ({error}): run the experiment again to rewrite it"
            ) from None
        found += (table if select is None else select(table)).to_pylist()
    return found
