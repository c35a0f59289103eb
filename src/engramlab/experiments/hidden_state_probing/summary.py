"""How Q-probing and extraction go together over datasets and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engramlab.base.correlation import spearman


def correlations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's rho between Q-probing accuracy and P_test extraction, one point a dataset and attribute.

    A row for each target ("whole": exact match of answers; "first": first tokens) and measure: all of P_test, and only those
    whose class occurs in P_train (``accuracy_reachable``). ``rho`` and its 95 % bootstrap interval ``low`` to ``high`` are None
    with fewer than three points or without variation.
    """
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
            if points:
                rho, low, high = spearman(*zip(*points, strict=True))
                about = {"target": target, "measure": measure, "points": len(points)}
                found.append({**about, "rho": rho, "low": low, "high": high})
    return found
