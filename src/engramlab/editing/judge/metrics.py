"""From one row a query to the table: means by role, by kind, and differences with an interval. No model code.

A number of a case is the mean over its queries of that role; a number of a table is the mean over cases. Both protocols are
reported side by side and never mixed. What could not be measured (None) is left out and counts nowhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.rows import PROTOCOLS, ROLES, Row
from engramlab.measuring.answers import is_answer, is_named

BY_KIND = ("portability", "locality")
BEYOND = ("fluency_before", "fluency", "nats_before", "nats", "kl")
"""What ``judge/beyond.py`` writes into a row of each case."""


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table's numbers of some rows of ``evaluation.judge``.

    Returns:
        ``{"cases": n, "queries": n, "teacher_forced": {role: share or None, "mean": ...}, "generated": {...},
        "counts": {role: {"cases": n, "queries": n}}, "kinds": {"portability": {kind: {"teacher_forced": share,
        "generated": share, "cases": n, "queries": n}}, "locality": {...}}, "portability_by_kind": {protocol: share}, "beyond":
        {name: mean over cases or None}, "edit_quality": see there, "recall": {role: share of queries before which an edit of
        the case was read} or None where no notes are read}``. The mean is over those of the four roles that the rows have;
        counts are of queries measured under at least one protocol. ``portability_by_kind`` is a case's mean over its kinds of
        portability, where the share of the role is over its queries.
    """
    cases = sorted({str(row["case"]) for row in rows})
    found: dict[str, Any] = {"cases": len(cases), "queries": len(rows)}
    for protocol in PROTOCOLS:
        shares = {role: _mean(_by_case(_of(rows, role), protocol).values()) for role in ROLES}
        found[protocol] = {**shares, "mean": _mean(v for v in shares.values() if v is not None)}
    found["counts"] = {role: _counts(_of(rows, role)) for role in ROLES}
    found["portability_by_kind"] = {
        protocol: _mean(_by_case(_of(rows, "portability"), protocol, by_kind=True).values()) for protocol in PROTOCOLS
    }
    found["beyond"] = {name: _mean(row[name] for row in rows if row.get(name) is not None) for name in BEYOND}
    found["edit_quality"] = edit_quality(rows)
    found["recall"] = _recall(rows)
    found["kinds"] = {}
    for role in BY_KIND:
        of_role = _of(rows, role)
        found["kinds"][role] = {}
        for kind in sorted({row["group"] for row in of_role}):
            of_kind = [row for row in of_role if row["group"] == kind]
            shares = {protocol: _mean(_by_case(of_kind, protocol).values()) for protocol in PROTOCOLS}
            found["kinds"][role][kind] = {**shares, **_counts(of_kind)}
    return found


def right(row: Mapping[str, Any], when: str) -> bool:
    """Is what the model wrote ``before`` or ``after`` the edit right, as the query counts it (``Query.within``)?"""
    text, answers = row[f"written_{when}"], (row["target"], *row["aliases"])
    return is_named(text, answers) if row.get("within") else is_answer(text, answers, row.get("said") or "")


