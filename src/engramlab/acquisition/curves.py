"""The curves of an injection: reading what was measured, cutting it into groups and depths, thinning it for reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engramlab.acquisition import decay, dynamics
from engramlab.acquisition.measuring import read_measurements
from engramlab.acquisition.schedule import Group
from engramlab.base.arrays import brief
from engramlab.files import records

CURVE_POINTS = 400  # states of a group's mean curve in curves.json
FACT_POINTS = 100  # states of a query's curve there


@dataclass(frozen=True)
class CurveOptions:
    """How the curves are read; the report prints every choice."""

    target: Literal["mean", "sum"] = "mean"
    """Log-probability of a target: mean over its tokens (the released code of the paper) or their sum."""
    window: int = dynamics.WINDOW
    """Steps after an injection in which its maximum is looked for (t_w); 1 where the optimizer has no momentum."""
    outliers: float = 1.5
    """Effectivities and retainabilities beyond so many interquartile ranges are left out (the paper: 1.5, its code: 2.0)."""
    base: float = 10.0
    """Base of the logarithm in the fit of retainability against log t."""
    t_min: int = 1
    """Smallest t of that fit."""
    t_max: int | None = None
    """Largest t of that fit; None for all that every query reaches."""
    least_fit: float = 0.65
    """No decay constant is given where the line explains less than this part of the curve's variance (R²); 0.65 is the least
    that the paper reports."""
    drift: Literal["kept", "control"] = "kept"
    """`control` takes from every curve, the control's own too, how the control's mean moved (ours: what the stream alone
    teaches is then no part of what is gained or kept); `kept` reads the curves as they are, as the paper does."""
    bootstrap: int = 1000
    """Resamples of passages for intervals."""
    aim: float = 0.1
    """Difference between two decay constants for which it is reckoned how many passages, rows or steps would show it."""


@dataclass(frozen=True)
class Curves:
    """The log-probabilities of one part of a run.

    Attributes:
        steps: int64 ``[S]`` measured states.
        logprobs: float64 ``[Q, S]``, of target spans.
        queries: one a row, as ``queries.json`` has them.
        total: the last state.
        written: float64 ``[Q, S]``: 1 where greedy decoding would write the target, NaN where that query was not asked; None of
            a run that did not look.
    """

    __repr__ = brief

    steps: np.ndarray
    logprobs: np.ndarray
    queries: list[dict[str, Any]]
    total: int
    written: np.ndarray | None = None

    def read(self, rows: np.ndarray, reading: CurveOptions) -> np.ndarray:
        """The curves of some rows of one depth, from which every gain is read: float64 ``[rows, S]``.

        With ``drift="control"`` they are less the mean over the control's queries at that depth, and only their differences
        mean anything. The control's own rows are no exception: what is left of them is how single queries wander, which is
        what a maximum gains by chance, and no drift is taken off a difference to it twice.
        """
        control = [] if reading.drift == "kept" else self.of("never", self.queries[int(rows[0])]["depth"])
        if not control:
            return self.logprobs[rows]
        return np.asarray(self.logprobs[rows] - self.logprobs[np.concatenate(control)].mean(axis=0))

    def at(self, rows: np.ndarray, states: np.ndarray, reading: CurveOptions) -> np.ndarray:
        """What ``read`` gives at any states, float64 ``[rows, states]``; straight lines between measured ones."""
        curves = self.read(rows, reading)
        pairs = zip(curves, ~np.isnan(curves), strict=True)
        return np.stack([np.interp(states, self.steps[seen], values[seen]) for values, seen in pairs])

    def of(self, group: str, depth: str) -> list[np.ndarray]:
        """Row numbers of a group and depth, one array for each step its passages begin at."""
        starts: dict[int, list[int]] = {}
        for i, query in enumerate(self.queries):
            if (query["group"], query["depth"]) == (group, depth):
                starts.setdefault(query["start"], []).append(i)
        return [np.array(starts[start]) for start in sorted(starts)]

    def injected(self, group: str, depth: str) -> list[tuple[np.ndarray, list[int]]]:
        """The same where passages are injected, each with the steps at which they are."""
        parts = [(rows, self.queries[int(rows[0])]["injections"]) for rows in self.of(group, depth)]
        return [(rows, at) for rows, at in parts if at]


def read_curves(folder: Path, reading: CurveOptions, expected: Iterable[int] | None = None) -> Curves:
    """What was measured in ``folder`` (of one part's injection).

    Args:
        expected: the steps there must be.

    Raises:
        UserError: nothing was measured there, or what is there is not what was written.
    """
    again = f"remove {folder} to do that part again"
    about = records.read_record(folder / "queries.json", ("offsets", "queries"), again)
    steps, values = read_measurements(folder / "measured", expected)
    if values.shape[1] != about["offsets"][-1]:
        raise records.damaged(folder / "queries.json", "it does not go with what was measured", again)
    spans = dynamics.span_logprobs(values, about["offsets"], reading.target)
    return Curves(steps, np.ascontiguousarray(spans.T), about["queries"], int(steps[-1]), _written(folder, steps))


def _written(folder: Path, steps: np.ndarray) -> np.ndarray | None:
    """What was written greedily; None of a run made, or begun, before that was measured."""
    done = folder / "done.json"
    kept = (
        records.read_record(done, (), f"remove {folder} to do that part again").get("written")
        if done.exists()
        else None
    )
    if not (kept or (not done.exists() and (folder / "written").is_dir())):
        return None
    found, values = read_measurements(folder / "written", steps.tolist() if kept else None)
    return np.ascontiguousarray(values.T.astype(np.float64)) if np.array_equal(found, steps) else None


@dataclass(frozen=True)
class Slice:
    """One group at one depth, its parts that begin at different steps put together.

    Attributes:
        rows: int64 ``[Q]`` of the curves.
        passages: the passage's id of each.
        effectivity: float64 ``[Q, N]``.
        retainability: float64 ``[Q, horizon + 1]``; None for a control.
        maxima: int64 ``[Q, N]``.
        before: float64 ``[Q]``, log-probability at the first injection, as measured.
        gain: float64 ``[Q]``, how far the last state lies above that one, in nats.
    """

    __repr__ = brief

    rows: np.ndarray
    passages: list[str]
    effectivity: np.ndarray
    retainability: np.ndarray | None
    maxima: np.ndarray
    before: np.ndarray
    gain: np.ndarray


def take_slice(
    curves: Curves, group: str, depth: str, reading: CurveOptions, control_steps: Sequence[Sequence[int]]
) -> Slice | None:
    """Effectivity and retainability of a group at a depth; None where it has no queries.

    A control has no injections: its effectivity is the mean of what reading it at each of ``control_steps`` gives, and tells
    what a maximum over a window gains by chance.
    """
    parts = curves.of(group, depth)
    if not parts:
        return None
    starts = [curves.queries[int(rows[0])]["injections"] or list(control_steps[0]) for rows in parts]
    horizon = min(dynamics.common_horizon(curves.total, at, reading.window) for at in starts)
    sparse = len(curves.steps) <= curves.total or bool(np.isnan(curves.logprobs).any())
    gains, kept, maxima, before, ends = [], [], [], [], []
    for rows, at in zip(parts, starts, strict=True):
        values = curves.read(rows, reading)
        read_at = [at] if group != "never" else control_steps
        gained = [dynamics.effectivity(values, each, reading.window, steps=curves.steps) for each in read_at]
        gains.append(np.mean(gained, axis=0))
        maxima.append(dynamics.local_acquisition_maxima(values, at, reading.window, steps=curves.steps))
        first = int(np.searchsorted(curves.steps, min(at)))
        before.append(curves.logprobs[rows, first])
        ends.append(values[:, -1] - values[:, first])
        if group != "never":
            kept.append(
                dynamics.retainability(values, at, horizon, reading.window, steps=curves.steps, interpolate=sparse)
            )
    rows = np.concatenate(parts)
    return Slice(
        rows,
        [curves.queries[int(i)]["passage"] for i in rows],
        np.concatenate(gains),
        np.concatenate(kept) if kept else None,
        np.concatenate(maxima),
        np.concatenate(before),
        np.concatenate(ends),
    )


def control_steps(groups: Sequence[Group]) -> list[tuple[int, ...]]:
    """Where a control is read: at the injections of every group that has most of them."""
    most = max(len(group.steps) for group in groups)
    return sorted({group.steps for group in groups if len(group.steps) == most})


def for_report(
    curves: Curves, reading: CurveOptions, groups: Sequence[Group], shown: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Thinned mean curves and retainability of each (group, depth) of ``shown``, and every query's curve."""
    means, kept = [], []
    for group, depth in shown:
        found = take_slice(curves, group, depth, reading, control_steps(groups))
        if found is None:
            continue
        marks = curves.queries[int(found.rows[0])]["injections"]
        first = min((group.start for group in groups if group.steps), default=0)
        start = curves.queries[int(found.rows[0])]["start"] if marks else first
        x, y = _aligned(curves, found, {step - start for step in marks})
        means.append({"group": group, "depth": depth, "x": x, "y": y, "injections": [step - start for step in marks]})
        if curves.written is not None:
            _, share = _mean_course(curves, found, curves.written, {step - start for step in marks})
            means[-1]["written"] = _round(share)
        if found.retainability is not None:
            mean = decay.group_mean(found.retainability, reading.outliers).mean
            t = _thin(np.arange(1, len(mean)), CURVE_POINTS, log=True)
            kept.append({"group": group, "depth": depth, "t": t.tolist(), "r": _round(mean[t])})
    at = _thin(np.arange(len(curves.steps)), FACT_POINTS)
    wanted = {step for query in curves.queries for step in query["injections"]}
    wanted |= {step + 1 for step in wanted}
    at = np.union1d(at, np.flatnonzero(np.isin(curves.steps, sorted(wanted)))) if len(wanted) <= FACT_POINTS else at
    facts = []
    for i, query in enumerate(curves.queries):
        marks = query["injections"]
        own = curves.read(np.array([i]), reading)
        peaks = dynamics.local_acquisition_maxima(own, marks, reading.window, steps=curves.steps)[0]
        known = [int(step) for step in peaks if step >= 0]
        height = curves.logprobs[i, np.searchsorted(curves.steps, known)] if known else np.empty(0)
        about = {name: query[name] for name in ("passage", "group", "depth", "prompt", "target", "injections")}
        facts.append(about | {"y": _round(curves.logprobs[i, at], 3), "t_lam": known, "y_lam": _round(height, 3)})
    return {"curves": means, "retainability": kept, "fact_steps": curves.steps[at].tolist(), "facts": facts}


def _aligned(curves: Curves, found: Slice, marks: set[int]) -> tuple[list[int], list[float]]:
    """The mean gain since the state before the first injection, on steps counted from there."""
    grid, values = _mean_course(curves, found, curves.logprobs, marks)
    return grid.tolist(), _round(values - values[0])


def _mean_course(curves: Curves, found: Slice, of: np.ndarray, marks: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of some rows of ``of[Q, S]`` on steps counted from the first injection."""
    starts = np.array([curves.queries[int(i)]["start"] for i in found.rows])
    reach = curves.total - int(starts.max())
    grid = _thin(np.arange(reach + 1), CURVE_POINTS)
    grid = np.union1d(grid, [step + d for step in marks for d in (0, 1, 2) if step + d <= reach]).astype(np.int64)
    total = np.zeros(len(grid))
    for start in np.unique(starts):
        sums = of[found.rows[starts == start]].sum(axis=0)
        known = ~np.isnan(sums)
        total += np.interp(grid + start, curves.steps[known], sums[known])
    return grid, total / len(found.rows)


def _thin(values: np.ndarray, most: int, log: bool = False) -> np.ndarray:
    if len(values) <= most:
        return values
    last = len(values) - 1
    places = np.geomspace(1, last + 1, most) - 1 if log else np.linspace(0, last, most)
    return np.asarray(values[np.unique(np.round(places).astype(np.int64))])


def _round(values: np.ndarray, digits: int = 5) -> list[float]:
    return [round(float(value), digits) for value in values]
