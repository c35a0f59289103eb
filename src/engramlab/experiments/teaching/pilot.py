"""A pilot: how fast, and how often must a text be read? Tried on a few of the subjects, from the model as it is.

Three learning rates are tried with 8 texts a subject, and then fall to 0, as in the training that follows: while a rate is
high a model is further from what it was than it ends. The best raises the objects most behind held-out wordings, with drift in
its limit; where none keeps to it, the one given stays. With that one 32 texts are read, and of what was measured on the way a
logistic fit says from which gain on (in nats a token) nine answers of ten are written, and a line over the logarithm of the
texts read when that gain is reached. Both are ours; that gain grows with the
logarithm of encounters is what the curves of arXiv 2406.11813 look like, and the interval says how far it is to be trusted.
The planner's law of the acquisition experiments is not used: it reckons with what is forgotten between encounters that lie far
apart, and here every subject is read again all along, so that the line has that forgetting in it already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.rows import Row

LOOKS = (1, 2, 4, 8)  # texts about each subject after which facts are asked for, at each rate
LONGER = (*LOOKS, 16, 32)  # at the best one
FALL = 1 / 3  # of the steps at each rate, behind those texts, in which it falls
FASTER = (0.3, 1.0, 3.0)  # times the usual rate
SUBJECTS = 16  # at least; a tenth of them where that is more
FEWEST, MOST = 8, 400  # encounters that may come out, the ends of intervals included
SURE = 0.9  # of the answers shall be written
OFF = 0.1  # that the fitted share may be from the true one at the last look
BEYOND = 4  # times the texts read that are reckoned with, and no more
SAMPLES = 200


def texts() -> int:
    """Texts that all tries together read about each subject, those of the fall included."""
    return math.ceil(len(FASTER) * LOOKS[-1] / (1 - FALL)) + LONGER[-1]


def best_rate(tried: Sequence[Row], limit: float) -> Row | None:
    """The try with the largest gain among those whose drift is within the limit; None where none is.

    Args:
        tried: with ``rate``, ``gain`` and ``drift`` (None where there is nothing to measure it on).
    """
    within = [row for row in tried if row["drift"] is None or row["drift"] <= limit]
    return max(within, key=lambda row: row["gain"]) if within else None


def logistic(gains: np.ndarray, written: np.ndarray) -> tuple[float, float]:
    """Intercept and slope of the probability that an answer is written, over its gain; a weak pull to 0 keeps them finite."""
    from scipy.optimize import minimize

    x, y = np.stack([np.ones_like(gains), gains]), written.astype(np.float64)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = w @ x
        p = 1 / (1 + np.exp(-z))
        pull = 1e-3 * np.array([w[0], w[1]])
        return float(np.logaddexp(0, z).sum() - y @ z + 0.5e-3 * (w @ w)), x @ (p - y) + pull

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def size(subjects: int) -> int:
    """Subjects of a pilot, half of whose questions are trained."""
    return min(subjects, max(SUBJECTS, subjects // 10))


def encounters(
    looks: Sequence[int], gains: np.ndarray, written: np.ndarray, subjects: Sequence[str], seed: int
) -> dict[str, Any]:
    """The fewest texts a subject after which nine answers of ten should be written.

    Args:
        looks: texts read so far, at each look.
        gains: float ``[looks, answers]``, in nats a token over the model as it was.
        written: bool ``[looks, answers]``.
        subjects: whom each answer is about.

    Returns:
        ``encounters`` (8 at least) with ``low`` and ``high`` (400 at most) of a 95 % bootstrap over subjects, ``gain`` needed;
        or ``encounters`` None and ``why``, where what was measured does not tell: the fit is off at the last look, or reaches
        far beyond it.
    """
    if not written.any() or written.all():
        said = "none" if not written.any() else "every one"
        return {"encounters": None, "why": f"{said} of the answers was written in the pilot"}
    whole = _needed(looks, gains, written)
    if whole is None:
        return {"encounters": None, "why": "likelier answers were not written more often, or nothing became likelier"}
    true, fitted = float(written[-1].mean()), whole[2]
    if abs(true - fitted) > OFF:
        why = f"behind {looks[-1]} texts {true:.0%} of the answers were written, where its fit by likelihood says {fitted:.0%}"
        return {"encounters": None, "why": why}
    if whole[0] > BEYOND * looks[-1]:
        return {"encounters": None, "why": f"more than {BEYOND * looks[-1]}, far beyond the {looks[-1]} that were read"}
    _, number = np.unique(np.array(subjects), return_inverse=True)
    of = [np.flatnonzero(number == k) for k in range(number.max() + 1)]
    samples = [np.concatenate([of[k] for k in drawn]) for drawn in bootstrap.draws(len(of), SAMPLES, seed)]
    found = [_needed(looks, gains[:, answers], written[:, answers]) for answers in samples]
    values = np.array([one[0] if one is not None else math.inf for one in found])
    low, high = bootstrap.interval(np.minimum(values, MOST), observed=True)
    return {"encounters": _within(whole[0]), "low": _within(low), "high": _within(high), "gain": whole[1]}


def sentence(chosen: Mapping[str, Any]) -> str:
    """What is said of what a pilot chose: ``rate``, ``encounters``, and ``low`` and ``high``, or ``why`` it does not tell;
    ``drifted`` where at every rate unseen text suffered more than it may."""
    kept = ", as given (unseen text suffers at all three)" if chosen.get("drifted") else ""
    texts = f"{chosen['encounters']:,} texts a subject"
    if chosen.get("why"):
        told = f"how many texts are needed it does not tell ({chosen['why']}): {texts}, as given"
    else:
        told = f"{texts} ({chosen['low']:,} to {chosen['high']:,}, 95 % over subjects) should bring nine answers of ten"
    return f"the pilot takes a learning rate of {chosen['rate']:g}{kept}; {told}"


def _within(texts: float) -> int:
    return int(min(max(math.ceil(texts), FEWEST), MOST))


def _needed(looks: Sequence[int], gains: np.ndarray, written: np.ndarray) -> tuple[float, float, float] | None:
    """Texts needed, the gain they shall bring, and the share written that is fitted at the last look; None where the fits say
    nothing."""
    if not written.any() or written.all():
        return None
    intercept, slope = logistic(gains.ravel(), written.ravel())
    if slope <= 0:
        return None
    gain = (math.log(SURE / (1 - SURE)) - intercept) / slope
    rise, start = np.polyfit(np.log(looks), gains.mean(axis=1), 1)
    if rise <= 0:
        return None
    fitted = float((1 / (1 + np.exp(-(intercept + slope * gains[-1])))).mean())
    return math.exp(min((gain - start) / rise, 30.0)), gain, fitted
