"""The bootstrap: how far a number could have come out otherwise with other people, passages, cases or points.

Everything is drawn with replacement by a generator of its own seed, so that whoever resamples the same things with the same
seed sees the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engramlab.base.arrays import Floats, Integers

ENDS = (0.025, 0.975)  # of a 95 % percentile interval
_AT_ONCE = 4_000_000  # resampling weights held in memory


def draws(n: int, samples: int, seed: int) -> Integers:
    """Which of `n` things are drawn in each resample: int64 ``[samples, n]``; nothing is drawn of nothing."""
    return np.random.default_rng(seed).integers(max(n, 1), size=(samples, n))


def times(drawn: Integers) -> Floats:
    """How often each thing is in each resample of ``draws``: float64 ``[samples, n]``; sums then are one product."""
    samples, n = drawn.shape
    flat = (drawn + np.arange(samples)[:, None] * n).ravel()
    return np.bincount(flat, minlength=samples * n).reshape(samples, n).astype(np.float64)


def ratios(sums: Floats, counts: Floats | Integers, samples: int, seed: int) -> Floats:
    """``sums[m, n] / counts`` (``[n]`` or ``[m, n]``) summed over each resample of the n things: ``[m, samples]``.

    For n too many for ``draws``; 0 where a resample has none.
    """
    rng, n = np.random.default_rng(seed), sums.shape[1]
    found, size = [], max(1, _AT_ONCE // n)
    for start in range(0, samples, size):
        weights = rng.multinomial(n, np.full(n, 1 / n), min(size, samples - start)).T
        found.append((sums @ weights) / np.maximum(counts @ weights, 1))
    return np.concatenate(found, axis=1)


def intervals(values: Floats) -> tuple[Floats, Floats]:
    """The 95 % percentile intervals of resampled values ``[m, samples]``: low and high ends, ``[m]`` each."""
    low, high = np.quantile(values, ENDS, axis=1)
    return low, high


def interval(values: Floats, ends: tuple[float, float] = ENDS, *, observed: bool = False) -> tuple[float, float]:
    """The percentile interval of resampled values ``[samples]``, NaN left out.

    Args:
        ends: the quantiles; 95 % by default.
        observed: take values that occur, not ones between two: needed where some are infinite.

    Returns:
        Low and high end; NaN without values.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, ends, method="inverted_cdf" if observed else "linear")
    return float(low), float(high)


def mean(name: str, values: Sequence[float | None] | Floats, seed: int, samples: int = 1000) -> dict[str, float | None]:
    """The mean of things' values under ``name``, and the ends of its 95 % interval under ``{name}_low`` and ``{name}_high``;
    None and NaN are left out, and without any value all three are None."""
    of = np.asarray([value for value in values if value is not None], dtype=np.float64)
    of = of[~np.isnan(of)]
    if not len(of):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = interval(times(draws(len(of), samples, seed)) / len(of) @ of)
    return {name: float(of.mean()), f"{name}_low": low, f"{name}_high": high}


def ends_of(level: float) -> tuple[float, float]:
    """The quantiles between which that part of the resamples lies."""
    return (1 - level) / 2, (1 + level) / 2


def ranged(
    values: Floats, of: np.ndarray, seed: int, name: str = "exact_match", samples: int = 1000
) -> dict[str, float]:
    """The mean of ``values[n]`` as ``name`` and its 95 % interval over what they are ``of[n]`` (subjects, say) as ``name_low``
    and ``name_high``."""
    _, number = np.unique(of, return_inverse=True)
    sums = np.bincount(number, values.astype(np.float64)).astype(np.float64)[None]
    (low,), (high,) = intervals(ratios(sums, np.bincount(number), samples, seed))
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
