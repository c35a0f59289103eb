"""Resampling: the same numbers whoever draws, and whichever way."""

from __future__ import annotations

import math

import numpy as np

from engramlab.base import bootstrap


def test_draws_are_those_of_one_generator_resample_by_resample() -> None:
    drawn = bootstrap.draws(7, 5, seed=3)
    one = np.random.Generator(np.random.PCG64(3))
    assert (drawn == [one.integers(7, size=7) for _ in range(5)]).all()
    assert bootstrap.draws(0, 5, seed=3).shape == (5, 0)


def test_times_counts_draws() -> None:
    drawn = np.array([[0, 0, 2], [1, 1, 1]])
    assert bootstrap.times(drawn).tolist() == [[2, 0, 1], [0, 3, 0]]


def test_ratios_do_not_depend_on_how_many_are_held_at_once(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    sums, counts = rng.random((3, 11)), np.arange(1.0, 12)
    whole = bootstrap.ratios(sums, counts, 100, seed=1)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 70)
    # To the last bit but one: products of another height may be summed in another order.
    np.testing.assert_allclose(bootstrap.ratios(sums, counts, 100, seed=1), whole, rtol=1e-14)
    assert whole.shape == (3, 100)


def test_intervals() -> None:
    values = np.array([0.0, 1.0, 2.0, math.nan, math.inf])
    assert bootstrap.interval(values, (0.0, 1.0), observed=True) == (0.0, math.inf)
    assert bootstrap.interval(values[:3], (0.25, 0.75)) == (0.5, 1.5)
    assert all(map(math.isnan, bootstrap.interval(values[3:4])))
    low, high = bootstrap.intervals(np.arange(202.0).reshape(2, 101))
    assert (low.tolist(), high.tolist()) == ([2.5, 103.5], [97.5, 198.5])
    assert np.allclose(bootstrap.ends_of(0.95), bootstrap.ENDS)
