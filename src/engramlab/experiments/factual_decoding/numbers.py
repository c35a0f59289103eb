"""Means with their intervals over questions."""

from __future__ import annotations

import numpy as np

from engramlab.base.bootstrap import mean

__all__ = ["beside", "mean"]


def beside(name: str, values: np.ndarray, base: np.ndarray, seed: int) -> dict[str, float | None]:
    """``mean``, and that of the difference to ``base``, question by question, as ``name_more``."""
    return mean(name, values, seed) | mean(f"{name}_more", values.astype(float) - base.astype(float), seed)
