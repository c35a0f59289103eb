"""P-probing: what a hidden state says about every attribute just before each of them is stated.

An entry is read up to its last attribute. Its places are the tokens just before the first occurrence of each attribute, in
their order of appearance; one pass serves them all, and a task's classifier is the same at all of them.

Source: arXiv 2309.14316, section 5 (P-probing; closer P-probing by the subset of attributes already seen in its appendix).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.core.text.tokens import Sequences
from engramlab.probing.examples import NOWHERE, UNKNOWN, Examples, Tasks

_NEVER = np.iinfo(np.int64).max


def places(texts: Sequences, attributes: Sequence[str], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the attributes of entries begin.

    Args:
        texts: entries with start tokens, marks ``attribute + 1`` where a value stands.
        name: of the corpus, for messages.

    Returns:
        int64 ``[n, attributes]``: the tokens just before the first occurrence of each attribute, in order of appearance, and
        ``NOWHERE`` for those that the entry never states; and which attribute that is.

    Raises:
        UserError: an entry that states none, or begins with a value.
    """
    row = np.repeat(np.arange(len(texts)), texts.lengths)
    found = np.full((len(texts), len(attributes)), _NEVER, dtype=np.int64)
    for a in range(len(attributes)):
        stated = np.flatnonzero(texts.marks == a + 1)
        rows, first = np.unique(row[stated], return_index=True)
        found[rows, a] = stated[first] - texts.offsets[rows] - 1
    nothing = np.flatnonzero((found == _NEVER).all(axis=1))
    if len(nothing):
        raise UserError(
            f"{name}: entry {nothing[0]} states no attribute, so there is no place before one to probe; leave that entry out, "
            "or probe with Q only (--probes Q)"
        )
    early = np.argwhere(found < 0)
    if len(early):
        entry, a = early[0].tolist()
        raise UserError(
            f"{name}: entry {entry} begins with its {attributes[a]!r}, so there is no token before it to probe; begin it with "
            "the name, or probe with Q only (--probes Q)"
        )
    order = np.argsort(found, axis=1)
    at = np.take_along_axis(found, order, axis=1)
    return np.where(at == _NEVER, NOWHERE, at), order


def examples(
    texts: Sequences, subjects: np.ndarray, attributes: Sequence[str], name: str
) -> tuple[Examples, np.ndarray]:
    """Entries as examples, cut behind their last place; and the order of their attributes, int64 ``[n, attributes]``."""
    at, order = places(texts, attributes, name)
    last = at.max(axis=1)
    kept = np.arange(len(texts.ids)) - np.repeat(texts.offsets[:-1], texts.lengths) <= np.repeat(last, texts.lengths)
    offsets = np.concatenate([[0], np.cumsum(last + 1)])
    return Examples(Sequences(texts.ids[kept], offsets, texts.marks[kept]), at, subjects), order


def closer(
    tasks: Tasks,
    predicted: np.ndarray,
    subjects: np.ndarray,
    order: np.ndarray,
    attributes: Sequence[str],
    there: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Accuracy of reading an attribute that is still to come, by the set of attributes that the text has stated already.

    Args:
        predicted: int64 ``[tasks, n, P]``; see ``accuracy.accuracies``.
        order: int64 ``[n, P]``: which attribute comes after each place.
        there: bool ``[n, P]``: which places there are; None for all.

    Returns:
        A row for each task (but controls) and each of the 2^(attributes - 1) sets that occurs. ``partner`` is the other
        attribute of its pair (attributes two by two, as coupleC writes them), ``second`` whether it comes after that one.
    """
    bits = np.left_shift(1, order)
    seen = np.cumsum(bits, axis=1) - bits  # [n, P]: attributes stated before each place
    rows = []
    for k, task in enumerate(tasks.tasks):
        a = attributes.index(task.attribute)
        if task.control:
            continue
        gold = tasks.labels[k, subjects][:, None]
        right = predicted[k] == gold
        ahead = ((seen >> a) & 1 == 0) & (gold != UNKNOWN) & (there if there is not None else True)
        for members in np.unique(seen[ahead]).tolist():
            where = ahead & (seen == members)
            rows.append(
                {
                    "target": task.target,
                    "attribute": task.attribute,
                    "partner": attributes[a ^ 1] if a ^ 1 < len(attributes) else None,
                    "second": bool(a % 2),
                    "seen": [name for b, name in enumerate(attributes) if members >> b & 1],
                    "accuracy": float(right[where].mean()),
                    "examples": int(where.sum()),
                }
            )
    return rows
