"""Which facts will be learnt: encounters accumulate, forgetting takes its part in between.

    law = fit_law(gains, before, retained)           # from the measured curves of one group and depth
    course(law, encounters=[0, 100, 200], at=[250])  # gain in nats at state 250

**Model.** A fact's gain g is how far its target's log-probability stands above where it began. An encounter lifts it at once by
E(g) = e0 + e1 g, what encounters were measured to gain at that level (e1 < 0: the better known, the less is gained; never less
than nothing). Behind it the gain falls by the measured law of forgetting, g(t) = g R(t) with R(t) = b - a log t, from 1 at
first down to 0, until the next encounter. So a fact met every I steps settles where one encounter makes good what I steps
took, and is never kept where R(I) = 0: I lies beyond the learnability threshold.

Source of the measures and of the argument: arXiv 2406.11813, "Learnability threshold"; simulating it fact by fact is ours.
Pure functions of numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


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
        decay_constant, intercept, base: of ``dynamics.fit_decay``.
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
class Outlook:
    """What becomes of a fact that is met every ``interval`` steps.

    Attributes:
        settles: the gain right after an encounter, in nats, that it comes to at last.
        keeps: the gain right before the next one.
        learnt_at: steps until the gain right before an encounter is at least the one needed; None if never.
    """

    interval: float
    settles: float
    keeps: float
    learnt_at: float | None


def outlook(law: Law, interval: float, needed: float, *, steps: float = math.inf, most: int = 100_000) -> Outlook:
    """Follows a fact met every ``interval`` steps, from the first encounter at 0.

    Args:
        interval: steps from one encounter to the next; may be a fraction (several encounters a step).
        needed: gain in nats that has to stand right before the next encounter for the fact to count as learnt.
        steps: how long training goes on.
        most: encounters followed at most; it stops earlier where nothing changes any more.
    """
    if not interval > 0:
        raise ValueError(f"interval must be above 0, not {interval}")
    kept_part = float(law.retained(interval - law.peak))
    height = kept = 0.0
    learnt: float | None = None
    for number in range(most):
        if number * interval > steps:
            break
        height = kept + law.effectivity(kept)
        before, kept = kept, height * kept_part
        if learnt is None and kept >= needed and (number + 1) * interval <= steps:
            learnt = (number + 1) * interval
        if number and abs(kept - before) < 1e-9:
            break
    return Outlook(interval, height, kept, learnt)


def intervals(counts: npt.ArrayLike, corpus_tokens: float, tokens_a_step: float) -> Floats:
    """Steps from one encounter to the next for facts stated ``counts`` times in a corpus; infinite for none.

    Args:
        counts: ``[F]`` how often each fact is stated in the corpus.
        corpus_tokens: tokens of the corpus.
        tokens_a_step: batch x window.
    """
    stated = np.asarray(counts, np.float64)
    with np.errstate(divide="ignore"):
        return np.where(stated > 0, corpus_tokens / stated / tokens_a_step, math.inf)


@dataclass(frozen=True)
class Error:
    """How far predictions lie from what was measured, in nats.

    Attributes:
        mean: mean absolute error over queries.
        bias: mean of predicted minus measured.
        queries: how many were compared.
    """

    mean: float
    bias: float
    queries: int


def errors(predicted: npt.ArrayLike, measured: npt.ArrayLike) -> Error:
    """Of predictions ``[Q]`` against measurements ``[Q]``; NaN in either is left out."""
    made, true = np.broadcast_arrays(np.asarray(predicted, np.float64), np.asarray(measured, np.float64))
    known = np.isfinite(made) & np.isfinite(true)
    gap = (made - true)[known]
    if not len(gap):
        return Error(math.nan, math.nan, 0)
    return Error(float(np.abs(gap).mean()), float(gap.mean()), len(gap))


def weighted(laws: Sequence[Law]) -> Law:
    """The mean of several laws, such as those of the schedules that were measured."""
    if not laws:
        raise ValueError("there is no law to average")
    mean = {
        name: float(np.mean([getattr(law, name) for law in laws]))
        for name in ("first", "change", "decay_constant", "intercept", "peak", "highest")
    }
    return Law(**mean, base=laws[0].base)
