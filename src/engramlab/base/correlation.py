"""How two measurements of the same things go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base import bootstrap

REPLICATES = 10_000
FEWEST = 3  # points that have an order to speak of


def spearman(
    x: Sequence[float], y: Sequence[float], *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Spearman's rho and its 95 % percentile bootstrap interval over points; None where there is no order to speak of.

    Points of one dataset are not independent of each other, so the interval is narrower than one over datasets would be.
    """
    from scipy.stats import rankdata

    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) < FEWEST or not np.ptp(xs) or not np.ptp(ys):
        return None, None, None
    chosen = bootstrap.draws(len(xs), replicates, seed)
    drawn = _correlation(rankdata(xs[chosen], axis=1), rankdata(ys[chosen], axis=1))
    low, high = bootstrap.interval(drawn)  # without NaN: a draw of one point again and again has no order
    return float(_correlation(rankdata(xs)[None], rankdata(ys)[None])[0]), low, high


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the rows of two arrays, ``[n]``; NaN for a constant row."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: np.ndarray = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return r
