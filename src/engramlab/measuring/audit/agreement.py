"""Do the ways of getting facts out find the same facts?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from engramlab.base.rows import Row

WAYS = ("written", "ranked", "many-shot", "probed")


def found_by(row: Row, about: Row) -> dict[str, bool]:
    """By which ways a fact was found, of those by which it was asked for.

    Args:
        row: a fact's.
        about: its relation's, whose thresholds say what chance gives.
    """
    found = {"ranked": row["rank"] > about["rank_threshold"]}
    if row["written"] is not None:
        found["written"] = row["written"] > 0
    if row["first"] is not None:
        found["many-shot"] = row["first"] >= 0.5 and row["first"] > about["first_threshold"]
    if "probed" in row:
        found["probed"] = row["probed"]
    return found


def agreement(facts: Sequence[Row], relations: Mapping[str, Row]) -> list[Row]:
    """For every two ways: of the facts asked for by both, how many ``one`` and ``other`` found, and how many ``both``.

    Guessable facts are left out. ``agree`` is the share that both found of what either did; None where neither found any.
    """
    asked = [found_by(row, relations[row["relation"]]) for row in facts if not row["guessable"]]
    rows = []
    for a, b in combinations(WAYS, 2):
        pairs = [(of[a], of[b]) for of in asked if a in of and b in of]
        if pairs:
            both, either = sum(x and y for x, y in pairs), sum(x or y for x, y in pairs)
            counts = {
                "facts": len(pairs),
                "one": sum(x for x, _ in pairs),
                "other": sum(y for _, y in pairs),
                "both": both,
            }
            rows.append({"ways": f"{a}, {b}", **counts, "agree": both / either if either else None})
    return rows
