"""Spearman's correlation and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from engramlab.base.correlation import spearman


def test_spearman_is_the_correlation_of_ranks_and_its_interval_tells_noise_from_order() -> None:
    x, y = [0.1, 0.4, 0.2, 0.9, 0.9], [3.0, 1.0, 2.0, 5.0, 4.0]
    ranks = [1, 3, 2, 4.5, 4.5], [3, 1, 2, 5, 4]
    rho, low, high = spearman(x, y)
    assert rho == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert low is not None
    assert high is not None
    assert -1 <= low < rho < high <= 1
    rng = np.random.default_rng(0)
    noise = rng.random((2, 60))
    strong = noise[0], noise[0] + 0.1 * noise[1]
    assert spearman(*noise)[1] < 0 < spearman(*noise)[2]  # type: ignore[operator]
    assert spearman(*strong)[1] > 0.9  # type: ignore[operator]
    assert spearman([1, 2], [1, 2]) == (None, None, None)
    assert spearman([1, 1, 1], [1, 2, 3]) == (None, None, None)
