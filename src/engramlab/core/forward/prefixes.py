"""Which rows to score together: rows that begin alike share one pass over what they have in common.

Three thousand questions have six wordings: "What is the birth date of" is read once, and its keys and values serve five hundred
names. Grouping is by tokens alone, so that nobody has to say where prompts come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from engramlab.core.text.tokens import Sequences

LONGEST = 4096  # tokens at the beginning of a row that are compared (demonstrations before a prompt are long)
A_PASS = 256  # what one more forward pass costs on a processor, in tokens
ON_GPU = 4096  # and on a GPU: to be told of a pass of 7B took an H200 89 ms, which is about so many tokens of it by arithmetic
_BLOCK = 64  # tokens compared at a time


def a_pass(device: torch.device) -> int:
    """What one more forward pass costs on a device, in tokens."""
    return A_PASS if device.type == "cpu" else ON_GPU


def groups(
    sequences: Sequences, first: np.ndarray, owner: np.ndarray | None = None, cost: int = A_PASS
) -> list[tuple[np.ndarray, int]]:
    """Rows in groups, with the number of tokens that all rows of a group begin with (0 where sharing does not pay).

    Args:
        sequences: rows.
        first: int64 ``[rows]``: position of the first token to be scored in each row; it and the token before it, from which
            it is predicted, stay outside the shared part.
        owner: int64 ``[rows]``: rows of different owners share nothing (the model differs for them).
        cost: what another group costs, in tokens.
    """
    if not len(sequences):
        return []
    order, common = _sorted(sequences, owner)
    limit = np.maximum(first[order] - 1, 0)
    common = np.minimum(common, np.minimum(limit[1:], limit[:-1]))
    common = np.where(common > _BLOCK, common // 16 * 16, common)  # few values: groups nest only so deep
    alone: list[int] = []
    found: list[tuple[np.ndarray, int]] = []
    for start, stop, shared in _best(common, 0, len(order), cost)[1]:
        if shared:
            found.append((order[start:stop], shared))
        else:
            alone.extend(order[start:stop].tolist())
    if alone:
        found.append((np.array(alone), 0))
    return found


def _sorted(sequences: Sequences, owner: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows by owner and tokens, and how many tokens each (but the last) begins with in common with the next.

    Block by block: only rows that equal a neighbour so far are looked at further.
    """
    rows, lengths = len(sequences), sequences.lengths
    run = np.zeros(rows, dtype=np.int64) if owner is None else np.asarray(owner, dtype=np.int64)
    order = np.argsort(run, kind="stable")
    run, tied, common = run[order], np.arange(rows), np.zeros(rows - 1, dtype=np.int64)
    for column in range(0, int(min(LONGEST, lengths.max())), _BLOCK):
        of = order[tied]
        places = column + np.arange(_BLOCK)
        inside = places < lengths[of][:, None]
        table = np.full((len(of), _BLOCK), -1, dtype=np.int32)
        table[inside] = sequences.ids[(sequences.offsets[of][:, None] + places)[inside]]
        by = np.lexsort((*table.T[::-1], run))
        order[tied], table = of[by], table[by]
        different = table[1:] != table[:-1]
        alike = np.where(different.any(axis=1), different.argmax(axis=1), _BLOCK)
        alike[run[1:] != run[:-1]] = 0
        common[tied[:-1]] += alike
        run = np.cumsum(np.append(True, alike < _BLOCK))
        still = np.bincount(run)[run] > 1
        run, tied = run[still], tied[still]
        if not len(tied):
            break
    return order, np.minimum(common, lengths[order][1:])


def _best(common: np.ndarray, start: int, stop: int, cost: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Tokens saved, and the groups ``(start, stop, shared)`` that save most, of sorted rows ``start`` to ``stop``.

    ``common[i]`` is what rows ``i`` and ``i + 1`` share. Either all rows form one group, or they are cut wherever neighbours
    share least and each part is grouped by itself.
    """
    if stop - start == 1:
        return 0, [(start, stop, 0)]
    between = common[start : stop - 1]
    shared = int(between.min())
    whole = (stop - start - 1) * shared - cost
    # No cut can save more than all rows sharing as much as any two of them do.
    if (stop - start - 1) * int(between.max()) - 2 * cost <= max(whole, 0):
        return (whole, [(start, stop, shared)]) if whole > 0 else (0, [(start, stop, 0)])
    edges = [start, *(start + 1 + np.flatnonzero(between == shared)).tolist(), stop]
    saved, parts = 0, []
    for a, b in pairwise(edges):
        gain, inner = _best(common, a, b, cost)
        saved += gain
        parts += inner
    if whole >= saved:
        return (whole, [(start, stop, shared)]) if whole > 0 else (0, [(start, stop, 0)])
    return saved, parts


def batches(
    sequences: Sequences,
    first: np.ndarray,
    budget: int,
    *,
    owner: np.ndarray | None = None,
    share: bool = True,
    most: int | None = None,
    places: np.ndarray | None = None,
    room: int = 0,
    cost: int = A_PASS,
) -> Iterator[tuple[np.ndarray, int]]:
    """Row numbers batch by batch, and how many tokens the batch's rows begin with in common.

    Longest rows first, so that a batch too large for memory fails at once; each batch has at most ``budget`` padded tokens
    and ``most`` rows (and at least one row).

    Args:
        owner: see ``groups``; rows that share nothing are mixed all the same.
        share: False: no row shares anything.
        places: int64 ``[rows]``: what else each row takes, of which a batch has ``room`` at most (and at least one row).
        cost: what another batch costs, in tokens.
    """
    found = (
        groups(sequences, first, owner, cost) if share else [(np.arange(len(sequences)), 0)] if len(sequences) else []
    )
    lengths = sequences.lengths
    for rows, shared in sorted(found, key=lambda group: -int(lengths[group[0]].max())):
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        start = 0
        while start < len(rows):
            fitting = max(1, budget // max(1, int(lengths[rows[start]])))
            fitting = fitting if most is None else min(fitting, most)
            if places is not None:
                taken = np.cumsum(places[rows[start : start + fitting]])
                fitting = max(1, int(np.searchsorted(taken, room, side="right")))
            stop = start + fitting
            stop = start + even(lengths[rows[start:stop]], cost)
            yield rows[start:stop], shared if stop - start > 1 else 0
            start = stop


def even(lengths: np.ndarray, cost: int = A_PASS) -> int:
    """How many of these rows, longest first, are read in one pass: the shorter ones go into another where that spares more
    padding than a pass costs.

    Args:
        lengths: descending, ``[rows]``, at least one.
        cost: what a pass costs, in tokens.
    """
    stop = len(lengths)
    while True:
        spared = (lengths[0] - lengths[:stop]) * (stop - np.arange(stop))
        cut = int(spared.argmax())
        if spared[cut] <= cost:
            return stop
        stop = cut
