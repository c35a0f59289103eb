"""How retainability falls with log t: outliers, the group's mean, the fitted line and how sure it is.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813). Pure functions of
numpy arrays; `engramlab.acquisition.dynamics` has them all under its own name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engramlab.base import bootstrap
from engramlab.base.arrays import Booleans, Floats, Integers, brief


def inliers(values: npt.ArrayLike, factor: float = 1.5, *, axis: int | None = 0) -> Booleans:
    """Values within [Q1 - factor * IQR, Q3 + factor * IQR] of their kind, bounds included.

    The paper uses the factor 1.5, its released code 2.0; each applies the rule per group, depth and t.

    Args:
        values: any shape, such as retainability ``[Q, T]`` of one group and depth.
        factor: how many interquartile ranges beyond the quartiles a value may lie.
        axis: the axis the queries are on; None for quartiles over all values.

    Returns:
        bool, the shape of ``values``; False for NaN.
    """
    array = np.asarray(values, np.float64)
    flat = array.reshape(-1) if axis is None else np.moveaxis(array, axis, -1)
    low, high = _fences(np.ascontiguousarray(flat), factor)
    with np.errstate(invalid="ignore"):
        inside = (flat >= low) & (flat <= high)
    return inside.reshape(array.shape) if axis is None else np.moveaxis(inside, -1, axis)


@dataclass(frozen=True)
class GroupMean:
    """A mean over queries and what went into it, at each t (or of each encounter).

    Attributes:
        mean: float64 ``[T]``; NaN where no value is left.
        used, outliers, undefined: int64 ``[T]``: how many values were averaged, left out by the outlier rule, or NaN.
    """

    __repr__ = brief

    mean: Floats
    used: Integers
    outliers: Integers
    undefined: Integers


def group_mean(values: npt.ArrayLike, factor: float | None = 1.5) -> GroupMean:
    """Mean over the queries of one group and depth, column by column, without outliers.

    Args:
        values: ``[Q, T]``.
        factor: of ``inliers``; None keeps all.
    """
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    inside = known if factor is None else inliers(array, factor)
    used = inside.sum(axis=0)
    sums = np.where(inside, array, 0.0).sum(axis=0)
    mean = np.divide(sums, used, out=np.full(array.shape[1], np.nan), where=used > 0)
    return GroupMean(mean, used, known.sum(axis=0) - used, (~known).sum(axis=0))


@dataclass(frozen=True)
class DecayFit:
    """A straight line through retainability over log t.

    Attributes:
        decay_constant: a, minus its slope: the part lost each time t is multiplied by ``base``.
        intercept: its value at t = 1.
        r_squared: part of the variance it explains; NaN for a constant curve.
        stderr: standard error of the decay constant from the residuals alone. Neighbouring t share queries and noise, and
            the spread between queries does not enter, so it is too small: see ``bootstrap_decay``. NaN with two points.
        threshold_steps: the t at which the line is 0, the learnability threshold: the longest interval between encounters at
            which something is left of the last one. Infinite where nothing decays.
        base: of the logarithm.
        points: how many t the line was fitted to.
    """

    decay_constant: float
    intercept: float
    r_squared: float
    stderr: float
    threshold_steps: float
    base: float = 10
    points: int = 0

    def threshold_tokens(self, batch: int, window: int) -> float:
        """The threshold in training tokens: steps x batch (rows) x window (tokens a row)."""
        return self.threshold_steps * batch * window

    def log10_threshold_tokens(self, batch: int, window: int) -> float:
        """The threshold as the paper's tables give it, log10 of tokens; stays finite where the tokens overflow."""
        if self.decay_constant <= 0:
            return math.inf
        return self.intercept / self.decay_constant * math.log10(self.base) + math.log10(batch * window)


def fit_decay(
    t: npt.ArrayLike,
    mean_retainability: npt.ArrayLike,
    base: float = 10,
    *,
    t_min: float = 1,
    t_max: float = math.inf,
) -> DecayFit:
    """Least squares of a group's mean retainability against log t, the power law of forgetting.

    Args:
        t: ``[T]`` steps since the maximum.
        mean_retainability: ``[T]``; NaN values are left out.
        base: of the logarithm: 10 as in the released code and the paper's tables, ``math.e`` for natural.
        t_min, t_max: the range of t to fit, bounds included; t < 1 never counts.

    Returns:
        The fit; all NaN with fewer than two points.
    """
    if not base > 1:
        raise ValueError(f"base must be above 1, not {base}")
    times, kept = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(mean_retainability, np.float64))
    use = np.isfinite(kept) & (times >= max(t_min, 1)) & (times <= t_max)
    x, y = np.log(times[use]) / math.log(base), kept[use]
    n = len(x)
    spread = float(((x - x.mean()) ** 2).sum()) if n else 0.0
    if n < 2 or spread == 0:
        return DecayFit(math.nan, math.nan, math.nan, math.nan, math.nan, base, n)
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean() - slope * x.mean())
    residual = float(((y - intercept - slope * x) ** 2).sum())
    variation = float(((y - y.mean()) ** 2).sum())
    r_squared = 1 - residual / variation if variation > 0 else math.nan
    stderr = math.sqrt(residual / (n - 2) / spread) if n > 2 else math.nan
    return DecayFit(-slope, intercept, r_squared, stderr, _threshold(-slope, intercept, base), base, n)


