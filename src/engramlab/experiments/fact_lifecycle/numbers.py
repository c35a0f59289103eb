"""What curves of log-probabilities say of how long facts last: retention, half-lives, survival, matched pairs. No models.

Retention and the half-life by a line over the logarithm of the steps are ours; survival is Kaplan and Meier's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.arrays import Floats
from engramlab.base.rows import Row

LEAST = 0.1  # nats a token that a fact must have become likelier, for its retention to say anything
NEAR = 0.1  # share by which matched facts may differ
FEWEST_PAIRS = 5  # of which a difference has an interval
SAMPLES = 1000


def retention(arm: Floats, twin: Floats) -> Floats:
    """What is left of what a fact had gained over the twin, ``[points, facts]``: 1 at the first point, 0 where it is gone.

    NaN for facts that had gained 0.1 nats or less: nothing went in that could be lost.

    Args:
        arm, twin: mean log-probability of a fact's target, in nats a token, ``[points, facts]`` each.
    """
    gained = arm - twin
    first = np.where(gained[0] > LEAST, gained[0], np.nan)
    return gained / first


def half_life(steps: Sequence[float], values: Floats) -> float:
    """Steps after which a line through ``values[points]`` over the logarithm of the steps is at one half; infinite where it
    does not get there within those measured. Step 0, where the values are 1 by definition, is none of the line's points."""
    x, y = np.log(np.asarray(steps[1:], dtype=np.float64)), np.asarray(values[1:], dtype=np.float64)
    if not len(x) or not np.isfinite(y).all():
        return math.nan
    slope, at_one = np.polyfit(x, y, 1) if len(x) > 1 else (0.0, y[0])
    if at_one <= 0.5:
        return float(steps[1])
    if slope >= 0:
        return math.inf
    reached = math.exp(min((0.5 - at_one) / slope, 60.0))
    return reached if reached <= steps[-1] * (1 + 1e-9) else math.inf


def survival(written: np.ndarray) -> Floats:
    """Of facts written at the first point, the share still written at each point: Kaplan and Meier's estimate, ``[points]``.

    A fact is lost at the first point where it is not written; those never lost are censored at the last. NaN without any.

    Args:
        written: bool ``[points, facts]``.
    """
    there = written[:, written[0]]
    if not there.shape[1]:
        return np.full(len(written), np.nan)
    alive = np.logical_and.accumulate(there, axis=0)
    found = np.ones(len(written))
    for k in range(1, len(written)):
        risk = alive[k - 1].sum()
        lost = risk - alive[k].sum()
        found[k] = found[k - 1] * (1 - lost / risk) if risk else 0.0
    return found


def draws_of(subjects: Sequence[str], seed: int) -> list[np.ndarray]:
    """For each of 1,000 resamples of the subjects, the facts drawn (numbers; a subject's facts go together)."""
    named = list(dict.fromkeys(subjects))
    of = [np.flatnonzero([one == name for one in subjects]) for name in named]
    return [np.concatenate([of[i] for i in drawn]) for drawn in bootstrap.draws(len(named), SAMPLES, seed)]


def spread(values: Sequence[float] | Floats, *, observed: bool = False) -> dict[str, float | None]:
    """``low`` and ``high`` of resampled values; None where there is nothing, or it is infinite."""
    low, high = bootstrap.interval(np.asarray(values, dtype=np.float64), observed=observed)
    return {"low": plain(low), "high": plain(high)}


