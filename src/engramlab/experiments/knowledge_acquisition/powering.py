"""What a run could have shown: the power calculation over its groups and parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from engramlab.acquisition import power
from engramlab.acquisition.curves import CurveOptions, Curves, control_steps
from engramlab.acquisition.schedule import Group
from engramlab.base.rows import DEPTHS
from engramlab.experiments.knowledge_acquisition.config import PartConfig


def slopes_of(curves: Curves, groups: Sequence[Group], reading: CurveOptions) -> dict[str, dict[int, float]]:
    """By depth, how the control's passages wander; see ``power.control_slopes``."""
    return {depth: power.control_slopes(curves, depth, reading, control_steps(groups)) for depth in DEPTHS}


def power_rows(
    parts: Sequence[PartConfig],
    rows: Sequence[dict[str, Any]],
    slopes: dict[str, dict[str, dict[int, float]]],
    aim: float,
) -> list[dict[str, Any]]:
    """A row a comparison that a claim about forgetting makes: duplicates beside paraphrases, and batches beside each other."""
    by = {(row["dataset"], row["group"], row["depth"]): row for row in rows if row.get("gained") is not None}
    found = []
    for what, depth, one, other in _comparisons(parts, by):
        drift = [slopes[row["dataset"]][depth] for row in (one, other)]
        if not all(drift) or min(one["gained"], other["gained"]) <= 0:
            continue
        spreads = tuple(of[max(of)] / row["gained"] for of, row in zip(drift, (one, other), strict=True))
        two = (spreads[0], spreads[1])
        probes = min(one["passages"], other["passages"])
        seen = power.detectable(two, probes)
        errors = [row.get("bootstrap_stderr") for row in (one, other)]
        constants = [row["decay_constant"] for row in (one, other) if row.get("decay_constant") is not None]
        found.append(
            {
                "compared": what,
                "depth": depth,
                "passages": probes,
                "spread": math.hypot(*spreads) / math.sqrt(2),
                "detectable": seen,
                # The same from how the injected passages themselves differ, which is more than the control's wandering.
                "detectable_as_varied": None
                if None in errors
                else power.detectable((errors[0] or 0.0, errors[1] or 0.0), 1.0),
                "difference": constants[0] - constants[1] if len(constants) == 2 else None,
                "aim": aim,
                "passages_needed": power.probes_needed(two, aim),
                "rows": max(part.batch for part in parts if part.name in (one["dataset"], other["dataset"])),
                "quieter": max(1.0, seen / aim) ** 2,
                "steps_needed": power.steps_needed(drift[0], seen / aim),
            }
        )
    return found


def _comparisons(
    parts: Sequence[PartConfig], by: dict[tuple[str, str, str], dict[str, Any]]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    for part in parts:
        for depth in DEPTHS:
            pair = [by.get((part.name, group, depth)) for group in ("duplicate", "paraphrase")]
            if pair[0] and pair[1]:
                yield f"{part.name}: duplicate beside paraphrase", depth, pair[0], pair[1]
    for first, second in combinations(sorted(parts, key=lambda part: part.batch), 2):
        alike = [(part.model, part.stage, part.rate, part.learning_rate, part.moments) for part in (first, second)]
        if first.batch == second.batch or alike[0] != alike[1]:
            continue
        for group in ("paraphrase", "duplicate", "once"):
            for depth in DEPTHS:
                pair = [by.get((part.name, group, depth)) for part in (first, second)]
                if pair[0] and pair[1]:
                    yield f"{group}: batch {first.batch} beside {second.batch}", depth, pair[0], pair[1]