def unedited(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The control: the same rows as if the unedited model had been judged in the edited one's place, so that ``metrics`` of
    them are what a method has to beat. What must stay is as it was by definition; what was not measured after the edit is
    not counted before it."""
    found = []
    for row in rows:
        if row["role"] == "locality":
            was: dict[str, float] = dict.fromkeys(PROTOCOLS, 1.0)
        else:
            greedy = row["greedy_before"]
            was = {
                "teacher_forced": float(np.mean(greedy)) if len(greedy) else math.nan,
                "generated": float(right(row, "before")),
            }
        found.append({**row, **{name: None if row[name] is None else was[name] for name in PROTOCOLS}})
    return found


def difference(
    rows_a: Sequence[Mapping[str, Any]],
    rows_b: Sequence[Mapping[str, Any]],
    *,
    seed: int = 0,
    samples: int = 2000,
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """What the first rows' numbers have over the second's, with 95% intervals: cases drawn with replacement, in pairs.

    Only cases that both have take part (of a role: those where both measured it).

    Args:
        rows_a: of ``judge``, with a loss to be compared, say.
        rows_b: with the other loss, the same cases.
        seed: of the bootstrap; every role and protocol sees the same resampled cases.
        samples: how many resamples.

    Returns:
        ``{protocol: {role or "mean": {"difference": a - b, "low": 2.5% quantile, "high": 97.5%, "cases": n} or None}}``; None
        where no case was measured by both.

    Raises:
        UserError: the two have no case in common.
    """
    cases = sorted({str(r["case"]) for r in rows_a} & {str(r["case"]) for r in rows_b})
    if not cases:
        raise UserError("these results have no case in common: a difference is taken case by case")
    times = bootstrap.times(bootstrap.draws(len(cases), samples, seed))
    found: dict[str, dict[str, dict[str, Any] | None]] = {}
    for protocol in PROTOCOLS:
        found[protocol], points, clouds, used = {}, [], [], np.zeros(len(cases), dtype=bool)
        for role in ROLES:
            a, b = (_by_case(_of(rows, role), protocol) for rows in (rows_a, rows_b))
            gains = np.array([a[case] - b[case] if case in a and case in b else np.nan for case in cases])
            there = ~np.isnan(gains)
            if not there.any():
                found[protocol][role] = None
                continue
            weights = times[:, there]
            total = weights.sum(axis=1)
            cloud = np.divide(weights @ gains[there], total, out=np.full(samples, np.nan), where=total > 0)
            points.append(float(gains[there].mean()))
            clouds.append(cloud)
            used |= there
            found[protocol][role] = _interval(points[-1], cloud, int(there.sum()))
        mean = _interval(float(np.mean(points)), np.mean(clouds, axis=0), int(used.sum())) if points else None
        found[protocol]["mean"] = mean
    return found


def edit_quality(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Edit success, behaviour preservation, their harmonic mean (ES, BP, EQ of arXiv 2403.17431), all generated: of a case the
    share of its questions in scope (reliability, generality) that are answered right, and of those out of scope
    (locality) that are answered as before; then means over cases. None where one of the two was not asked."""
    scopes = ([row for row in rows if row["role"] in ("reliability", "generality")], _of(rows, "locality"))
    es, bp = (_mean(_by_case(some, "generated").values()) for some in scopes)
    if es is None or bp is None:
        return None
    return {"es": es, "bp": bp, "eq": 2 * es * bp / (es + bp) if es + bp else 0.0}


def _recall(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None] | None:
    noted = [row for row in rows if row.get("recalled") is not None]
    if not noted:
        return None
    return {role: _mean(_by_case(_of(noted, role), "recalled").values()) for role in ROLES}


def fluency(texts: Iterable[str]) -> float:
    """Mean over texts of the weighted entropy of their word 2- and 3-grams, in bits: (2/3 · H2 + 4/3 · H3) / 2.

    A model broken by an edit repeats itself, and its n-grams have little entropy (arXiv 2202.05262, section 3.4, where it is
    "GE" and printed times 100). Words are runs of letters and digits, or single marks; NaN without texts.
    """
    values = [(2 / 3 * _entropy(text, 2) + 4 / 3 * _entropy(text, 3)) / 2 for text in texts]
    return float(np.mean(values)) if values else math.nan


def _entropy(text: str, n: int) -> float:
    words = re.findall(r"\w+|[^\w\s]", text)
    counts = np.array(list(Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()), dtype=np.float64)
    shares = counts / counts.sum() if len(counts) else counts
    return float(-(shares * np.log2(shares)).sum())


def _of(rows: Sequence[Mapping[str, Any]], role: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["role"] == role]


def _by_case(rows: Iterable[Mapping[str, Any]], protocol: str, *, by_kind: bool = False) -> dict[str, float]:
    """Mean over each case's queries that were measured; or over the means of its kinds of them."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        value = row[protocol]
        if value is not None and not math.isnan(value):
            kind = str(row["group"]) if by_kind else ""
            values.setdefault(str(row["case"]), {}).setdefault(kind, []).append(float(value))
    return {case: float(np.mean([np.mean(of) for of in kinds.values()])) for case, kinds in values.items()}


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    measured = [row for row in rows if any(_by_case([row], protocol) for protocol in PROTOCOLS)]
    return {"cases": len({str(row["case"]) for row in measured}), "queries": len(measured)}


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.mean(listed)) if listed else None


def _interval(point: float, cloud: np.ndarray, cases: int) -> dict[str, Any]:
    low, high = bootstrap.interval(cloud)
    return {"difference": point, "low": low, "high": high, "cases": cases}
