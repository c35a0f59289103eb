"""How often probes are right: with a bootstrap interval, the majority class beside it, and what could be right at all."""

from __future__ import annotations

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.rows import Row
from engramlab.probing.examples import UNKNOWN, Tasks

REPLICATES = 1000


def accuracies(
    tasks: Tasks,
    predicted: np.ndarray,
    subjects: np.ndarray,
    train: np.ndarray,
    *,
    there: np.ndarray | None = None,
    seed: int = 0,
) -> list[Row]:
    """One row a task and place.

    Args:
        predicted: int64 ``[tasks, n, P]``: the class read in each text at each place.
        subjects: int64 ``[n]``: whom the texts are about.
        train: int64: the subjects that were trained on.
        there: bool ``[n, P]``: which places the texts have; None for all.
        seed: of the bootstrap.

    Returns:
        Rows with ``accuracy`` and its 95 % interval ``low`` to ``high`` (bootstrap over subjects, whose texts stay together),
        ``majority`` (accuracy of always saying the commonest class of P_train), ``reachable`` (share of texts whose class
        occurs in P_train at all; no probe can be right about the others) and ``accuracy_reachable`` among them. Texts about
        subjects without the attribute do not count.
    """
    rows = []
    people, owner = np.unique(subjects, return_inverse=True)
    # Sums by person of [right at each task and place, right of the majority]: resampling then is one product.
    gold = tasks.labels[:, subjects]
    right = predicted == gold[:, :, None]
    counted = (gold != UNKNOWN)[:, :, None] & (np.ones(right.shape[1:], bool) if there is None else there)
    sums, totals = np.zeros((2, right.shape[0] * right.shape[2], len(people)))
    for k, place in np.ndindex(right.shape[0], right.shape[2]):
        at = k * right.shape[2] + place
        sums[at] = np.bincount(owner, right[k, :, place] & counted[k, :, place], len(people))
        totals[at] = np.bincount(owner, counted[k, :, place], len(people))
    low, high = bootstrap.intervals(bootstrap.ratios(sums, totals, REPLICATES, seed))
    for k, task in enumerate(tasks.tasks):
        known = tasks.labels[k, train]
        counts = np.bincount(known[known != UNKNOWN], minlength=task.classes)
        for place in range(right.shape[2]):
            at = k * right.shape[2] + place
            chosen = counted[k, :, place]
            if not chosen.any():
                continue
            said, own = right[k, chosen, place], gold[k, chosen]
            reachable = counts[own] > 0
            rows.append(
                {
                    "target": task.target,
                    "attribute": task.attribute,
                    "control": task.control,
                    "position": place,
                    "accuracy": float(said.mean()),
                    "low": float(low[at]),
                    "high": float(high[at]),
                    "majority": float((own == counts.argmax()).mean()),
                    "classes": task.classes,
                    "reachable": float(reachable.mean()),
                    "accuracy_reachable": float(said[reachable].mean()) if reachable.any() else None,
                    "examples": len(own),
                }
            )
    return rows
