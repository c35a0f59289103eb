"""The README's tables about acquisition and forgetting."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from kept import HERE, interval, load, made_by, table

from engramlab.base import bootstrap

CLAIMS = ("acquisition-claims-0", "acquisition-claims-1", "acquisition-claims-2")
LEAST_FIT = 0.65
_TO_SEE = 1.959964 + 0.841621  # standard errors: of a 95 % interval, and of seeing it in four runs of five


def threshold(steps: float | str | None) -> str:
    """Steps; where nothing is forgotten within the horizon, the line never comes down to 0."""
    if isinstance(steps, str):
        return "∞"
    return "–" if steps is None else f"{steps:,.0f}"


def acquisition(*names: str) -> str:
    """What an encounter gains and how it is forgotten, by part of a run, group and depth."""
    found = [load(name) for name in names]
    lines = []
    parts = {row["dataset"] for summary, _ in found for row in summary["rows"]}
    for summary, _ in found:
        for row in summary["rows"]:
            first = [row["dataset"]] if len(parts) > 1 else []
            fit = row.get("r_squared")
            poor = fit is not None and fit < LEAST_FIT  # runs made before that rule still give a constant
            decay = None if poor else row.get("decay_constant")
            lines.append(
                [
                    *first,
                    row["group"],
                    row["depth"],
                    interval(row, "effectivity"),
                    interval(row, "effectivity_net"),
                    ("poor fit" if poor else "–")
                    if decay is None
                    else f"{decay:.2f} [{row['decay_low']:.2f}, {row['decay_high']:.2f}]",
                    "–" if fit is None else f"{fit:.2f}",
                    threshold(None if poor else row.get("threshold_steps")),
                    f"{row['final_gain']:+.2f}",
                ]
            )
    heads = ["part"] if len(parts) > 1 else []
    heads += [
        "group",
        "depth",
        "effectivity",
        "above the control",
        "decay constant",
        "R²",
        "threshold (steps)",
        "at the end",
    ]
    seeds = ", ".join(sorted({str(summary["seed"]) for summary, _ in found}))
    note = (
        "Nats, mean over a target's tokens; 95 % bootstrap over passages; seed "
        f"{seeds}. *never*: the control; what a maximum over a noisy window gains by chance. Threshold: where retainability "
        "reaches 0; a line that explains less than 0.65 of the curve is no fit. At the end: log-probability less that before "
        "the first encounter."
    )
    if any("effectivity_all" not in row for summary, _ in found for row in summary["rows"]):
        note += (
            " **By an earlier definition**: outliers are not left out of effectivity, and what would be written was not "
            "measured."
        )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def difference_error(one: dict[str, Any], other: dict[str, Any], together: bool) -> float:
    """The standard error of the difference between two rows' decay constants within a run.

    Args:
        together: of one part: the same control was taken off both, so that it is off by as much in either, in nats.
    """
    control = [row.get("decay_control_stderr") or 0.0 for row in (one, other)]
    shared = abs(control[0] - control[1]) if together else math.hypot(*control)
    return math.hypot(one["bootstrap_stderr"], other["bootstrap_stderr"], shared)


def over_runs(values: list[tuple[float, float]], samples: int = 10_000) -> np.ndarray:
    """Means of resamples of runs, each run's value off by its own standard error anew: float64 ``[samples]``."""
    of, errors = np.array(values).T
    drawn = bootstrap.draws(len(of), samples, 0)
    off = np.random.default_rng(1).standard_normal(drawn.shape)
    return np.asarray((of[drawn] + errors[drawn] * off).mean(axis=1))


def claims(*names: str) -> str:
    """Differences between decay constants over seeds: duplicates less paraphrases, the small batch less the large one."""
    found = [load(name) for name in names]
    gathered: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for summary, _ in found:
        rows = {(row["dataset"], row["group"], row["depth"]): row for row in summary["rows"]}
        parts = [part["dataset"] for part in sorted(summary["parts"], key=lambda part: part["batch"])]
        depths = dict.fromkeys(depth for _, _, depth in rows)
        pairs = [
            ((f"{part}: duplicates less paraphrases", depth), (part, "duplicate", depth), (part, "paraphrase", depth))
            for part in parts
            for depth in depths
        ]
        pairs += [
            ((f"{group}: {parts[0]} less {parts[-1]}", depth), (parts[0], group, depth), (parts[-1], group, depth))
            for group in ("duplicate", "paraphrase")
            for depth in depths
            if len(parts) > 1
        ]
        for what, one, other in pairs:
            a, b = rows.get(one, {}), rows.get(other, {})
            if a.get("decay_constant") is not None and b.get("decay_constant") is not None:
                error = difference_error(a, b, one[0] == other[0])
                gathered.setdefault(what, []).append((a["decay_constant"] - b["decay_constant"], error))
    lines = []
    for (what, depth), values in gathered.items():
        drawn = over_runs(values)
        mean, (low, high) = sum(value for value, _ in values) / len(values), bootstrap.interval(drawn)
        verdict = "came out" if low > 0 else "the other way" if high < 0 else "within noise"
        cells = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]", f"{_TO_SEE * drawn.std(ddof=1):.3f}"]
        lines.append([what, depth, *cells, str(len(values)), verdict])
    note = (
        "Differences between decay constants, mean over seeds with the 95 % interval of a bootstrap over seeds and, within "
        "each, over passages, those of the control as well where its drift is taken off; detectable: what four runs of "
        "five would see. A seed whose fit is poor (R² below 0.65) is left out."
    )
    heads = ["compared", "depth", "difference", "detectable", "seeds", "forgotten faster"]
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


def popularity(name: str) -> str:
    """Facts learnt with duplicates and without, by the simulation."""
    summary, _ = load(name)
    lines = [
        [row["depth"], row["condition"], f"{row['learnt']:.1%}", "–" if row["half"] is None else f"{row['half']:,}"]
        for row in summary["shares"]
    ]
    heads = ["depth", "a fact is stated", "facts learnt", "half learnt from (statements)"]
    note = f"Simulated by the laws of {summary['part']}, {summary['steps']:,} steps ({summary['tokens']:,} tokens)."
    if summary.get("poor"):
        note += f" Laws of a poor fit: {', '.join(summary['poor'])}."
    return "\n".join([*table(heads, lines), "", note])


def forecast() -> str:
    """The planner's error on a run with another interval than the one it was fitted on."""
    made = json.loads((HERE / "acquisition-plan" / "plan.json").read_text())
    ways = ("planner", "no forgetting", "last encounter only")
    lines = [
        [row["group"], row["depth"], f"{row['measured']:+.2f}"]
        + [f"{row[way + ': mean curve']:.2f} ({row[way]:.2f})" for way in ways]
        for row in made["errors"]
        if row["place"] == "end"
    ]
    note = (
        "Nats: how far the forecast log-probability at the last state is off for the mean over 200 queries and, in brackets, "
        "for a single query."
    )
    return "\n".join([*table(["group", "depth", "measured gain", *ways], lines), "", note])
