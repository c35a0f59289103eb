"""Which difference between two decay constants a run can show, by how much the control moves without being taught.

A decay constant is minus the slope of what is kept over log t, and what is kept is a gain's part: so a passage that is never
injected, whose log-probability wanders by some slope too, says how far a passage's decay constant is off by chance, once that
slope is divided by the gain. The mean over n passages is off by 1/√n of it. Pure functions; the method is the textbook's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from engramlab.acquisition.curves import CurveOptions, Curves

LEVEL, POWER = 0.95, 0.8


def detectable(spreads: tuple[float, float], probes: float, *, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference between two means that will be seen: an interval of ``level`` leaves 0 out with ``power``.

    Args:
        spreads: standard deviation of one probe in either group.
        probes: independent probes a group (passages, not queries: those of one passage move together).
    """
    return _quantiles(level, power) * math.hypot(*spreads) / math.sqrt(probes)


def probes_needed(
    spreads: tuple[float, float], difference: float, *, level: float = LEVEL, power: float = POWER
) -> float:
    """Probes a group with which ``difference`` is just ``detectable``."""
    return (_quantiles(level, power) * math.hypot(*spreads) / difference) ** 2


def _quantiles(level: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)


def control_slopes(
    curves: Curves, depth: str, reading: CurveOptions, steps: Sequence[Sequence[int]]
) -> dict[int, float]:
    """How far the slopes over log t of never injected passages differ, read as if they had been injected.

    Args:
        steps: injections of the groups that the control is read at.

    Returns:
        By horizon (a quarter, half, all of the longest t): the standard deviation over passages of the slope, nats for each
        time t grows by the base; empty with fewer than three passages or too short a run.
    """
    rows = np.concatenate(curves.of("never", depth) or [np.empty(0, np.int64)])
    names, owner = np.unique([curves.queries[int(i)]["passage"] for i in rows], return_inverse=True)
    longest = curves.total - max((max(at) for at in steps), default=0) - reading.window
    found: dict[int, float] = {}
    for horizon in (longest // 4, longest // 2, longest):
        if len(names) < 3 or horizon < max(3, reading.t_min + 2):
            continue
        t = np.arange(max(reading.t_min, 1), horizon + 1)
        x = np.log(t) / math.log(reading.base)
        weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        variances = []
        for at in steps:
            slopes = curves.at(rows, max(at) + 1 + t, reading) @ weights
            of = np.bincount(owner, slopes) / np.bincount(owner)
            variances.append(of.var(ddof=1))
        found[int(horizon)] = math.sqrt(float(np.mean(variances)))
    return found


def steps_needed(slopes: dict[int, float], excess: float) -> float | None:
    """Steps behind the last injection after which the spread is ``excess`` times smaller, if it goes on falling as it did from
    the shortest to the longest horizon; None where it did not fall."""
    if excess <= 1 and slopes:
        return float(max(slopes))
    if len(slopes) < 2:
        return None
    first, last = min(slopes), max(slopes)
    if not 0 < slopes[last] < slopes[first]:
        return None
    exponent = math.log(slopes[first] / slopes[last]) / math.log(last / first)
    reach = math.log(last) + math.log(excess) / exponent
    return math.exp(reach) if reach < 30 else math.inf
