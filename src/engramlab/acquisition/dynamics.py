"""What log-probability curves say about acquiring and forgetting: maxima, effectivity, retainability, decay.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813), the definitions under
"Evaluation metrics". Pure functions of numpy arrays.

**Steps.** State s is the model after s updates, s = 0 before any. A passage injected at step t is part of update t -> t + 1,
so the last state that does not know of it is t.

**Sparse measurements.** ``logprobs[Q, S]`` holds one row a query and one column a measured state; ``steps`` says which state
each column is, every state from 0 on when it is None. A NaN is a state not measured. On a sparse grid every function gives
either the same number as on the full one or NaN: a maximum over a window counts only if all of its states were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from engramlab.acquisition.decay import (
    DecayBootstrap,
    DecayFit,
    Floats,
    GroupMean,
    Integers,
    bootstrap_decay,
    fit_decay,
    group_mean,
    inliers,
)

__all__ = [
    "NOWHERE",
    "WINDOW",
    "DecayBootstrap",
    "DecayFit",
    "GroupMean",
    "bootstrap_decay",
    "common_horizon",
    "effectivity",
    "fit_decay",
    "group_mean",
    "inliers",
    "local_acquisition_maxima",
    "measured_steps",
    "retainability",
    "span_logprobs",
]

WINDOW = 50  # AdamW's first moment has forgotten a gradient by then: 0.9 ** 50 is about 0.005
NOWHERE = -1  # a maximum that is not defined


def span_logprobs(tokens: npt.ArrayLike, offsets: npt.ArrayLike, how: Literal["mean", "sum"] = "mean") -> Floats:
    """Log-probabilities of spans from those of their tokens.

    The paper says "log probability of the target span"; its released code takes the mean over the target's tokens, and so
    does the default. A token the model is certain of (exactly 0) counts like any other.

    Args:
        tokens: ``[..., total]`` log-probabilities of target tokens.
        offsets: int ``[Q + 1]``; the tokens of query ``q`` are ``offsets[q]:offsets[q + 1]``.
        how: "mean" over a span's tokens, or their "sum".

    Returns:
        float64 ``[..., Q]``; NaN for a span without tokens.
    """
    if how not in ("mean", "sum"):
        raise ValueError(f"how must be 'mean' or 'sum', not {how!r}")
    values = np.asarray(tokens, np.float64)
    at = np.asarray(offsets, np.int64)
    counts = np.diff(at)
    spans = np.full((*values.shape[:-1], len(counts)), np.nan)
    full = counts > 0
    if full.any():
        sums = np.add.reduceat(values[..., : at[-1]], at[:-1][full], axis=-1)
        spans[..., full] = sums / counts[full] if how == "mean" else sums
    return spans


def measured_steps(
    measure: Literal["every", "window", "log"],
    total: int,
    injection_steps: Sequence[int],
    window: int = WINDOW,
    per_decade: int = 20,
) -> Integers:
    """Which states to measure in a run of ``total`` updates.

    Args:
        measure: "every" state; "window": the state before each injection and the ``window`` states after it, and behind the
            last injection also a logarithmic grid, on which retainability is read; "log": that grid behind every injection.
        injection_steps: of all groups.
        per_decade: states of the grid from t to 10 t steps after an injection.

    Returns:
        int64, rising; the first and the last state are always in it.
    """
    if measure not in ("every", "window", "log"):
        raise ValueError(f"measure must be 'every', 'window' or 'log', not {measure!r}")
    if measure == "every":
        return np.arange(total + 1)
    starts = np.unique(np.asarray(injection_steps, np.int64))
    decades = math.log10(max(total, 1)) + 1
    grid = np.unique(np.round(10 ** (np.arange(int(decades * per_decade) + 1) / per_decade)).astype(np.int64))
    dense = (starts[:, None] + np.arange(window + 1)).ravel()
    tails = [start + grid for start in (starts if measure == "log" else starts[-1:])]
    for i in range(len(tails) - 1):
        tails[i] = tails[i][tails[i] < starts[i + 1]]
    found = np.unique(np.concatenate([[0, total], dense, *tails]))
    return found[(found >= 0) & (found <= total)].astype(np.int64)


def local_acquisition_maxima(
    logprobs: npt.ArrayLike,
    injection_steps: npt.ArrayLike,
    window: int = WINDOW,
    *,
    steps: npt.ArrayLike | None = None,
) -> Integers:
    """t_LAM(q, i): the state with the highest log-probability among t_i < t <= t_i + window.

    The first of equal ones. A window that reaches beyond the last column, which counts as the end of the run, ends there;
    one that reaches beyond the next injection does not.

    Args:
        logprobs: ``[Q, S]``.
        injection_steps: ``[N]``, the t_i, in any order.
        window: t_w, in steps.
        steps: ``[S]``, rising: which state each column is.

    Returns:
        int64 ``[Q, N]``: states (not columns), ``-1`` where no state follows the injection or one of the window was not
        measured.
    """
    values, columns = _curves(logprobs, steps)
    starts = _injections(injection_steps)
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    maxima = np.full((len(values), len(starts)), NOWHERE, np.int64)
    for i, start in enumerate(starts):
        inside = slice(*np.searchsorted(columns, [start + 1, start + window + 1]))
        expected = min(start + window, int(columns[-1]) if len(columns) else 0) - start
        part = values[:, inside]
        if expected < 1 or part.shape[1] != expected:
            continue
        known = ~np.isnan(part).any(axis=1)
        maxima[known, i] = columns[inside][part[known].argmax(axis=1)]
    return maxima


def effectivity(
    logprobs: npt.ArrayLike,
    injection_steps: npt.ArrayLike,
    window: int = WINDOW,
    *,
    steps: npt.ArrayLike | None = None,
) -> Floats:
    """E(q, i) = l(t_LAM(q, i)) - l(t_i): what one encounter gains at its best.

    Arguments as for ``local_acquisition_maxima``.

    Returns:
        float64 ``[Q, N]``; NaN where the maximum is not defined or state t_i was not measured. Negative where the
        log-probability stayed below that before the injection.
    """
    values, columns = _curves(logprobs, steps)
    starts = _injections(injection_steps)
    maxima = local_acquisition_maxima(values, starts, window, steps=columns)
    before = np.repeat(starts[None, :], len(values), axis=0)
    return _at(values, columns, maxima) - _at(values, columns, before)


def retainability(
    logprobs: npt.ArrayLike,
    injection_steps: npt.ArrayLike,
    horizon: int,
    window: int = WINDOW,
    *,
    steps: npt.ArrayLike | None = None,
    interpolate: bool = False,
) -> Floats:
    """R(q, t): the part of what all encounters gained that is left t steps after the last maximum.

    R = [l(t_LAM(q, N) + t) - l(t_pre)] / [l(t_LAM(q, N)) - l(t_pre)], with N the last injection and t_pre the first one's
    step: 1 at t = 0, 0 when all is lost.

    Queries have their maxima at different states, so their rows end at different t. A mean over queries at a t that only some
    reach compares other queries than before: see ``common_horizon``.

    Args:
        horizon: largest t.
        interpolate: fill a t between two measured ones linearly in log t, instead of with NaN.

        The others as for ``local_acquisition_maxima``.

    Returns:
        float64 ``[Q, horizon + 1]``; a NaN row where the query gained nothing (denominator <= 0) or the maximum or t_pre is
        not known; NaN where state t_LAM + t was not measured or lies beyond the run.
    """
    values, columns = _curves(logprobs, steps)
    starts = _injections(injection_steps)
    if horizon < 0:
        raise ValueError(f"horizon must be at least 0, not {horizon}")
    # To interpolate at the horizon takes the next measured state behind it.
    end = max(horizon, int(columns[-1]) if len(columns) and interpolate else 0)
    kept = np.full((len(values), end + 1), np.nan)
    if len(starts):
        peak = local_acquisition_maxima(values, starts.max(keepdims=True), window, steps=columns)
        before = _at(values, columns, np.full_like(peak, starts.min()))
        gained = _at(values, columns, peak) - before
        after = _at(values, columns, peak + np.arange(end + 1))
        positive = gained[:, 0] > 0  # False for NaN, and so where there is no maximum
        kept[positive] = (after[positive] - before[positive]) / gained[positive]
    if interpolate:
        _fill(kept)
    return kept[:, : horizon + 1]


def common_horizon(total: int, injection_steps: npt.ArrayLike, window: int = WINDOW) -> int:
    """The largest t that every query of a run of ``total`` updates reaches, wherever in the last window its maximum lies."""
    return max(0, total - int(_injections(injection_steps).max()) - window)


def _curves(logprobs: npt.ArrayLike, steps: npt.ArrayLike | None) -> tuple[Floats, Integers]:
    values = np.asarray(logprobs, np.float64)
    if values.ndim != 2:
        raise ValueError(f"logprobs must be [queries, states], not of shape {values.shape}")
    columns = np.arange(values.shape[1]) if steps is None else np.asarray(steps, np.int64)
    if columns.shape != (values.shape[1],) or (np.diff(columns) <= 0).any():
        raise ValueError("steps must be one state a column, rising")
    return values, columns


def _injections(steps: npt.ArrayLike) -> Integers:
    starts = np.asarray(steps, np.int64)
    if starts.ndim != 1 or (starts < 0).any():
        raise ValueError("injection_steps must be a list of states, none negative")
    return starts


def _at(values: Floats, columns: Integers, wanted: Integers) -> Floats:
    """Values [Q, K] of each query at states [Q, K]; NaN where a state is not measured."""
    found = np.full(wanted.shape, np.nan)
    if len(columns):
        at = np.minimum(np.searchsorted(columns, wanted), len(columns) - 1)
        measured = columns[at] == wanted
        found[measured] = np.take_along_axis(values, at, axis=1)[measured]
    return found


def _fill(curves: Floats) -> None:
    """Fills NaN between known values of each row, linearly in log(column), in place."""
    x = np.log(np.maximum(np.arange(curves.shape[1]), 0.5))  # t = 0 is known whenever any t is
    for row in curves:
        known = np.flatnonzero(~np.isnan(row))
        if len(known) > 1:
            inside = slice(known[0], known[-1] + 1)
            row[inside] = np.interp(x[inside], x[known], row[known])
