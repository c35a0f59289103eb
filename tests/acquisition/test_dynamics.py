"""Maxima, effectivity and retainability against curves drawn by hand and against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramlab.acquisition import dynamics
from engramlab.acquisition.dynamics import (
    common_horizon,
    effectivity,
    local_acquisition_maxima,
    measured_steps,
    retainability,
    span_logprobs,
)

#        state  0   1   2   3   4   5   6   7   8   9  10
RISING = [-9.0, -5, -4, -6, -8, -7, -3, -2, -5, -6, -7]


def loops(curve, injections, window, horizon):
    """The definitions of the paper, one query, one encounter, one t at a time."""
    last = len(curve) - 1
    maxima, gains = [], []
    for start in injections:
        best = -1
        for t in range(start + 1, min(start + window, last) + 1):
            if best < 0 or curve[t] > curve[best]:
                best = t
        maxima.append(best)
        gains.append(curve[best] - curve[start] if best >= 0 else math.nan)
    peak = maxima[list(injections).index(max(injections))]
    before = curve[min(injections)] if min(injections) <= last else math.nan
    kept = []
    for t in range(horizon + 1):
        if peak < 0 or peak + t > last or not curve[peak] - before > 0:
            kept.append(math.nan)
        else:
            kept.append((curve[peak + t] - before) / (curve[peak] - before))
    return maxima, gains, kept


@st.composite
def runs(draw):
    states = draw(st.integers(3, 30))
    level = st.integers(-12, 0).map(lambda n: n / 4)  # coarse, so that ties happen
    curves = draw(st.lists(st.lists(level, min_size=states, max_size=states), min_size=1, max_size=5))
    injections = draw(st.lists(st.integers(0, states - 1), min_size=1, max_size=4, unique=True))
    return np.array(curves), injections, draw(st.integers(1, 12)), draw(st.integers(0, 12))


# hand-drawn ---------------------------------------------------------------------------------------------------------


def test_a_curve_drawn_by_hand():
    curves, injections = np.array([RISING]), [0, 5]
    assert local_acquisition_maxima(curves, injections, 4).tolist() == [[2, 7]]
    assert effectivity(curves, injections, 4).tolist() == [[5.0, 5.0]]
    # l(t_pre) is that of state 0, -9; the last maximum is -2: 7 nats gained in all.
    np.testing.assert_allclose(retainability(curves, injections, 3, 4), [[1, 4 / 7, 3 / 7, 2 / 7]])


def test_types_and_shapes():
    curves = np.array([RISING, RISING], np.float32)
    maxima = local_acquisition_maxima(curves, [0, 5], 4)
    assert maxima.shape == (2, 2)
    assert np.issubdtype(maxima.dtype, np.integer)
    assert effectivity(curves, [0, 5], 4).dtype == np.float64
    assert retainability(curves, [0, 5], 3, 4).shape == (2, 4)
    assert local_acquisition_maxima(curves, [], 4).shape == (2, 0)
    assert np.isnan(retainability(curves, [], 3, 4)).all()


def test_the_default_window_is_fifty_steps():
    curve = np.full((1, 200), -5.0)
    curve[0, 51], curve[0, 50] = -1, -2
    assert local_acquisition_maxima(curve, [0]).tolist() == [[50]]
    assert local_acquisition_maxima(curve, [0], window=51).tolist() == [[51]]


def test_the_state_of_the_injection_itself_is_not_in_its_window():
    curve = [[0.0, -3, -2, -2.5]]  # the model is best before the update that has the passage
    assert local_acquisition_maxima(curve, [0], 3).tolist() == [[2]]
    assert effectivity(curve, [0], 3).tolist() == [[-2.0]]


def test_of_equal_maxima_the_first_counts():
    assert local_acquisition_maxima([[-5.0, -2, -1, -1, -1]], [0], 4).tolist() == [[2]]


def test_a_window_at_the_end_is_cut_and_one_without_a_state_has_no_maximum():
    curve = [[-5.0, -4, -3, -2]]
    assert local_acquisition_maxima(curve, [1, 2, 3, 9], 50).tolist() == [[3, 3, -1, -1]]
    np.testing.assert_array_equal(effectivity(curve, [1, 2, 3, 9], 50), [[2.0, 1.0, np.nan, np.nan]])


def test_the_order_of_injections_does_not_matter_to_what_is_retained():
    curves = np.array([RISING])
    assert local_acquisition_maxima(curves, [5, 0], 4).tolist() == [[7, 2]]
    np.testing.assert_array_equal(retainability(curves, [5, 0], 3, 4), retainability(curves, [0, 5], 3, 4))


def test_a_query_that_gained_nothing_has_no_retainability():
    flat, fallen = [-3.0] * 6, [-1.0, -2, -2, -2, -2, -2]
    assert np.isnan(retainability([flat, fallen], [0], 2, 3)).all()


def test_what_is_lost_is_measured_from_before_the_first_injection():
    # Two encounters: measured from before the last (-4), state 4 would have lost 3/3; from before the first it kept 6/9.
    curve = [[-10.0, -4, -1, -4, -4]]
    np.testing.assert_allclose(retainability(curve, [0, 1], 2, 1), [[1, 6 / 9, 6 / 9]])


def test_retainability_may_exceed_one_and_fall_below_zero():
    curve = [[-4.0, -2, -6, -1]]
    np.testing.assert_allclose(retainability(curve, [0], 2, 1), [[1, -1, 1.5]])


def test_rows_end_where_the_run_ends_each_at_its_own_t():
    curves = [[-9.0, -1, -2, -3, -4], [-9.0, -3, -2, -1, -4]]  # maxima at 1 and 3
    kept = retainability(curves, [0], 4, 3)
    assert np.isnan(kept).tolist() == [[False, False, False, False, True], [False, False, True, True, True]]
    assert common_horizon(4, [0], 3) == 1
    assert common_horizon(2500, [0, 900], 50) == 1550
    assert common_horizon(10, [9], 50) == 0


# loops --------------------------------------------------------------------------------------------------------------


@given(runs())
def test_agrees_with_plain_loops(run):
    curves, injections, window, horizon = run
    maxima = local_acquisition_maxima(curves, injections, window)
    gains = effectivity(curves, injections, window)
    kept = retainability(curves, injections, horizon, window)
    for q, curve in enumerate(curves.tolist()):
        a, b, c = loops(curve, injections, window, horizon)
        assert maxima[q].tolist() == a
        np.testing.assert_array_equal(gains[q], b)
        np.testing.assert_allclose(kept[q], c)


# sparse measurements ------------------------------------------------------------------------------------------------


@given(runs(), st.data())
def test_a_sparse_grid_gives_the_same_numbers_or_none(run, data):
    curves, injections, window, horizon = run
    states = curves.shape[1]
    steps = np.array(sorted(data.draw(st.sets(st.integers(0, states - 1), min_size=1)) | {states - 1}))
    sparse = curves[:, steps]
    full = (
        local_acquisition_maxima(curves, injections, window),
        effectivity(curves, injections, window),
        retainability(curves, injections, horizon, window),
    )
    maxima = local_acquisition_maxima(sparse, injections, window, steps=steps)
    assert np.where(maxima == -1, full[0], maxima).tolist() == full[0].tolist()
    for name, whole, part in (
        ("effectivity", full[1], effectivity(sparse, injections, window, steps=steps)),
        ("retainability", full[2], retainability(sparse, injections, horizon, window, steps=steps)),
    ):
        known = ~np.isnan(part)
        np.testing.assert_allclose(part[known], whole[known], err_msg=name)


@given(runs())
def test_all_states_given_by_number_or_with_gaps_of_nan_are_the_same(run):
    curves, injections, window, horizon = run
    np.testing.assert_array_equal(
        retainability(curves, injections, horizon, window, steps=np.arange(curves.shape[1])),
        retainability(curves, injections, horizon, window),
    )
    holes = curves.copy()
    holes[:, ::3] = np.nan
    kept = np.flatnonzero(np.arange(curves.shape[1]) % 3)
    if kept[-1] == curves.shape[1] - 1:
        np.testing.assert_array_equal(
            effectivity(holes, injections, window), effectivity(curves[:, kept], injections, window, steps=kept)
        )


def test_a_window_that_was_not_wholly_measured_has_no_maximum():
    curve = np.array([RISING])
    steps = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10])  # 3 is missing
    assert local_acquisition_maxima(curve[:, steps], [0, 5], 4, steps=steps).tolist() == [[-1, 7]]


def test_measuring_windows_is_enough_for_maxima_and_effectivity():
    rng = np.random.default_rng(0)
    curves, injections = rng.normal(size=(7, 301)), [0, 40, 80, 120]
    for measure in ("window", "log"):
        steps = measured_steps(measure, 300, injections, window=20)
        assert len(steps) < 301
        sparse = curves[:, steps]
        np.testing.assert_array_equal(
            effectivity(sparse, injections, 20, steps=steps), effectivity(curves, injections, 20)
        )
        part, whole = (
            retainability(sparse, injections, 150, 20, steps=steps),
            retainability(curves, injections, 150, 20),
        )
        known = ~np.isnan(part)
        np.testing.assert_allclose(part[known], whole[known])
        assert known[:, 25:].any(axis=1).any()  # also behind the window


def test_between_measured_states_retainability_can_be_interpolated():
    t = np.arange(101)
    curve = -np.log10(np.maximum(t - 1, 1))[None, :] - 1  # the maximum at 1, then a straight line in log t
    curve[0, 0] = -5
    steps = measured_steps("log", 100, [0], window=3)
    full = retainability(curve, [0], 90, 3)
    bare = retainability(curve[:, steps], [0], 90, 3, steps=steps)
    filled = retainability(curve[:, steps], [0], 90, 3, steps=steps, interpolate=True)
    assert np.isnan(bare).any()
    assert not np.isnan(filled).any()
    np.testing.assert_allclose(filled, full, atol=1e-9)


def test_measured_steps():
    assert measured_steps("every", 4, [1]).tolist() == [0, 1, 2, 3, 4]
    window = measured_steps("window", 1000, [0, 100], window=5, per_decade=4)
    assert set(range(6)) | set(range(100, 106)) | {1000} <= set(window.tolist())
    assert not [s for s in window if 5 < s < 100]
    assert [s for s in window if s > 105]
    log = measured_steps("log", 1000, [0, 100], window=5, per_decade=4)
    assert set(window.tolist()) < set(log.tolist())
    assert [s for s in log if 5 < s < 100]
    assert measured_steps("window", 50, [48], window=5)[-1] == 50
    assert measured_steps("window", 50, [])[[0, -1]].tolist() == [0, 50]
    with pytest.raises(ValueError, match="sometimes"):
        measured_steps("sometimes", 4, [1])


# traps of the released code -----------------------------------------------------------------------------------------


def test_a_token_the_model_is_sure_of_counts_in_the_mean():
    assert span_logprobs([0.0, -4.0, 0.0], [0, 2, 3]).tolist() == [-2.0, 0.0]


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-20, 0), max_size=4), min_size=1, max_size=6))
def test_spans_are_means_or_sums_of_their_own_tokens_only(spans):
    tokens = np.array([v for span in spans for v in span])
    offsets = np.cumsum([0] + [len(span) for span in spans])
    means = span_logprobs(np.stack([tokens, tokens - 1]), offsets)
    sums = span_logprobs(tokens, offsets, "sum")
    for q, span in enumerate(spans):
        np.testing.assert_allclose(means[0, q], np.mean(span) if span else np.nan)
        np.testing.assert_allclose(means[1, q], np.mean(span) - 1 if span else np.nan)
        np.testing.assert_allclose(sums[q], np.sum(span) if span else np.nan)


def test_an_impossible_token_spoils_its_own_span_only():
    assert span_logprobs([-1.0, -math.inf, -2.0], [0, 1, 2, 3]).tolist() == [-1, -math.inf, -2]


def test_every_query_reaches_the_same_t_within_the_common_horizon():
    rng = np.random.default_rng(1)
    curves = rng.normal(size=(200, 101))
    curves[:, 0] = -50
    horizon = common_horizon(100, [0, 30], 20)
    assert not np.isnan(retainability(curves, [0, 30], horizon, 20)).any()


# misuse -------------------------------------------------------------------------------------------------------------


def test_misuse_is_refused():
    for call, what in (
        (lambda: effectivity([-1.0, -2.0], [0]), "queries, states"),
        (lambda: effectivity([[-1.0, -2.0]], [0], steps=[1, 0]), "rising"),
        (lambda: effectivity([[-1.0, -2.0]], [0], steps=[1]), "a column"),
        (lambda: effectivity([[-1.0, -2.0]], [-1]), "negative"),
        (lambda: effectivity([[-1.0, -2.0]], [0], 0), "window"),
        (lambda: retainability([[-1.0, -2.0]], [0], -1), "horizon"),
        (lambda: span_logprobs([0.0], [0, 1], "median"), "median"),
    ):
        with pytest.raises(ValueError, match=what):
            call()


def test_the_module_has_the_names_that_other_code_asks_for():
    for name in ("local_acquisition_maxima", "effectivity", "retainability", "inliers", "fit_decay", "DecayFit"):
        assert hasattr(dynamics, name)
