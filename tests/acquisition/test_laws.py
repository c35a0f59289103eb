"""The laws against hand-made laws: accumulation, forgetting, thresholds, recovery of what made a curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramlab.acquisition import forecast, laws
from engramlab.acquisition.laws import Law

LAW = Law(first=1.0, change=-0.2, decay_constant=0.25, intercept=0.75)  # nothing is left after 1,000 steps


def test_one_encounter_rises_and_falls_by_the_law() -> None:
    t = np.array([0, 1, 2, 11, 101, 1001, 5000])
    got = laws.course(LAW, [0], t)
    assert got[:2].tolist() == [0.0, 1.0]  # the state of the injection does not know of it
    assert np.allclose(got[2:], np.clip(0.75 - 0.25 * np.log10(t[2:] - 1), 0, 1))
    assert got[-1] == 0.0
    assert LAW.threshold_steps == pytest.approx(1000)


def test_encounters_add_up_with_what_is_left_between_them() -> None:
    first = 1.0
    left = first * (0.75 - 0.25 * math.log10(99))
    second = left + 1.0 - 0.2 * left
    assert laws.course(LAW, [0, 100], [101]).item() == pytest.approx(second)
    assert laws.no_forgetting(LAW, [0, 100], [101]).item() == pytest.approx(1.0 + 0.8)
    assert laws.last_encounter(LAW, [0, 100], [101, 111]).tolist() == pytest.approx([1.0, 0.5])


def test_beyond_the_threshold_nothing_accumulates() -> None:
    seen = forecast.outlook(LAW, 2000, needed=0.01)
    assert (seen.keeps, seen.learnt_at) == (0.0, None)
    near = forecast.outlook(LAW, 20, needed=0.5)
    assert near.learnt_at is not None
    assert near.keeps > 0.5
    # It settles where an encounter makes good what the interval took.
    part = float(LAW.retained(19))
    assert near.keeps == pytest.approx(part * (near.keeps + LAW.effectivity(near.keeps)), abs=1e-6)


@given(st.floats(2, 900), st.floats(1.05, 3))
def test_a_shorter_interval_keeps_at_least_as_much(interval: float, factor: float) -> None:
    assert forecast.outlook(LAW, interval, 1.0).keeps >= forecast.outlook(LAW, interval * factor, 1.0).keeps - 1e-9


def test_a_log_probability_does_not_rise_above_zero() -> None:
    law = Law(first=3.0, change=0.0, decay_constant=0.0, intercept=1.0, highest=5.0)
    assert laws.course(law, [0, 1, 2, 3], [10]).item() == 5.0


def test_the_law_is_recovered_from_encounters_it_made() -> None:
    gains = np.linspace(0, 3, 12)
    got = laws.fit_law(gains, [LAW.effectivity(g) for g in gains], decay_constant=0.25, intercept=0.75)
    assert (got.first, got.change) == (pytest.approx(1.0), pytest.approx(-0.2))
    same = laws.fit_law([0, 0, 0], [1.0, 2.0, 3.0], decay_constant=0.25, intercept=0.75)
    assert (same.first, same.change) == (2.0, 0.0)
    with pytest.raises(ValueError, match="no measured encounter"):
        laws.fit_law([math.nan], [1.0], decay_constant=0.1, intercept=1)


def test_intervals_of_frequencies() -> None:
    assert forecast.encounter_intervals([10, 0], 1_000_000, 1000).tolist() == [100.0, math.inf]
