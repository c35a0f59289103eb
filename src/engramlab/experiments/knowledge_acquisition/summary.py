"""From the measurements of a run to its tables and curves. No model code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.acquisition import decay
from engramlab.acquisition.curves import CurveOptions, Curves, Slice, control_steps, for_report, read_curves, take_slice
from engramlab.acquisition.dynamics import measured_steps
from engramlab.acquisition.schedule import Group
from engramlab.base import bootstrap
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import DEPTHS
from engramlab.experiments.knowledge_acquisition.config import Config, PartConfig
from engramlab.experiments.knowledge_acquisition.powering import power_rows, slopes_of
from engramlab.files import records, writing

LEVEL = 0.95  # of all intervals
_OF_THE_LINE = (
    *("decay_constant", "decay_low", "decay_high", "stderr", "bootstrap_stderr", "intercept", "threshold_tokens"),
    *("threshold_steps", "threshold_steps_low", "threshold_steps_high", "log10_threshold_tokens"),
)


def summarise(
    out: Path,
    config: Config,
    parts: Sequence[PartConfig],
    training: list[dict[str, Any]],
    groups: dict[str, tuple[Group, ...]],
    readings: dict[str, CurveOptions],
) -> dict[str, Any]:
    """Writes ``summary.json`` and each part's ``curves.json``; returns the summary."""
    rows, slopes = [], {}
    for part in parts:
        folder = out / part.name / "injection"
        reading = readings[part.name]
        curves = read_curves(folder, reading, states(config.measure, part.steps, groups[part.name], reading.window))
        slopes[part.name] = slopes_of(curves, groups[part.name], reading)
        found = _part_rows(config, part, curves, groups[part.name], reading)
        if reading.drift == "control":
            _add_control_errors(found, slopes[part.name])
        rows += found
        drawn = {"dataset": part.name, "batch": part.batch, "window": config.window, "steps": curves.total}
        shown = [(row["group"], row["depth"]) for row in found]
        drawn |= for_report(curves, reading, groups[part.name], shown)
        drawn["texts"] = writing.read_json(folder / "queries.json").get("texts", {})  # runs made before have none
        writing.write_json(out / part.name / "curves.json", finite(drawn))
    injected = {row["dataset"]: row for row in training if row["stage"] == "injection"}
    about = [
        {
            "dataset": part.name,
            "model": part.model,
            "batch": part.batch,
            "window": config.window,
            "interval": part.interval,
            "stage": part.stage,
            "rate": part.rate if part.learning_rate is None else f"{part.learning_rate:g}",
            "base": config.reading.base,
            "maxima_within": readings[part.name].window,
            "steps": injected[part.name]["steps"],
            "optimizer": injected[part.name]["optimizer"],
        }
        for part in parts
    ]
    summary = {
        "experiment": "knowledge-acquisition",
        "seed": config.seed,
        "seconds": round(sum(row["seconds"] for row in training), 1),
        "choices": choices(config, readings),
        "parts": about,
        "rows": rows,
        "power": power_rows(parts, rows, slopes, config.reading.aim),
        "training": training,
    }
    plain = finite(summary)
    records.write_record(out / "summary.json", plain)
    return dict(plain)


def states(measure: str, total: int, groups: Sequence[Group], window: int) -> list[int]:
    """The states of a part of ``total`` updates that are measured, rising: 0 is before the first step."""
    by_group = [group.steps for group in groups if group.steps]
    starts = by_group if measure == "own" else [sorted({step for steps in by_group for step in steps})]
    how: Any = "window" if measure == "own" else measure
    return sorted({int(step) for at in starts for step in measured_steps(how, total, at, window)})


def asked_at(
    measure: str, total: int, groups: Sequence[Group], window: int, owner: Sequence[Group]
) -> dict[int, np.ndarray | None]:
    """The queries that are measured at each state; None for all of them.

    Args:
        owner: the group of each query's passage. A control is measured wherever any group is.
    """
    every = states(measure, total, groups, window)
    if measure != "own":
        return dict.fromkeys(every)
    own = {group.name: set(states(measure, total, [group] if group.steps else groups, window)) for group in groups}
    return {step: np.array([i for i, group in enumerate(owner) if step in own[group.name]]) for step in every}


