"""How much of what is known is well known: facts in tenths, from the least popular subjects to the most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.rows import Row
from engramlab.measuring.audit.classes import CLASSES

TENTHS = 10
LEAST = 5  # facts in a group
SAMPLES = 1000


def by_popularity(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """A row a tenth of the facts (fewer groups of five where there are few), ascending; guessable facts are left out.

    Args:
        rows: of facts, with ``class``, ``guessable`` and ``popularity``; those without one do not count.

    Returns:
        ``group`` (from 1), ``facts``, ``least`` and ``most`` popular, and ``at_least_CLASS`` for all classes but "unknown" with
        ``_low`` and ``_high``, a 95 % bootstrap interval over facts.
    """
    kept = sorted(
        (row for row in rows if row.get("popularity") is not None and not row["guessable"]),
        key=lambda row: row["popularity"],
    )
    found: list[Row] = []
    for number, part in enumerate(np.array_split(np.arange(len(kept)), min(TENTHS, len(kept) // LEAST) or 1), 1):
        group = [kept[i] for i in part.tolist()]
        if not group:
            continue
        depth = np.array([CLASSES.index(row["class"]) for row in group])
        weights = bootstrap.times(bootstrap.draws(len(group), SAMPLES, seed)) / len(group)
        row: Row = {
            "group": number,
            "facts": len(group),
            "least": group[0]["popularity"],
            "most": group[-1]["popularity"],
        }
        for k, name in enumerate(CLASSES[:-1]):
            has = (depth <= k).astype(np.float64)
            low, high = bootstrap.interval(weights @ has)
            row |= {f"at_least_{name}": float(has.mean()), f"at_least_{name}_low": low, f"at_least_{name}_high": high}
        found.append(row)
    return found
