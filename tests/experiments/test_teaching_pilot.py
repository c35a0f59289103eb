"""What a pilot concludes, from numbers whose answer is known."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from engramlab.base.rows import Row
from engramlab.experiments.teaching import pilot


def test_the_fastest_rate_that_does_no_harm() -> None:
    tried = [
        {"rate": 1.0, "gain": 1.0, "drift": 0.0},
        {"rate": 3.0, "gain": 2.0, "drift": 0.04},
        {"rate": 9.0, "gain": 5.0, "drift": 0.9},
    ]

    def best(rows: list[Row]) -> Any:
        found = pilot.best_rate(rows, 0.05)
        return found and found["rate"]

    assert best(tried) == 3.0
    assert best([row | {"drift": None} for row in tried]) == 9.0
    # The one that drifts least is always the slowest, and may teach nothing: no reason to take it.
    assert best([row | {"drift": row["drift"] + 1} for row in tried]) is None
    assert "rate of 3, as given (unseen text suffers at all three); 9 texts" in pilot.sentence(
        {"rate": 3.0, "encounters": 9, "low": 8, "high": 10, "drifted": True}
    )


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
    found = pilot.encounters(pilot.LOOKS, gains, written, [f"{k}" for k in range(600)], 0)
    assert found["encounters"] == pytest.approx(22, abs=5)
    assert found["low"] <= found["encounters"] <= found["high"]
    assert found["gain"] == pytest.approx(3.6, abs=0.3)


def test_what_does_not_tell_is_said() -> None:
    gains, whom = np.ones((4, 5)), list("abcde")
    assert pilot.encounters(pilot.LOOKS, gains, np.zeros((4, 5), bool), whom, 0)["encounters"] is None
    assert "every one" in pilot.encounters(pilot.LOOKS, gains, np.ones((4, 5), bool), whom, 0)["why"]
    falling = -np.log(np.array(pilot.LOOKS))[:, None] + np.zeros((4, 5))
    some = np.zeros((4, 5), bool)
    some[:, 0] = True
    found = pilot.encounters(pilot.LOOKS, falling, some, whom, 0)
    assert "nothing became likelier" in found["why"]
    assert "does not tell (likelier answers" in pilot.sentence({"rate": 1e-3, **found, "encounters": 50})


def test_a_fit_that_is_off_or_reaches_far_is_not_believed() -> None:
    """Gains rise evenly, and of a sudden half of the answers are written, as in a model that first learns how to answer."""
    rng = np.random.default_rng(3)
    looks, whom = np.array(pilot.LONGER), [f"{k}" for k in range(200)]
    gains = np.log(looks)[:, None] + rng.normal(0, 0.5, (len(looks), 200))
    written = np.zeros(gains.shape, bool)
    written[-1] = rng.random(200) < 0.5
    found = pilot.encounters(pilot.LONGER, gains, written, whom, 0)
    assert found["encounters"] is None
    assert re.match(
        r"behind 32 texts \d+% of the answers were written, where its fit by likelihood says \d+%", found["why"]
    )
    slowly = rng.random(gains.shape) < 1 / (1 + np.exp(-(1.0 * gains - 5.5)))
    assert "more than 128, far beyond the 32" in pilot.encounters(pilot.LONGER, gains, slowly, whom, 0)["why"]


def test_the_interval_is_over_subjects() -> None:
    """Ten answers about each of four subjects that are alike: far wider than if all forty stood for themselves."""
    rng = np.random.default_rng(2)
    looks = np.array(pilot.LOOKS)
    gains = np.repeat(0.5 + np.log(looks)[:, None] * rng.uniform(0.4, 1.6, 4), 10, axis=1)
    written = rng.random(gains.shape) < 1 / (1 + np.exp(-3 * (gains - 1.5)))
    subjects = [name for name in "abcd" for _ in range(10)]
    of, alone = (pilot.encounters(pilot.LOOKS, gains, written, w, 0) for w in (subjects, list(map(str, range(40)))))
    assert of["encounters"] == alone["encounters"]
    assert of["high"] - of["low"] > 1.5 * (alone["high"] - alone["low"])
    assert f"({of['low']} to {of['high']}, 95 % over subjects)" in pilot.sentence({"rate": 1e-3, **of})
