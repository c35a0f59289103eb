"""The laws of acquisition and forgetting in a run's measurements, and how far they were off where they can be checked.

Laws are read at the same distance from every encounter for all queries: maxima picked query by query, as effectivity is
defined, are too high by the curves' noise, and a forecast has to be right on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramlab.acquisition import dynamics, planner
from engramlab.acquisition.planner import Law
from engramlab.corpora.passages import DEPTHS
from engramlab.experiments.knowledge_acquisition.config import Reading
from engramlab.experiments.knowledge_acquisition.curves import Curves


@dataclass(frozen=True)
class Measured:
    """A law and where targets stood before."""

    law: Law
    before: float


def law_of(curves: Curves, group: str, depth: str, reading: Reading) -> Measured | None:
    """The law of a group at a depth; None where it was not injected or never measured densely enough."""
    parts = [(rows, curves.queries[int(rows[0])]["injections"]) for rows in curves.of(group, depth)]
    parts = [(rows, at) for rows, at in parts if at]
    if not parts:
        return None
    away = []
    for rows, at in parts:
        maxima = dynamics.local_acquisition_maxima(curves.logprobs[rows], at, reading.window, steps=curves.steps)
        away += (maxima - np.asarray(at))[maxima >= 0].tolist()
    if not away:
        return None
    peak = max(1, round(float(np.median(away))))
    horizon = min(curves.total - at[-1] - peak for _, at in parts)
    gains, lifts, befores, kept = [], [], [], []
    for rows, at in parts:
        states = np.asarray(at)
        base = _at(curves, rows, states[:1])
        gains.append(_at(curves, rows, states) - base)
        lifts.append(_at(curves, rows, states + peak) - _at(curves, rows, states))
        kept.append(_at(curves, rows, at[-1] + peak + np.arange(horizon + 1)) - base)
        befores.append(base[:, 0])
    left = np.concatenate(kept).mean(axis=0)
    before = float(np.concatenate(befores).mean())
    if not left[0] > 0:
        return None
    t_max = math.inf if reading.t_max is None else reading.t_max
    fit = dynamics.fit_decay(np.arange(horizon + 1), left / left[0], reading.base, t_min=reading.t_min, t_max=t_max)
    # The mean over queries: the line would otherwise mix how queries differ with how one of them goes on.
    x, y = np.concatenate(gains).mean(axis=0), np.concatenate(lifts).mean(axis=0)
    law = planner.fit_law(
        x,
        y,
        decay_constant=fit.decay_constant,
        intercept=fit.intercept,
        base=reading.base,
        peak=peak,
        highest=-before,
    )
    return Measured(law, before)


def _at(curves: Curves, rows: np.ndarray, states: np.ndarray) -> np.ndarray:
    """float64 ``[rows, states]``, between measured states by a straight line."""
    return np.stack([np.interp(states, curves.steps, values) for values in curves.logprobs[rows]])


def validate(
    laws: dict[tuple[str, str], Measured], curves: Curves, groups: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """How far forecasts were off on a part that they were not fitted to.

    Args:
        laws: by (group, depth).
        groups: only these.

    Returns:
        A row a (group, depth, place): place "end" is the last state, "along" all measured states behind the first encounter;
        errors in nats of the planner and of the baselines, over queries, and of the mean curve.
    """
    found = []
    for (group, depth), measured in laws.items():
        if groups is not None and group not in groups:
            continue
        made: dict[str, list[np.ndarray]] = {name: [] for name in ("planner", *planner.BASELINES)}
        true: list[np.ndarray] = []
        parts = [(rows, curves.queries[int(rows[0])]["injections"]) for rows in curves.of(group, depth)]
        parts = [(rows, at) for rows, at in parts if at]
        if not parts:
            continue
        length = min(curves.total - at[0] for _, at in parts)
        for rows, at in parts:
            states = at[0] + np.arange(1, length + 1)
            true.append(_at(curves, rows, states) - _at(curves, rows, np.array([at[0]])))
            for name, simulate in (("planner", planner.course), *planner.BASELINES.items()):
                made[name].append(np.broadcast_to(simulate(measured.law, at, states), true[-1].shape))
        truth = np.concatenate(true)
        for place, cut in (("end", slice(-1, None)), ("along", slice(None))):
            row: dict[str, Any] = {"group": group, "depth": depth, "place": place, "queries": len(truth)}
            row["measured"] = float(truth[:, cut].mean())
            for name, values in made.items():
                predicted = np.concatenate(values)[:, cut]
                error = planner.errors(predicted, truth[:, cut])
                row[name] = error.mean
                row[f"{name}: mean curve"] = float(np.abs(predicted.mean(axis=0) - truth[:, cut].mean(axis=0)).mean())
            found.append(row)
    return found


def laws_of(curves: Curves, reading: Reading) -> dict[tuple[str, str], Measured]:
    """Every law that can be read from a part, by (group, depth)."""
    groups = dict.fromkeys(query["group"] for query in curves.queries)
    found = {(group, depth): law_of(curves, group, depth, reading) for group in groups for depth in DEPTHS}
    return {key: law for key, law in found.items() if law is not None}