def choices(config: Config, readings: dict[str, CurveOptions]) -> dict[str, Any]:
    """What the definitions leave open and how it was chosen, for reports."""
    reading = config.reading
    windows = sorted({one.window for one in readings.values()})
    return {
        "log-probability of a target": f"{reading.target} over its tokens",
        "window of a maximum (t_w)": ", ".join(map(str, windows)) + " (without momentum)" * (windows == [1]),
        "outlier factor (IQR), effectivity and retainability": reading.outliers,
        "no decay constant below": f"R² {reading.least_fit:g}",
        "drift of the control": "taken off every gain" if reading.drift == "control" else "left in, as in the paper",
        "logarithm of the fit": "natural" if math.isclose(reading.base, math.e) else f"base {reading.base:g}",
        "range of the fit": f"t from {reading.t_min} to {reading.t_max or 'the longest every query reaches'}",
        "bootstrap": f"{reading.bootstrap} resamples of passages, {LEVEL:.0%} intervals",
        "queries left out": ", ".join(config.filters) or "none",
        "states measured": config.measure,
        "queries whose target begins inside a token": config.straddling,
        "groups injected": "all at one step" if config.stagger == 1 else f"in {config.stagger} parts over an interval",
    }


def _order(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.schedule for group in groups))


def _part_rows(
    config: Config, part: PartConfig, curves: Curves, groups: Sequence[Group], reading: CurveOptions
) -> list[dict[str, Any]]:
    """A row a group and depth. ``effectivity_net`` is what is left of its effectivity above the control's at the depth;
    ``before`` and ``after`` are log-probabilities as measured, all gains are of the curves as ``Curves.read`` gives them."""
    rows = []
    chance: dict[str, np.ndarray] = {}
    for group in sorted(_order(groups), key=lambda name: name != "never"):
        for depth in DEPTHS:
            found = take_slice(curves, group, depth, reading, control_steps(groups))
            if found is None:
                continue
            seed = random_key(config.seed, "bootstrap", group, depth)
            row: dict[str, Any] = {"dataset": part.name, "group": group, "depth": depth, "queries": len(found.rows)}
            row["passages"] = len(set(found.passages))
            gained = found.effectivity
            usual = np.where(decay.inliers(gained, reading.outliers), gained, np.nan)
            means = _resampled(usual, found.passages, reading.bootstrap, seed)
            row |= _interval("effectivity", means)
            row["effectivity_outliers"] = float(np.isnan(usual).sum() - np.isnan(gained).sum())
            row |= _interval("effectivity_all", _resampled(gained, found.passages, reading.bootstrap, seed))
            if group == "never":
                chance[depth] = means
            elif depth in chance:
                row |= _interval("effectivity_net", means - chance[depth])
            # Of those that failed the paper (app. H) says nothing where it looks at encounters one by one.
            lifted = np.where(gained < 0, np.nan, gained)
            row["by_encounter"] = decay.group_mean(gained, reading.outliers).mean.tolist()
            row["by_encounter_lifted"] = decay.group_mean(lifted, reading.outliers).mean.tolist()
            row["failed"] = (gained < 0).sum(axis=0).tolist()
            if curves.written is not None:
                row |= _written(curves, curves.written, found, reading, seed)
            last = curves.logprobs[found.rows, -1]
            row |= {"before": float(found.before.mean()), "after": float(last.mean())}
            row["final_gain"] = float(found.gain.mean())
            if found.retainability is not None:
                row["gained"] = _gained(curves, found, reading)
                row |= _decay(found, reading, part.batch, config.window, seed)
            rows.append(row)
    order = _order(groups)
    return sorted(rows, key=lambda row: order.index(row["group"]))


def _add_control_errors(rows: Sequence[dict[str, Any]], slopes: dict[str, dict[int, float]]) -> None:
    """Puts into each row how far its decay constant may be off by the control that was taken off its curves: one standard
    error, of the mean slope of the control's passages, as a part of the row's gain."""
    passages = {row["depth"]: row["passages"] for row in rows if row["group"] == "never"}
    for row in rows:
        by_horizon, gained = slopes.get(row["depth"]), row.get("gained") or 0.0
        if by_horizon and gained > 0:
            spread = by_horizon[max(by_horizon)]
            row["decay_control_stderr"] = spread / math.sqrt(passages[row["depth"]]) / gained


