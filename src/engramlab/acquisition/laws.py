"""The laws of acquisition and forgetting: encounters accumulate, forgetting takes its part in between.

    law = fit_law(gains, before, retained)           # from the measured curves of one group and depth
    course(law, encounters=[0, 100, 200], at=[250])  # gain in nats at state 250

**Model.** A fact's gain g is how far its target's log-probability stands above where it began. An encounter lifts it at once by
E(g) = e0 + e1 g, what encounters were measured to gain at that level (e1 < 0: the better known, the less is gained; never less
than nothing). Behind it the gain falls by the measured law of forgetting, g(t) = g R(t) with R(t) = b - a log t, from 1 at
first down to 0, until the next encounter. So a fact met every I steps settles where one encounter makes good what I steps
took, and is never kept where R(I) = 0: I lies beyond the learnability threshold.

**From a run.** Laws are read at the same distance from every encounter for all queries (``law_of``): maxima picked query by
query, as effectivity is defined, are too high by the curves' noise, and a forecast has to be right on average.

Source of the measures and of the argument: arXiv 2406.11813, "Learnability threshold"; simulating it fact by fact is ours.
Pure functions of numpy arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engramlab.acquisition import decay, dynamics
from engramlab.acquisition.curves import CurveOptions, Curves
from engramlab.base.arrays import Floats
from engramlab.base.rows import DEPTHS


@dataclass(frozen=True)
class Law:
    """How facts of one kind (a schedule at a depth) are acquired and forgotten.

    Attributes:
        first: e0, what an encounter gains in nats where nothing is known.
        change: e1, how much less (or more) it gains for each nat already gained.
        decay_constant, intercept, base: of R(t) = intercept - decay_constant * log_base(t).
        peak: steps from an encounter to its maximum, at which t begins.
        highest: the largest gain there can be: log-probabilities end at 0.
    """

    first: float
    change: float
    decay_constant: float
    intercept: float
    base: float = 10.0
    peak: float = 1.0
    highest: float = math.inf

    def effectivity(self, gain: float) -> float:
        """What an encounter adds to a gain, in nats."""
        return max(0.0, min(self.first + self.change * gain, self.highest - gain))

    def retained(self, t: npt.ArrayLike) -> Floats:
        """The part of a gain that is left ``t`` steps after its maximum, between 0 and 1."""
        steps = np.maximum(np.asarray(t, np.float64), 1.0)
        left = np.clip(self.intercept - self.decay_constant * np.log(steps) / math.log(self.base), 0.0, 1.0)
        return np.where(np.asarray(t, np.float64) < 1, 1.0, left)

    @property
    def threshold_steps(self) -> float:
        """The interval from which on nothing is left; infinite where nothing decays."""
        if self.decay_constant <= 0:
            return math.inf
        try:
            return float(self.base ** (self.intercept / self.decay_constant))
        except OverflowError:
            return math.inf


def fit_law(
    gains: npt.ArrayLike,
    effectivities: npt.ArrayLike,
    *,
    decay_constant: float,
    intercept: float,
    base: float = 10.0,
    peak: float = 1.0,
    highest: float = math.inf,
) -> Law:
    """Least squares of effectivity against the gain it was added to.

    Args:
        gains: ``[K]`` gain over the state before the first encounter, of a query right before an encounter.
        effectivities: ``[K]`` what that encounter gained.
        decay_constant, intercept, base: of ``decay.fit_decay``.
        peak, highest: of ``Law``.

    Raises:
        ValueError: nothing to fit.
    """
    x, y = np.asarray(gains, np.float64).ravel(), np.asarray(effectivities, np.float64).ravel()
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if not len(y):
        raise ValueError("there is no measured encounter to fit")
    spread = float(((x - x.mean()) ** 2).sum())
    # Gains of first encounters are all 0: with nothing but those, every encounter is taken to gain the same.
    change = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 1e-12 else 0.0
    return Law(float(y.mean() - change * x.mean()), change, decay_constant, intercept, base, peak, highest)


def course(law: Law, encounters: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """The gain of a fact at states ``at``, in nats: float64 of the shape of ``at``.

    Args:
        encounters: states of its encounters, rising; several at one state count one after another.
        at: states, in any order; an encounter at t has its effect from t + 1 on.
    """
    met = np.asarray(encounters, np.float64).ravel()
    states = np.asarray(at, np.float64)
    if (np.diff(met) < 0).any():
        raise ValueError("encounters must rise")
    found = np.zeros(states.shape)
    height = 0.0
    for i, step in enumerate(met):
        if i:
            height *= float(law.retained(step - met[i - 1] - law.peak))
        height += law.effectivity(height)
        behind = states > step
        found[behind] = height * law.retained(states[behind] - step - law.peak)
    return found


def no_forgetting(law: Law, encounters: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """``course`` if nothing were forgotten: a baseline."""
    return course(replace(law, decay_constant=0.0, intercept=1.0), encounters, at)


def last_encounter(law: Law, encounters: npt.ArrayLike, at: npt.ArrayLike) -> Floats:
    """``course`` if only the last encounter before a state counted: a baseline."""
    met, states = np.asarray(encounters, np.float64).ravel(), np.asarray(at, np.float64)
    found = np.zeros(states.shape)
    for step in met:
        behind = states > step
        found[behind] = law.effectivity(0.0) * law.retained(states[behind] - step - law.peak)
    return found


BASELINES = {"no forgetting": no_forgetting, "last encounter only": last_encounter}


@dataclass(frozen=True)
class MeasuredLaw:
    """A law and where targets stood before: the mean log-probability at the first encounter, as measured."""

    law: Law
    before: float


def law_of(curves: Curves, group: str, depth: str, reading: CurveOptions) -> MeasuredLaw | None:
    """The law of a group at a depth; None where it was not injected or never measured densely enough.

    Gains are those of ``Curves.read``: with ``drift="control"`` the law says what encounters add to what the stream teaches.
    """
    parts = curves.injected(group, depth)
    away = []
    for rows, at in parts:
        values = curves.read(rows, reading)
        maxima = dynamics.local_acquisition_maxima(values, at, reading.window, steps=curves.steps)
        away += (maxima - np.asarray(at))[maxima >= 0].tolist()
    if not away:
        return None
    peak = max(1, round(float(np.median(away))))
    horizon = min(curves.total - at[-1] - peak for _, at in parts)
    gains, lifts, befores, kept = [], [], [], []
    for rows, at in parts:
        states = np.asarray(at)
        base = curves.at(rows, states[:1], reading)
        gains.append(curves.at(rows, states, reading) - base)
        lifts.append(curves.at(rows, states + peak, reading) - curves.at(rows, states, reading))
        kept.append(curves.at(rows, at[-1] + peak + np.arange(horizon + 1), reading) - base)
        befores.append(curves.at(rows, states[:1], replace(reading, drift="kept"))[:, 0])
    left = np.concatenate(kept).mean(axis=0)
    before = float(np.concatenate(befores).mean())
    if not left[0] > 0:
        return None
    t_max = math.inf if reading.t_max is None else reading.t_max
    fit = decay.fit_decay(np.arange(horizon + 1), left / left[0], reading.base, t_min=reading.t_min, t_max=t_max)
    # The mean over queries: the line would otherwise mix how queries differ with how one of them goes on.
    x, y = np.concatenate(gains).mean(axis=0), np.concatenate(lifts).mean(axis=0)
    law = fit_law(
        x,
        y,
        decay_constant=fit.decay_constant,
        intercept=fit.intercept,
        base=reading.base,
        peak=peak,
        highest=-before,
    )
    return MeasuredLaw(law, before)


def validate(laws: dict[tuple[str, str], MeasuredLaw], curves: Curves, reading: CurveOptions) -> list[dict[str, Any]]:
    """How far forecasts were off on a part that they were not fitted to.

    Args:
        laws: by (group, depth).
        reading: how the curves were read that the laws were fitted to; these are read in the same way.

    Returns:
        A row a (group, depth, place): place "end" is the last state, "along" all measured states behind the first encounter;
        errors in nats of the planner and of the baselines, over queries, and of the mean curve.
    """
    found = []
    for (group, depth), measured in laws.items():
        made: dict[str, list[np.ndarray]] = {name: [] for name in ("planner", *BASELINES)}
        true: list[np.ndarray] = []
        if not (parts := curves.injected(group, depth)):
            continue
        length = min(curves.total - at[0] for _, at in parts)
        for rows, at in parts:
            states = at[0] + np.arange(1, length + 1)
            true.append(curves.at(rows, states, reading) - curves.at(rows, np.array([at[0]]), reading))
            for name, simulate in (("planner", course), *BASELINES.items()):
                made[name].append(np.broadcast_to(simulate(measured.law, at, states), true[-1].shape))
        truth = np.concatenate(true)
        for place, cut in (("end", slice(-1, None)), ("along", slice(None))):
            row: dict[str, Any] = {"group": group, "depth": depth, "place": place, "queries": len(truth)}
            row["measured"] = float(truth[:, cut].mean())
            for name, values in made.items():
                predicted = np.concatenate(values)[:, cut]
                off = np.abs(predicted - truth[:, cut])
                row[name] = float(off[np.isfinite(off)].mean())
                row[f"{name}: mean curve"] = float(np.abs(predicted.mean(axis=0) - truth[:, cut].mean(axis=0)).mean())
            found.append(row)
    return found


def laws_of(curves: Curves, reading: CurveOptions) -> dict[tuple[str, str], MeasuredLaw]:
    """Every law that can be read from a part, by (group, depth)."""
    groups = dict.fromkeys(query["group"] for query in curves.queries)
    found = {(group, depth): law_of(curves, group, depth, reading) for group in groups for depth in DEPTHS}
    return {key: law for key, law in found.items() if law is not None}
