"""How Q-probing and extraction go together over datasets and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FEWEST = 3  # points that have an order to speak of


def correlations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's rho between Q-probing accuracy and P_test extraction, one point a dataset and attribute.

    A row for each target ("whole": exact match of answers; "first": first tokens) and measure: all of P_test, and only those
    whose class occurs in P_train (``accuracy_reachable``). ``rho`` is None with fewer than three points or without variation.
    """
    from scipy.stats import spearmanr

    found = []
    for target in ("whole", "first"):
        for measure in ("accuracy", "accuracy_reachable"):
            points = [
                (row["extraction"], row[measure])
                for row in rows
                if (row["probe"], row["target"], row["control"]) == ("Q", target, False)
                and row["extraction"] is not None
                and row[measure] is not None
            ]
            rho = None
            if len(points) >= FEWEST and all(len(set(values)) > 1 for values in zip(*points, strict=True)):
                rho = float(spearmanr(*zip(*points, strict=True)).statistic)
            if points:
                found.append({"target": target, "measure": measure, "points": len(points), "rho": rho})
    return found
