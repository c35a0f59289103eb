"""The power calculation, against simulated experiments; a decay of known size; the control's slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engramlab.acquisition.curves import CurveOptions, Curves, take_slice
from engramlab.acquisition.decay import fit_decay, group_mean
from engramlab.acquisition.power import control_slopes, detectable, probes_needed, steps_needed

READING = CurveOptions(window=5, bootstrap=10)


def test_the_detectable_difference_is_seen_in_four_experiments_of_five() -> None:
    rng = np.random.default_rng(0)
    spreads, n = (0.3, 0.2), 40
    difference = detectable(spreads, n)
    one = rng.normal(difference, spreads[0], (20_000, n)).mean(axis=1)
    other = rng.normal(0, spreads[1], (20_000, n)).mean(axis=1)
    error = math.hypot(*spreads) / math.sqrt(n)
    assert (np.abs(one - other) > 1.959964 * error).mean() == pytest.approx(0.8, abs=0.01)
    assert probes_needed(spreads, difference) == pytest.approx(n)
    assert detectable(spreads, 4 * n) == pytest.approx(difference / 2)


def curves(slopes: np.ndarray, total: int = 300) -> Curves:
    """A control whose passages wander along log t from state 11 on, two queries each, and one injected query that decays."""
    states = np.arange(total + 1)
    x = np.log10(np.maximum(states - 11, 1))
    rows = [-5 + slope * x for slope in slopes for _ in range(2)]
    queries = [
        {"passage": f"c{i}", "group": "never", "depth": "semantic", "start": 0, "injections": []}
        for i in range(len(slopes))
        for _ in range(2)
    ]
    injected = np.where(states > 10, -3 - 0.25 * 2 * x, -5.0)
    queries.append({"passage": "p", "group": "once", "depth": "semantic", "start": 10, "injections": [10]})
    return Curves(states, np.stack([*rows, injected]), queries, total)


def test_the_control_s_slopes_are_found_again() -> None:
    slopes = np.array([-0.3, 0.0, 0.1, 0.4])
    found = control_slopes(curves(slopes), "semantic", READING, [[10]])
    assert list(found) == [285 // 4, 285 // 2, 285]
    for spread in found.values():
        assert spread == pytest.approx(slopes.std(ddof=1), rel=1e-6)
    assert control_slopes(curves(slopes[:2]), "semantic", READING, [[10]]) == {}
    assert control_slopes(curves(slopes), "memorization", READING, [[10]]) == {}


def test_a_simulated_decay_gives_its_constant_and_drift_is_taken_off_if_asked() -> None:
    made = curves(np.array([0.1, 0.1, 0.1]))  # the stream lifts everything by 0.1 nats a decade

    def constant(reading: CurveOptions) -> float:
        found = take_slice(made, "once", "semantic", reading, [(10,)])
        assert found is not None
        assert found.retainability is not None
        kept = group_mean(found.retainability, None).mean
        return fit_decay(np.arange(len(kept)), kept).decay_constant

    assert constant(READING) == pytest.approx(0.25, abs=1e-3)  # 0.5 of a gain of 2 nats a decade
    # Without what the stream does to passages nobody taught, it loses 0.1 nats a decade more.
    assert constant(CurveOptions(window=5, drift="control")) == pytest.approx(0.3, abs=1e-3)


def test_steps_follow_from_how_the_spread_falls() -> None:
    assert steps_needed({100: 0.4, 400: 0.2}, 2.0) == pytest.approx(1600)  # it halves with four times the steps
    assert steps_needed({100: 0.2, 400: 0.2}, 2.0) is None
    assert steps_needed({100: 0.4, 400: 0.2}, 0.5) == 400
