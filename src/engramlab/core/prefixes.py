"""Which rows to score together: rows that begin alike share one pass over what they have in common.

Three thousand questions have six wordings: "What is the birth date of" is read once, and its keys and values serve five hundred
names. Grouping is by tokens alone, so that nobody has to say where prompts come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from engramlab.core.tokens import Sequences

LONGEST = 64  # tokens at the beginning of a row that are compared
A_PASS = 256  # what one more forward pass costs, in tokens


def groups(sequences: Sequences, first: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Rows in groups, with the number of tokens that all rows of a group begin with (0 where sharing does not pay).

    Args:
        sequences: rows.
        first: int64 ``[rows]``: position of the first token to be scored in each row; it and the token before it, from which
            it is predicted, stay outside the shared part.
    """
    if not len(sequences):
        return []
    width = int(min(LONGEST, sequences.lengths.max()))
    table = np.full((len(sequences), width), -1, dtype=np.int64)
    inside = np.arange(width) < sequences.lengths[:, None]
    at = (sequences.offsets[:-1][:, None] + np.arange(width))[inside]
    table[inside] = sequences.ids[at]
    order = np.lexsort(table.T[::-1])
    table, limit = table[order], np.maximum(first[order] - 1, 0)
    different = table[1:] != table[:-1]
    common = np.where(different.any(axis=1), different.argmax(axis=1), width)
    common = np.minimum(common, np.minimum(limit[1:], limit[:-1]))
    alone: list[int] = []
    found: list[tuple[np.ndarray, int]] = []
    for start, stop, shared in _best(common, 0, len(order))[1]:
        if shared:
            found.append((order[start:stop], shared))
        else:
            alone.extend(order[start:stop].tolist())
    if alone:
        found.append((np.array(alone), 0))
    return found


def _best(common: np.ndarray, start: int, stop: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Tokens saved, and the groups ``(start, stop, shared)`` that save most, of sorted rows ``start`` to ``stop``.

    ``common[i]`` is what rows ``i`` and ``i + 1`` share. Either all rows form one group, or they are cut wherever neighbours
    share least and each part is grouped by itself.
    """
    if stop - start == 1:
        return 0, [(start, stop, 0)]
    between = common[start : stop - 1]
    shared = int(between.min())
    whole = (stop - start - 1) * shared - A_PASS
    # No cut can save more than all rows sharing as much as any two of them do.
    if (stop - start - 1) * int(between.max()) - 2 * A_PASS <= max(whole, 0):
        return (whole, [(start, stop, shared)]) if whole > 0 else (0, [(start, stop, 0)])
    edges = [start, *(start + 1 + np.flatnonzero(between == shared)).tolist(), stop]
    saved, parts = 0, []
    for a, b in pairwise(edges):
        gain, inner = _best(common, a, b)
        saved += gain
        parts += inner
    if whole >= saved:
        return (whole, [(start, stop, shared)]) if whole > 0 else (0, [(start, stop, 0)])
    return saved, parts


def batches(sequences: Sequences, first: np.ndarray, budget: int) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers batch by batch, and how many tokens the batch's rows begin with in common.

    Longest rows first, so that a batch too large for memory fails at once; each batch has at most ``budget`` padded tokens
    (and at least one row).
    """
    found = groups(sequences, first)
    lengths = sequences.lengths
    for rows, shared in sorted(found, key=lambda group: -int(lengths[group[0]].max())):
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        start = 0
        while start < len(rows):
            stop = start + max(1, budget // max(1, int(lengths[rows[start]])))
            yield rows[start:stop], shared if stop - start > 1 else 0
            start = stop
