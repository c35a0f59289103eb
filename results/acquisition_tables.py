"""The README's tables about acquisition and forgetting."""

from __future__ import annotations

import json

from kept import HERE, interval, load, made_by, table


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
            decay = row.get("decay_constant")
            lines.append(
                [
                    *first,
                    row["group"],
                    row["depth"],
                    interval(row, "effectivity"),
                    interval(row, "effectivity_net"),
                    "–" if decay is None else f"{decay:.2f} [{row['decay_low']:.2f}, {row['decay_high']:.2f}]",
                    "–" if decay is None else f"{row['r_squared']:.2f}",
                    threshold(row.get("threshold_steps")),
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
        "reaches 0. At the end: log-probability less that before the first encounter."
    )
    return "\n".join([*table(heads, lines), "", f"{note} {made_by(found)}"])


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
