"""Who is learnt, by how often a corpus states them, and what deduplication does: a simulation from the measured laws.

    made = popularity(PopularityOptions(run=Path("runs/acquisition")))

The argument is that of arXiv 2406.11813, section 4.4: a fact that is met more rarely than the learnability threshold never
accumulates, and duplicates, which are forgotten faster, are worth less than the same fact in other words. The simulation is
ours: facts are met at random steps, as often as they are popular, and gain and forget by the laws of a run (see ``laws``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.acquisition.forecast import read_run_parts
from engramlab.acquisition.laws import Law
from engramlab.base.arrays import Floats
from engramlab.base.errors import UserError, nearest
from engramlab.base.options import at_least, check_rules
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import DEPTHS
from engramlab.files.writing import read_json

POINTS = 4  # popularities a decade


@dataclass(frozen=True)
class PopularityOptions:
    """Which facts are learnt, by how often they are stated, with duplicates and without."""

    run: Path
    """Folder of a finished knowledge-acquisition run."""
    part: str | None = None
    """Part of the run whose laws are taken; None for its first."""
    steps: int = 10_000
    """Steps of the training that is simulated, of the part's batch and window."""
    most: int = 2_000
    """Statements of the most popular fact."""
    facts: int = 10_000
    """Facts, the r-th of which is stated `most` / r ** `zipf` times."""
    zipf: float = 1.0
    """How fast popularity falls with the rank."""
    duplicates: float = 0.5
    """Part of a fact's statements that repeat another word for word, and that deduplication removes."""
    probability: float | None = None
    """A fact counts as learnt where its target's tokens have this probability (geometric mean) when training ends; None: where
    it stands above what a first encounter gains, so that encounters have added up."""
    draws: int = 200
    """Random courses a popularity."""
    seed: int = 0
    """Of the courses."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "most", "facts", "draws")
        fine = self.probability is None or 0 < self.probability < 1
        rules = [("zipf", self.zipf > 0, "above 0"), ("duplicates", 0 <= self.duplicates < 1, "at least 0 and below 1")]
        check_rules(self, [*rules, ("probability", fine, "between 0 and 1")])


def simulate(law: Law, met: Floats, steps: float) -> Floats:
    """The gain at the end of facts that are met at random steps, in nats.

    Args:
        met: ``[draws, n]`` steps of the encounters, rising along the rows.

    Returns:
        float64 ``[draws]``: what ``laws.course`` says of each row at state ``steps``.
    """
    height = np.zeros(len(met))
    ends = np.concatenate([met[:, 1:], np.full((len(met), 1), float(steps))], axis=1)
    for start, end in zip(met.T, ends.T, strict=True):
        height = height + np.maximum(0.0, np.minimum(law.first + law.change * height, law.highest - height))
        height = height * law.retained(end - start - law.peak)
    return height


def popularity(options: PopularityOptions) -> dict[str, Any]:
    """Simulates every popularity under every condition.

    Returns:
        ``rows`` (depth, condition, statements, interval in steps, mean gain and share of the courses that are learnt),
        ``shares`` (depth, condition, share of all facts that are learnt, statements from which on half are, the law's
        learnability threshold), and what was assumed.

    Raises:
        UserError: no such run or part, or a run without laws.
    """
    parts = read_run_parts(options.run)
    name = options.part or next(iter(parts))
    if name not in parts:
        raise UserError(
            f"part: there is no {name!r}; did you mean {nearest(name, parts)!r}? There are: {', '.join(parts)}"
        )
    own = parts[name]
    counts = _counts(options.most)
    facts = options.most / np.arange(1, options.facts + 1) ** options.zipf
    rows: list[dict[str, Any]] = []
    shares: list[dict[str, Any]] = []
    for depth in DEPTHS:
        laws = {group: found for (group, at), found in own.laws.items() if at == depth and group != "once"}
        if not laws:
            continue
        before = max(found.before for found in laws.values())
        needed = max(found.law.first for found in laws.values())
        if options.probability is not None:
            needed = math.log(options.probability) - before
        for condition, group, kept in _conditions(options.duplicates):
            if group not in laws:
                continue
            law = laws[group].law
            found = []
            for count in counts:
                gains = _gains(law, count * kept, options, (depth, condition, count))
                found.append(float((gains >= needed).mean()))
                row = {"depth": depth, "condition": condition, "statements": count, "interval": options.steps / count}
                rows.append(row | {"gain": float(gains.mean()), "learnt": found[-1], "needed": needed})
            # Between two popularities by a straight line in their logarithm; below one statement nothing is met.
            known = np.interp(np.log(np.maximum(facts, 1e-9)), np.log(counts), found)
            half = next((count for count, share in zip(counts, found, strict=True) if share >= 0.5), None)
            total = float(np.where(facts < 1, known * facts, known).mean())
            row = {
                "depth": depth,
                "condition": condition,
                "learnt": total,
                "half": half,
                "threshold": law.threshold_steps,
            }
            shares.append(row)
    if not rows:
        raise UserError(f"run {options.run}: no group was injected several times; run one with --schedule all")
    about = {"run": str(options.run), "part": name, "steps": options.steps, "tokens": options.steps * own.a_step}
    measured = read_json(Path(options.run) / "summary.json").get("rows") or []
    of_part = [row for row in measured if row.get("dataset") == name and row.get("poor_fit")]
    poor = [f"{row['group']} {row['depth']}" for row in of_part if row["group"] != "once"]
    return about | {"rows": rows, "shares": shares, "poor": poor}


def _conditions(duplicates: float) -> list[tuple[str, str, float]]:
    """What the corpus is like: its name, the law that its encounters follow, and how many of the statements are left."""
    return [
        ("each time in the same words", "duplicate", 1.0),
        (f"{duplicates:.0%} duplicates removed, other text instead", "paraphrase", 1 - duplicates),
        ("each time in other words", "paraphrase", 1.0),
    ]


def _counts(most: int) -> list[int]:
    grid = np.round(np.geomspace(1, most, max(2, round(POINTS * math.log10(max(most, 2))) + 1))).astype(int)
    return sorted({int(count) for count in grid})


def _gains(law: Law, statements: float, options: PopularityOptions, seed: tuple[Any, ...]) -> Floats:
    """Gains at the end of ``draws`` courses; a fraction of a statement is one in so many courses."""
    rng = np.random.default_rng(random_key(options.seed, "popularity", *map(str, seed)))
    low, part = int(statements), statements - int(statements)
    gains = np.zeros(options.draws)
    more = rng.random(options.draws) < part
    for which, n in ((~more, low), (more, low + 1)):
        if n and which.any():
            gains[which] = simulate(
                law, np.sort(rng.uniform(0, options.steps, (int(which.sum()), n)), axis=1), options.steps
            )
    return gains
