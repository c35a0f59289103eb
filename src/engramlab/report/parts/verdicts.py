"""When a number may be said to be more than another: the one rule of all headlines, tables and verdicts.

Two numbers differ where their intervals do not overlap; a number differs from a known one where its interval leaves that out.
Anything else is within noise: the run cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from engramlab.report.rows import number

SO, NOT_SO, NOISE, UNKNOWN = "as in the paper", "not so here", "within noise", "no interval to judge by"
#: Below this share of the very questions a model was trained on it was not trained long enough: what it cannot say of those it
#: has seen answered says nothing about those it has not.
LEARNT = 0.5
_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval; the ends are the number itself where it is known."""

    value: float
    low: float
    high: float


def interval(row: Mapping[str, Any], name: str, bounds: str | None = None) -> Interval | None:
    """A row's ``name`` with ``{bounds}low`` and ``{bounds}high`` (``name_low`` by default); None where one is missing."""
    bounds = f"{name}_" if bounds is None else bounds
    value, low, high = (number(row.get(key)) for key in (name, f"{bounds}low", f"{bounds}high"))
    return None if value is None or low is None or high is None else Interval(value, low, high)


def wilson(share: float, n: float) -> Interval:
    """The 95 % Wilson interval of a share of ``n`` things; all of 0 to 1 without any."""
    if n <= 0:
        return Interval(share, 0.0, 1.0)
    middle, wide = share + _Z**2 / (2 * n), _Z * math.sqrt(max(0.0, share * (1 - share)) / n + (_Z / (2 * n)) ** 2)
    low, high = ((middle + way * wide) / (1 + _Z**2 / n) for way in (-1, 1))
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def of_seeds(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Interval | None:
    """The mean of runs that differ in their seed alone, with Student's 95 % interval of that mean; None of fewer than two.

    Args:
        least, most: what the number can be; the interval ends there.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    wide = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    return Interval(mean, max(least, mean - wide), min(most, mean + wide))


def more(one: Interval | None, other: Interval | float | None) -> bool | None:
    """Is the first more than the other? None where noise hides it, or an interval is missing."""
    if one is None or other is None:
        return None
    low, high = (other, other) if isinstance(other, int | float) else (other.low, other.high)
    return True if one.low > high else False if one.high < low else None


def verdict(falling: Sequence[Interval | None]) -> str:
    """What becomes of the claim that these numbers fall, each to the next."""
    if any(one is None for one in falling):
        return UNKNOWN
    found = [more(one, other) for one, other in pairwise(falling)]
    return NOT_SO if False in found else NOISE if None in found else SO


def every(verdicts: Sequence[str]) -> str:
    """What becomes of a claim that is made of these: it is so where all are."""
    return next((one for one in (NOT_SO, UNKNOWN, NOISE) if one in verdicts), SO if verdicts else UNKNOWN)


def less(one: Interval | None, other: Interval | None) -> Interval | None:
    """The first less the second, two independent numbers: their intervals' half-widths add as squares do."""
    if one is None or other is None:
        return None
    value = one.value - other.value
    down = math.hypot(one.value - one.low, other.high - other.value)
    return Interval(value, value - down, value + math.hypot(one.high - one.value, other.value - other.low))