def _gained(curves: Curves, found: Slice, reading: CurveOptions) -> float:
    """Nats that all encounters together have gained at the last maximum: what retainability is a part of."""
    values, at, peaks = curves.read(found.rows, reading), np.arange(len(found.rows)), found.maxima[:, -1]
    starts = [curves.queries[int(i)]["start"] for i in found.rows]
    before, top = (values[at, np.searchsorted(curves.steps, states)] for states in (starts, np.maximum(peaks, 0)))
    gains = (top - before)[peaks >= 0]
    return float(gains.mean()) if len(gains) else math.nan


def _written(curves: Curves, written: np.ndarray, found: Slice, reading: CurveOptions, seed: int) -> dict[str, Any]:
    """The share of targets that greedy decoding writes: at the group's first state, at the maximum of each encounter, at
    the end."""
    of, starts = written[found.rows] > 0, [curves.queries[int(i)]["start"] for i in found.rows]
    at = np.arange(len(of))
    row: dict[str, Any] = {"written_before": float(of[at, np.searchsorted(curves.steps, starts)].mean())}
    if found.retainability is not None:  # a maximum that is not defined lies at -1: there it counts as not written
        there = of[at[:, None], np.searchsorted(curves.steps, found.maxima)] & (found.maxima >= 0)
        row["written_by_encounter"] = there.mean(axis=0).tolist()
    ends = _resampled(of[:, -1].astype(np.float64), found.passages, reading.bootstrap, seed)
    return row | _interval("written", ends)


def _resampled(values: np.ndarray, clusters: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """Mean of ``values`` (``[Q]`` or ``[Q, N]``, NaN left out), and behind it the means of ``samples`` resamples of passages:
    float64 ``[1 + samples]``."""
    _, owner = np.unique(clusters, return_inverse=True)
    values = values.reshape(len(values), -1)
    known = ~np.isnan(values)
    sums = np.bincount(owner, np.where(known, values, 0.0).sum(axis=1))
    counts = np.bincount(owner, known.sum(axis=1).astype(np.float64))
    draws = np.concatenate([np.arange(len(sums))[None, :], bootstrap.draws(len(sums), samples, seed)])
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))


def _interval(name: str, means: np.ndarray) -> dict[str, Any]:
    """A mean with its percentile interval from what ``_resampled`` gave."""
    low, high = bootstrap.interval(means[1:], bootstrap.ends_of(LEVEL))
    return {name: float(means[0]), f"{name}_low": low, f"{name}_high": high}


def _decay(found: Slice, reading: CurveOptions, batch: int, window: int, seed: int) -> dict[str, Any]:
    kept = found.retainability
    assert kept is not None
    t_max = math.inf if reading.t_max is None else reading.t_max
    mean = decay.group_mean(kept, reading.outliers)
    fit = decay.fit_decay(np.arange(kept.shape[1]), mean.mean, reading.base, t_min=reading.t_min, t_max=t_max)
    spread = decay.bootstrap_decay(
        kept,
        samples=reading.bootstrap,
        seed=seed,
        clusters=found.passages,
        factor=reading.outliers,
        base=reading.base,
        t_min=reading.t_min,
        t_max=t_max,
        level=LEVEL,
    )
    low, high = spread.threshold_interval
    used = slice(min(1, kept.shape[1] - 1), None)
    found_here = {
        "decay_constant": fit.decay_constant,
        "intercept": fit.intercept,
        "r_squared": fit.r_squared,
        "stderr": fit.stderr,
        "bootstrap_stderr": spread.stderr,
        "decay_low": spread.interval[0],
        "decay_high": spread.interval[1],
        "horizon": kept.shape[1] - 1,
        "threshold_steps": fit.threshold_steps,
        "threshold_steps_low": low,
        "threshold_steps_high": high,
        "threshold_tokens": fit.threshold_tokens(batch, window),
        "log10_threshold_tokens": fit.log10_threshold_tokens(batch, window),
        "undefined": float(np.isnan(kept[:, 0]).sum()),
        "outliers_mean": float(mean.outliers[used].mean()),
        "outliers_most": float(mean.outliers[used].max()),
    }
    # A slope through what is no line is no decay constant, and where such a line would end no threshold.
    poor = not fit.r_squared >= reading.least_fit
    return found_here | {"poor_fit": float(poor)} | (dict.fromkeys(_OF_THE_LINE) if poor else {})


def finite(value: Any) -> Any:
    """JSON without NaN and infinities: NaN becomes null, an infinity the word."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    return value
