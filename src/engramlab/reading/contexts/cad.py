"""The files of context-aware decoding: a line a stream, in JSON lines.

Source: arXiv 2305.14739 and its released code. Two lines of one `input_index`: `context_string` with the passage has
`assigned_weight` 1 + alpha (2), the one without has -alpha (-1); `filter_p` and `gold_answers` stand on either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.files import tables
from engramlab.reading import fields
from engramlab.reading.contexts import Reading


def read(path: str | Path) -> list[Reading]:
    """The questions of a file, in its order.

    Raises:
        UserError: a line without a key or of another type, a question without its two streams, weights that do not add up to
            one, or no right answer. Names file, line and key.
    """
    streams: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for place, record in tables.objects(path):
        if tables.missing(record.get("input_index")):
            raise UserError(f"{path}, {place}: key 'input_index' is missing")
        streams.setdefault(str(record["input_index"]), []).append((f"{path}, {place}", record))
    if not streams:
        raise UserError(f"{path}: has no records; write two lines a question, one with the passage and one without")
    return [_reading(name, lines) for name, lines in streams.items()]


def _reading(name: str, lines: list[tuple[str, Mapping[str, Any]]]) -> Reading:
    where = lines[0][0]
    if len(lines) != 2:
        raise UserError(f"{where}: question {name!r} has {len(lines)} streams; write two, with its passage and without")
    texts = [fields.text(record, "context_string", place) for place, record in lines]
    weights = [_number(record, "assigned_weight", place) for place, record in lines]
    if abs(sum(weights) - 1) > 1e-6 or max(weights) < 1:
        raise UserError(
            f"{where}, key 'assigned_weight': {weights[0]:g} and {weights[1]:g} are not 1 + alpha and -alpha, such as 2 and -1"
        )
    read, bare = (0, 1) if weights[0] > weights[1] else (1, 0)
    gold = next((r["gold_answers"] for _, r in lines if not tables.missing(r.get("gold_answers"))), None)
    answers = [gold] if isinstance(gold, str) else gold
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise UserError(f"{where}, key 'gold_answers': must be a text or a list of texts, not {quoted(gold)}")
    shares = [_number(r, "filter_p", place) for place, r in lines if not tables.missing(r.get("filter_p"))]
    if shares and not 0 <= shares[0] <= 1:
        raise UserError(f"{where}, key 'filter_p': must be from 0 to 1, not {shares[0]:g}")
    alpha, share = weights[read] - 1, shares[0] if shares else None
    return Reading(name, texts[read], texts[bare], "", tuple(answers), alpha, share)


def _number(record: Mapping[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where}: key {key!r} must be a finite number, not {quoted(value)}")
    return float(value)
