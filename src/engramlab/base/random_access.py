"""Randomness by position: the i-th draw of a stream without the draws before it.

A stream is named by a 64-bit key. Its i-th word is the i-th output of SplitMix64 seeded with that key
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), which is a function of
key + i * constant alone. So any worker can make any part of a corpus, or any part of an epoch's order, and
all of them agree.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

from engramlab.base.arrays import Integers

Unsigned = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_ROUNDS = 8


def key(seed: int, *labels: str | int) -> int:
    """The key of the stream named by a seed and labels: the first 8 bytes of their BLAKE2b hash.

    >>> key(0, "names") == key(0, "names"), key(0, "names") == key(1, "names")
    (True, False)
    """
    name = repr((int(seed), *labels)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def random_words(key: int, index: npt.ArrayLike) -> Unsigned:
    """The words of stream `key` at `index` (any shape, not negative): uint64 of that shape."""
    # On arrays, never scalars: 64-bit arithmetic is meant to wrap, and numpy warns about it for scalars only.
    position = np.asarray(index)
    word: Unsigned = np.atleast_1d(position).astype(np.uint64)
    word *= _STEP
    word += np.uint64((key + int(_STEP)) & 0xFFFFFFFFFFFFFFFF)
    word ^= word >> np.uint64(30)
    word *= _FIRST
    word ^= word >> np.uint64(27)
    word *= _SECOND
    word ^= word >> np.uint64(31)
    return word.reshape(position.shape)


def draw(key: int, index: npt.ArrayLike, high: int) -> Integers:
    """Uniform integers in [0, high) at `index` of stream `key`: int64 of the shape of `index`.

    `high` may be 1 to 2**32; a value's probability is off by less than 2**-32 in absolute terms.

    Raises:
        ValueError: `high` is out of that range.
    """
    if not 1 <= high <= 1 << 32:
        raise ValueError(f"high must be between 1 and 2**32, not {high}")
    word = np.atleast_1d(random_words(key, index))
    word >>= np.uint64(32)
    word *= np.uint64(high)
    word >>= np.uint64(32)
    return word.astype(np.int64).reshape(np.shape(index))


def permute(key: int, index: npt.ArrayLike, n: int) -> Integers:
    """Where a keyed bijection of [0, n) sends `index`: int64 of the same shape. It needs no memory.

    A generalised Feistel network on pairs (left, right) in a x b with a * b >= n: each round adds to one half
    a random function of the other, which is invertible whatever the function. Images outside [0, n) are sent
    on until they land inside ("cycle walking"; Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002); a and b lie near the square root of n, so hardly any do.

    Raises:
        ValueError: n is less than 1 or more than 2**62, or an index lies outside [0, n).
    """
    if not 1 <= n <= 1 << 62:
        raise ValueError(f"n must be between 1 and 2**62, not {n}")
    shape = np.shape(index)
    image: Integers = np.atleast_1d(np.asarray(index)).astype(np.int64).ravel()
    if image.size and (image.min() < 0 or image.max() >= n):
        raise ValueError(f"every index must lie in [0, {n})")
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    image = _feistel(key, image, a, b)
    outside = np.flatnonzero(image >= n)
    while outside.size:
        image[outside] = _feistel(key, image[outside], a, b)
        outside = outside[image[outside] >= n]
    return image.reshape(shape)


def _feistel(key: int, index: Integers, a: int, b: int) -> Integers:
    left, right = np.divmod(index, b)
    for turn in range(0, _ROUNDS, 2):
        left += draw(key + turn, right, a)
        left -= a * (left >= a)
        right += draw(key + turn + 1, left, b)
        right -= b * (right >= b)
    return left * b + right
