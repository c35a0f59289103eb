"""Keyed randomness by position."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramlab.base.random_access import draw, key, permute, random_words

KEY = key(0, "test")


def splitmix64(seed: int, count: int) -> list[int]:
    """The generator as published, one step after the other in Python integers."""
    mask = (1 << 64) - 1
    outputs = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(z ^ (z >> 31))
    return outputs


def test_words_are_the_outputs_of_splitmix64():
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # published test vector
    assert random_words(1234567, np.arange(50)).tolist() == splitmix64(1234567, 50)


def test_any_part_of_a_stream_without_the_rest():
    whole = draw(KEY, np.arange(1000), 77)
    some = np.array([[999, 3], [500, 3]])
    np.testing.assert_array_equal(draw(KEY, some, 77), whole[some])
    assert draw(KEY, 999, 77) == whole[999]


def test_keys_differ_by_seed_and_label():
    keys = {key(seed, *labels) for seed in (0, 1, 2) for labels in [(), ("a",), ("b",), ("a", 1), ("a", "1")]}
    assert len(keys) == 15


def test_no_warning_about_overflow():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(2**64 - 1, 2**62, 10)
        permute(2**64 - 1, 5, 10)


def test_draws_are_uniform_and_independent_of_each_other():
    high, n = 10, 200_000
    a, b = draw(key(0, "a"), np.arange(n), high), draw(key(0, "b"), np.arange(n), high)
    cells = np.bincount(a * high + b, minlength=high * high)
    expected = n / high**2
    chi_square = float(((cells - expected) ** 2 / expected).sum())
    assert chi_square < 160  # 99 degrees of freedom: beyond this once in ten thousand
    neighbours = np.bincount(a[1:] * high + a[:-1], minlength=high * high)
    assert float(((neighbours - expected) ** 2 / expected).sum()) < 160


def test_draw_takes_every_allowed_range():
    assert draw(KEY, np.arange(100), 1).tolist() == [0] * 100
    assert int(draw(KEY, np.arange(100_000), 1 << 32).max()) > (1 << 32) - 10**6
    for high in (0, (1 << 32) + 1):
        with pytest.raises(ValueError, match="high"):
            draw(KEY, 0, high)


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_permute_is_a_bijection(n, seed):
    image = permute(key(seed), np.arange(n), n)
    assert sorted(image.tolist()) == list(range(n))


@given(n=st.integers(1, 2**62), seed=st.integers(0, 2**32), data=st.data())
def test_permute_stays_inside_and_keeps_indices_apart(n, seed, data):
    some = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=20))
    image = permute(key(seed), np.array(some, np.int64), n).tolist()
    assert len(set(image)) == len(some)
    assert all(0 <= i < n for i in image)


def test_permutations_of_four_are_about_equally_likely():
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(4800):
        order = tuple(permute(key(seed), np.arange(4), 4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert sum((count - 200) ** 2 / 200 for count in seen.values()) < 56  # 23 degrees of freedom, 1 in 10,000


def test_permute_scatters_neighbours():
    n = 1_000_000
    image = permute(KEY, np.arange(n), n)
    assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.01
    assert np.mean(np.abs(np.diff(image)) < n // 10) < 0.25


def test_permute_refuses_what_lies_outside():
    for index, n in [(3, 3), (-1, 3), (0, 0)]:
        with pytest.raises(ValueError, match="must"):
            permute(KEY, [index], n)
