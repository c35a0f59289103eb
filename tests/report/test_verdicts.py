"""The one rule of what may be said to be more than another."""

from __future__ import annotations

import pytest

from engramlab.report.parts.verdicts import NOISE, NOT_SO, SO, UNKNOWN, Interval, interval, more, verdict, wilson


def around(value: float, wide: float = 0.1) -> Interval:
    return Interval(value, value - wide, value + wide)


def test_wilson_is_the_textbook_s() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(right / n, n)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert (wilson(0.5, 0).low, wilson(0.5, 0).high) == (0.0, 1.0)


def test_intervals_that_overlap_are_within_noise() -> None:
    assert more(around(0.6), around(0.3)) is True
    assert more(around(0.3), around(0.6)) is False
    assert more(around(0.6), around(0.5)) is None
    assert more(around(0.6), 0.4) is True
    assert more(around(0.6), 0.55) is None
    assert more(None, 0.0) is None


def test_the_verdicts() -> None:
    assert verdict([around(0.9), around(0.6), around(0.3)]) == SO
    assert verdict([around(0.9), around(0.3), around(0.6)]) == NOT_SO
    assert verdict([around(0.59), around(0.60), around(0.60)]) == NOISE
    assert verdict([around(0.9), None]) == UNKNOWN


def test_intervals_of_rows() -> None:
    row = {"gain": 0.5, "gain_low": 0.4, "gain_high": 0.6, "low": 0.1, "high": float("nan")}
    assert interval(row, "gain") == Interval(0.5, 0.4, 0.6)
    assert interval(row, "gain", "") is None
