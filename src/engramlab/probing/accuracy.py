"""How often probes are right: with a bootstrap interval, the majority class beside it, and what could be right at all."""

from __future__ import annotations

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.rows import Row
from engramlab.probing.examples import Tasks

REPLICATES = 1000


def accuracies(
    tasks: Tasks, predicted: np.ndarray, subjects: np.ndarray, train: np.ndarray, *, seed: int = 0
) -> list[Row]:
    """One row a task and place.

    Args:
        predicted: int64 ``[tasks, n, P]``: the class read in each text at each place.
        subjects: int64 ``[n]``: whom the texts are about.
        train: int64: the subjects that were trained on.
        seed: of the bootstrap.

    Returns:
        Rows with ``accuracy`` and its 95 % interval ``low`` to ``high`` (bootstrap over subjects, whose texts stay together),
        ``majority`` (accuracy of always saying the commonest class of P_train), ``reachable`` (share of texts whose class
        occurs in P_train at all; no probe can be right about the others) and ``accuracy_reachable`` among them.
    """
    rows = []
    people, owner = np.unique(subjects, return_inverse=True)
    # Sums by person of [right at each task and place, right of the majority]: resampling then is one product.
    gold = tasks.labels[:, subjects]
    right = predicted == gold[:, :, None]
    sums = np.zeros((right.shape[0] * right.shape[2], len(people)))
    for k, place in np.ndindex(right.shape[0], right.shape[2]):
        sums[k * right.shape[2] + place] = np.bincount(owner, right[k, :, place], len(people))
    low, high = bootstrap.intervals(bootstrap.ratios(sums, np.bincount(owner, minlength=len(people)), REPLICATES, seed))
    for k, task in enumerate(tasks.tasks):
        counts = np.bincount(tasks.labels[k, train], minlength=task.classes)
        reachable = counts[gold[k]] > 0
        for place in range(right.shape[2]):
            at = k * right.shape[2] + place
            rows.append(
                {
                    "target": task.target,
                    "attribute": task.attribute,
                    "control": task.control,
                    "position": place,
                    "accuracy": float(right[k, :, place].mean()),
                    "low": float(low[at]),
                    "high": float(high[at]),
                    "majority": float((gold[k] == counts.argmax()).mean()),
                    "classes": task.classes,
                    "reachable": float(reachable.mean()),
                    "accuracy_reachable": float(right[k, reachable, place].mean()) if reachable.any() else None,
                    "examples": len(subjects),
                }
            )
    return rows
