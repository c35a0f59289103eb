"""What a pilot concludes, from numbers whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engramlab.experiments.teaching import pilot


def test_the_fastest_rate_that_does_no_harm() -> None:
    tried = [
        {"rate": 1.0, "gain": 1.0, "drift": 0.0},
        {"rate": 3.0, "gain": 2.0, "drift": 0.04},
        {"rate": 9.0, "gain": 5.0, "drift": 0.9},
    ]
    assert pilot.best_rate(tried, 0.05)["rate"] == 3.0
    assert pilot.best_rate([row | {"drift": row["drift"] + 1} for row in tried], 0.05)["rate"] == 1.0
    assert pilot.best_rate([row | {"drift": None} for row in tried], 0.05)["rate"] == 9.0


def test_the_logistic_fit_finds_its_own_parameters() -> None:
    rng = np.random.default_rng(0)
    gains = rng.uniform(0, 6, 20_000)
    written = rng.random(20_000) < 1 / (1 + np.exp(-(2.0 * gains - 5.0)))
    intercept, slope = pilot.logistic(gains, written)
    assert (intercept, slope) == pytest.approx((-5.0, 2.0), rel=0.05)


def test_the_number_of_texts_is_found_again() -> None:
    """Gain 0.5 + 1.0 ln(texts), written with certainty nine tenths at a gain of 3.6: after exp(3.1) = 22 texts."""
    rng = np.random.default_rng(1)
    looks = np.array(pilot.LOOKS)
    gains = 0.5 + np.log(looks)[:, None] + rng.normal(0, 1.0, (len(looks), 600))
    slope = 2.0
    middle = 3.6 - math.log(9) / slope
    written = rng.random(gains.shape) < 1 / (1 + np.exp(-slope * (gains - middle)))
    found = pilot.encounters(pilot.LOOKS, gains, written, 0)
    assert found["encounters"] == pytest.approx(22, abs=5)
    assert found["low"] <= found["encounters"] <= found["high"]
    assert found["gain"] == pytest.approx(3.6, abs=0.3)


def test_what_does_not_tell_is_said() -> None:
    gains = np.ones((4, 5))
    assert pilot.encounters(pilot.LOOKS, gains, np.zeros((4, 5), bool), 0)["encounters"] is None
    assert "every one" in pilot.encounters(pilot.LOOKS, gains, np.ones((4, 5), bool), 0)["why"]
    falling = -np.log(np.array(pilot.LOOKS))[:, None] + np.zeros((4, 5))
    some = np.zeros((4, 5), bool)
    some[:, 0] = True
    assert "nothing became likelier" in pilot.encounters(pilot.LOOKS, falling, some, 0)["why"]