@dataclass(frozen=True)
class DecayBootstrap:
    """How far a decay fit could have come out otherwise with other queries.

    Attributes:
        decay_constant, log10_threshold_steps: float64 ``[samples]``, of each resample; a threshold is infinite where the
            resample's curve did not fall.
        stderr: standard deviation of the decay constant over the resamples.
        interval, threshold_interval: percentile intervals of the decay constant and of the threshold in steps.
        level: what part of the resamples the intervals hold.
    """

    __repr__ = brief

    decay_constant: Floats
    log10_threshold_steps: Floats
    stderr: float
    interval: tuple[float, float]
    threshold_interval: tuple[float, float]
    level: float


def bootstrap_decay(
    values: npt.ArrayLike,
    *,
    samples: int = 1000,
    seed: int = 0,
    clusters: npt.ArrayLike | None = None,
    factor: float | None = 1.5,
    base: float = 10,
    t_min: float = 1,
    t_max: float = math.inf,
    level: float = 0.95,
) -> DecayBootstrap:
    """Bootstrap over queries: draw queries with replacement, leave out outliers, average and fit, again and again.

    Args:
        values: retainability ``[Q, T]`` of one group and depth, column t being t steps after the maximum.
        clusters: ``[Q]`` labels; queries with one label (of one passage, say) are drawn together. None draws single ones.
        factor: of ``inliers``, applied anew in every resample; None keeps all.
        base, t_min, t_max: of ``fit_decay``.
    """
    array = np.ascontiguousarray(np.asarray(values, np.float64).T)
    labels = np.arange(array.shape[1]) if clusters is None else np.asarray(clusters)
    _, owner = np.unique(labels, return_inverse=True)
    members = [np.flatnonzero(owner == c) for c in range(owner.max(initial=-1) + 1)]
    t = np.arange(len(array))
    use = (t >= max(t_min, 1)) & (t <= t_max)
    t, array = t[use], array[use]
    constants, thresholds = np.full(samples, np.nan), np.full(samples, np.nan)
    for k, drawn in enumerate(bootstrap.draws(len(members), samples if members else 0, seed)):
        chosen = np.concatenate([members[c] for c in drawn])
        fit = fit_decay(t, group_mean(array[:, chosen].T, factor).mean, base)
        constants[k], thresholds[k] = fit.decay_constant, fit.log10_threshold_tokens(1, 1)
    known = ~np.isnan(constants)
    stderr = float(constants[known].std(ddof=1)) if known.sum() > 1 else math.nan
    ends = bootstrap.ends_of(level)
    # A threshold may be infinite, and NaN only where the constant is.
    low, high = bootstrap.interval(thresholds[known], ends, observed=True)
    spread = bootstrap.interval(constants, ends, observed=True)
    return DecayBootstrap(constants, thresholds, stderr, spread, (_power(10, low), _power(10, high)), level)


def _fences(rows: Floats, factor: float) -> tuple[Floats, Floats]:
    """Lowest and highest inlier of each row: [..., 1]. numpy's nanquantile gives the same, a hundred times slower."""
    if not rows.shape[-1]:
        return np.full((*rows.shape[:-1], 1), np.nan), np.full((*rows.shape[:-1], 1), np.nan)
    ordered = np.sort(rows, axis=-1)  # NaN goes last
    count = (~np.isnan(rows)).sum(axis=-1, keepdims=True)
    quartiles = []
    for part in (0.25, 0.75):
        place = np.maximum(count - 1, 0) * part
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(ordered, at, axis=-1) for at in (below, above))
        with np.errstate(invalid="ignore"):
            quartiles.append(np.where(place == below, low, low + (high - low) * (place - below)))
    first, third = quartiles
    with np.errstate(invalid="ignore"):
        return first - factor * (third - first), third + factor * (third - first)


def _threshold(decay_constant: float, intercept: float, base: float) -> float:
    return _power(base, intercept / decay_constant) if decay_constant > 0 else math.inf


def _power(base: float, exponent: float) -> float:
    try:
        return base**exponent
    except OverflowError:
        return math.inf