def plain(value: float) -> float | None:
    """A number as JSON has it: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def mean_of(values: Floats, facts: np.ndarray) -> Floats:
    """``[points]``: mean over some facts (numbers, with repetition) of ``values[points, facts]``, NaN left out."""
    some = values[:, facts]
    there = np.isfinite(some)
    counts = there.sum(1)
    sums = np.where(there, some, 0.0).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def course(steps: Sequence[int], looked: dict[str, Any], subjects: Sequence[str], seed: int) -> tuple[list[Row], Row]:
    """A row a point, and one of the whole. ``margin`` is a share of what it was at the first point; None where that is not
    surely above 0.

    Args:
        looked: ``retention``, ``margin`` (float) and ``written`` (bool), ``[points, facts]`` each; retention may be None.
    """
    every, drawn = np.arange(len(subjects)), draws_of(subjects, seed)
    kept, margin, written = looked["retention"], looked["margin"], looked["written"]

    margins, resampled = mean_of(margin, every), np.stack([mean_of(margin, facts) for facts in drawn])
    sure = (spread(resampled[:, 0])["low"] or 0.0) > 0  # a share of what may have been nothing is any number

    def ratio(means: Floats) -> Floats:
        return means / np.where(sure & (means[..., :1] > 0), means[..., :1], np.nan)

    columns: dict[str, tuple[Floats, Floats]] = {
        "margin": (ratio(margins), ratio(resampled)),
        "survival": (survival(written), np.stack([survival(written[:, facts]) for facts in drawn])),
    }
    if kept is not None:
        columns["retention"] = mean_of(kept, every), np.stack([mean_of(kept, facts) for facts in drawn])
    rows = []
    for k, step in enumerate(steps):
        row: Row = {"steps": int(step)}
        for name, (value, samples) in columns.items():
            row[name] = plain(value[k])
            row |= {f"{name}_{end}": at for end, at in spread(samples[:, k]).items()}
        rows.append(row)
    whole: Row = {
        "facts": len(subjects),
        "written": int(written[0].sum()),
        "left_out": 0 if kept is None else int((~np.isfinite(kept[0])).sum()),
        "margin_before": plain(float(margins[0])),
        "half": None,
        "censored": None,
    }
    if kept is not None and np.isfinite(kept[0]).any():
        half = half_life(steps, columns["retention"][0])
        halves = [half_life(steps, one) for one in columns["retention"][1]]
        low, high = bootstrap.interval(np.array(halves), observed=True)
        whole |= {"half": plain(half), "half_low": plain(low), "half_high": plain(high), "censored": math.isinf(half)}
    return rows, whole


def matched(one: Row, other: Row, seed: int) -> Row:
    """Two arms by facts that became equally likely, and were equally likely before: one arm's mean retention over the points
    behind the first, less the other's, over pairs; with an interval from five pairs on.

    Facts are paired with themselves where they match, then with the nearest that is free.

    Args:
        one, other: ``gained``, ``before`` ``[facts]`` and ``retention`` ``[points, facts]``.
    """
    left, pairs = set(range(len(other["gained"]))), []
    for i in range(len(one["gained"])):
        fits = [j for j in left if _near(one, i, other, j)]
        if fits:
            j = min(fits, key=lambda j: (j != i, abs(one["gained"][i] - other["gained"][j])))
            left.remove(j)
            pairs.append((i, j))
    count = len(one["gained"])
    if not pairs:
        return {"pairs": 0, "unmatched": count, "difference": None, "low": None, "high": None}
    each = np.array([one["retention"][1:, i].mean() - other["retention"][1:, j].mean() for i, j in pairs])
    found: Row = {"pairs": len(pairs), "unmatched": count - len(pairs), "difference": float(each.mean())}
    if len(pairs) < FEWEST_PAIRS:  # resamples of a pair or two hardly differ: an interval of them is sure of anything
        return {**found, "low": None, "high": None}
    return {**found, **spread(each[bootstrap.draws(len(each), SAMPLES, seed)].mean(1))}


def _near(one: Row, i: int, other: Row, j: int) -> bool:
    a, b = one["gained"][i], other["gained"][j]
    x, y = one["before"][i], other["before"][j]
    if min(a, b) <= LEAST:
        return False
    return bool(abs(a - b) <= NEAR * max(a, b) and abs(x - y) <= NEAR * max(abs(x), abs(y)))
