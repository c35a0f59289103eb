"""Means with their intervals over questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base import bootstrap

SAMPLES = 1000


def mean(name: str, values: Sequence[float] | np.ndarray, seed: int) -> dict[str, float | None]:
    """The mean of a question's values under ``name``, and the ends of its 95 % interval; None without any."""
    of = np.asarray(values, dtype=np.float64)
    if not len(of):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    weights = bootstrap.times(bootstrap.draws(len(of), SAMPLES, seed)) / len(of)
    low, high = bootstrap.interval(weights @ of)
    return {name: float(of.mean()), f"{name}_low": low, f"{name}_high": high}


def beside(name: str, values: np.ndarray, base: np.ndarray, seed: int) -> dict[str, float | None]:
    """``mean``, and that of the difference to ``base``, question by question, as ``name_more``."""
    return mean(name, values, seed) | mean(f"{name}_more", values.astype(float) - base.astype(float), seed)
