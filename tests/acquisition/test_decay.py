"""Outliers, means, the fitted line and its bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from engramlab.acquisition.decay import bootstrap_decay, fit_decay, group_mean, inliers

VALUES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 15), st.integers(1, 4)),
    elements=st.one_of(st.floats(-5, 5), st.just(math.nan)),
)


@given(VALUES, st.sampled_from([0.0, 0.5, 1.5, 2.0]))
def test_inliers_are_those_of_numpys_quartiles_column_by_column(values, factor):
    found = inliers(values, factor)
    assert found.shape == values.shape
    for column, got in zip(values.T, found.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            assert not got.any()
            continue
        q1, q3 = np.quantile(known, [0.25, 0.75])
        low, high = q1 - factor * (q3 - q1), q3 + factor * (q3 - q1)
        margin = 1e-9  # a value on the very fence may fall either way
        assert got[(column > low + margin) & (column < high - margin)].all()
        assert not got[(column < low - margin) | (column > high + margin)].any()
        assert not got[np.isnan(column)].any()


def test_the_outlier_rule_is_the_papers_and_not_the_released_codes():
    values = np.array([0.0, 1, 2, 3, 4, 7.2])  # quartiles 1.25 and 3.75: fences at 7.5 (1.5) and 8.75 (2.0)
    assert inliers(values).tolist() == [True] * 6
    values[-1] = 8.0  # quartiles stay
    assert inliers(values).tolist() == [True] * 5 + [False]
    assert inliers(values, factor=2.0).tolist() == [True] * 6


def test_inliers_go_by_columns_unless_told():
    values = np.array([[0.0, 100], [1, 101], [2, 102], [3, 103], [50, 104]])
    assert inliers(values).tolist() == [[True, True]] * 4 + [[False, True]]
    assert inliers(values.T, axis=1).tolist() == inliers(values).T.tolist()
    assert inliers(values, axis=None).all()
    assert inliers(np.array([2.0])).tolist() == [True]
    assert inliers(np.empty((0, 3))).shape == (0, 3)


def test_a_group_mean_counts_what_it_left_out():
    values = np.array([[0.0, 1], [1, np.nan], [2, np.nan], [3, np.nan], [50, np.nan]])
    mean = group_mean(values)
    assert mean.mean.tolist() == [1.5, 1.0]
    assert (mean.used.tolist(), mean.outliers.tolist(), mean.undefined.tolist()) == ([4, 1], [1, 0], [0, 4])
    assert group_mean(values, None).mean.tolist() == [11.2, 1.0]
    assert np.isnan(group_mean(values * np.nan).mean).all()


# the line -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [10, math.e, 2])
def test_a_straight_line_is_found_in_any_base(base):
    t = np.arange(501)
    with np.errstate(divide="ignore"):
        fit = fit_decay(t, 0.9 - 0.25 * np.log(t) / math.log(base), base)
    assert fit.decay_constant == pytest.approx(0.25)
    assert fit.intercept == pytest.approx(0.9)
    assert fit.r_squared == pytest.approx(1)
    assert fit.stderr == pytest.approx(0, abs=1e-9)
    assert fit.threshold_steps == pytest.approx(base ** (0.9 / 0.25))
    assert (fit.base, fit.points) == (base, 500)


@given(st.integers(0, 1000), st.sampled_from([10, math.e]))
def test_the_fit_is_scipys(seed, base):
    rng = np.random.default_rng(seed)
    t = np.arange(1, int(rng.integers(4, 60)))
    kept = 1 - 0.3 * np.log10(t) + rng.normal(0, 0.2, len(t))
    fit, other = fit_decay(t, kept, base), stats.linregress(np.log(t) / np.log(base), kept)
    assert fit.decay_constant == pytest.approx(-other.slope)
    assert fit.intercept == pytest.approx(other.intercept)
    assert fit.r_squared == pytest.approx(other.rvalue**2)
    assert fit.stderr == pytest.approx(other.stderr)


def test_the_base_is_ten_and_t_zero_never_counts():
    t, kept = np.arange(4), np.array([55.0, 1, 0.8, 0.7])
    assert fit_decay(t, kept) == fit_decay(t[1:], kept[1:], 10)
    assert fit_decay(t, kept).points == 3
    assert fit_decay(t, kept, t_min=0).points == 3


def test_the_range_of_t_is_a_choice_and_nan_is_left_out():
    t = np.arange(100)
    kept = np.where(t < 10, 1.0, 2 - np.log10(np.maximum(t, 1)))
    kept[50] = np.nan
    fit = fit_decay(t, kept, t_min=10, t_max=90)
    assert (fit.decay_constant, fit.intercept) == (pytest.approx(1), pytest.approx(2))
    assert fit.points == 80
    assert fit_decay(t, kept).decay_constant < 0.9


def test_the_threshold_is_in_steps_and_in_tokens_of_the_batch_it_was_measured_at():
    fit = fit_decay([1, 10, 100], [0.8, 0.6, 0.4])  # 0 at 10^4 steps
    assert fit.threshold_steps == pytest.approx(10_000)
    assert fit.threshold_tokens(128, 2048) == pytest.approx(10_000 * 128 * 2048)
    assert fit.log10_threshold_tokens(128, 2048) == pytest.approx(math.log10(10_000 * 128 * 2048))
    natural = fit_decay([1, 10, 100], [0.8, 0.6, 0.4], math.e)
    assert natural.log10_threshold_tokens(128, 2048) == pytest.approx(fit.log10_threshold_tokens(128, 2048))


def test_what_does_not_decay_has_no_threshold():
    rising = fit_decay([1, 10, 100], [0.4, 0.6, 0.8])
    assert rising.decay_constant == pytest.approx(-0.2)
    assert rising.threshold_steps == math.inf
    flat = fit_decay([1, 10, 100], [1.0, 1, 1])
    assert flat.threshold_steps == math.inf
    assert math.isnan(flat.r_squared)
    nearly = fit_decay([1, 10, 100], [1.0, 1 - 1e-6, 1 - 2e-6])
    assert nearly.threshold_steps == math.inf  # 10^(10^6): more than a float holds
    assert nearly.log10_threshold_tokens(1, 1) == pytest.approx(1e6)


def test_too_few_points_make_no_line():
    for t, kept in (([], []), ([0, 1], [1, 0.9]), ([5, 5], [1, 0.9]), ([1, 2], [np.nan, 1])):
        fit = fit_decay(t, kept)
        assert math.isnan(fit.decay_constant)
        assert math.isnan(fit.threshold_steps)
    two = fit_decay([1, 10], [1, 0.5])
    assert two.decay_constant == pytest.approx(0.5)
    assert math.isnan(two.stderr)
    with pytest.raises(ValueError, match="base"):
        fit_decay([1, 10], [1, 0.5], base=1)


# bootstrap ----------------------------------------------------------------------------------------------------------


def population(queries: int, seed: int = 0, spread: float = 0.1, noise: float = 0.02) -> np.ndarray:
    """Retainability of queries that each decay at their own pace, 0.3 on average."""
    rng = np.random.default_rng(seed)
    pace = rng.normal(0.3, spread, (queries, 1))
    kept = 1 - pace * np.log10(np.maximum(np.arange(60), 1)) + rng.normal(0, noise, (queries, 60))
    kept[:, 0] = 1
    return kept


def test_the_bootstrap_sees_the_spread_between_queries_that_the_residuals_do_not():
    kept = population(40)
    boot = bootstrap_decay(kept, samples=300, factor=None)
    fit = fit_decay(np.arange(60), group_mean(kept, None).mean)
    expected = 0.1 / math.sqrt(40)
    assert expected * 0.7 < boot.stderr < expected * 1.4
    assert fit.stderr < expected / 3
    assert boot.interval[0] < fit.decay_constant < boot.interval[1]
    assert boot.threshold_interval[0] < fit.threshold_steps < boot.threshold_interval[1]


def test_the_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(60):
        low, high = bootstrap_decay(population(30, seed), samples=120, seed=seed, factor=None, level=0.9).interval
        hits += low <= 0.3 <= high
    assert 45 <= hits <= 60


def test_the_bootstrap_is_a_function_of_its_seed_and_leaves_outliers_out():
    kept = population(20)
    first, again, other = (bootstrap_decay(kept, samples=50, seed=seed) for seed in (1, 1, 2))
    assert first.decay_constant.tolist() == again.decay_constant.tolist() != other.decay_constant.tolist()
    kept[0] = 1 + 20 * np.log10(np.maximum(np.arange(60), 1))
    assert bootstrap_decay(kept, samples=50, factor=None).stderr > 10 * bootstrap_decay(kept, samples=50).stderr


def test_queries_of_one_passage_can_be_drawn_together():
    paces = np.repeat(np.random.default_rng(3).normal(0.3, 0.1, 10), 5)  # five copies of ten independent queries
    kept = 1 - paces[:, None] * np.log10(np.maximum(np.arange(60), 1))
    single = bootstrap_decay(kept, samples=400, factor=None)
    together = bootstrap_decay(kept, samples=400, factor=None, clusters=np.repeat(np.arange(10), 5))
    assert 1.7 < together.stderr / single.stderr < 2.8  # the square root of 5
    labels = [f"passage {i // 5}" for i in range(50)]
    assert (
        bootstrap_decay(kept, samples=20, clusters=labels).interval
        == bootstrap_decay(kept, samples=20, clusters=np.repeat(np.arange(10), 5)).interval
    )


def test_a_group_without_queries_or_without_gains_has_no_interval():
    for values in (np.empty((0, 10)), np.full((3, 10), np.nan)):
        boot = bootstrap_decay(values, samples=5)
        assert math.isnan(boot.stderr)
        assert all(map(math.isnan, (*boot.interval, *boot.threshold_interval)))
