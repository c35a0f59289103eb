"""The rows of a sweep's cells put together: means over seeds, and how Q-probing and extraction go together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base.correlation import spearman
from engramlab.base.rows import Row
from engramlab.files import records
from engramlab.sweeps.cells import Sweep
from engramlab.sweeps.work import Outcome

_NOT_MEASURED = ("cell", "seed")


def summary(sweep: Sweep, outcomes: Sequence[Outcome], out: Path) -> Row:
    """What a sweep's ``summary.json`` holds.

    ``cells`` says of each cell how it ended; ``rows`` are the cells' own with ``cell`` and ``seed``; ``means`` see ``means``;
    ``probing`` are the rows of Q-probing of the cells that were probed, ``correlations`` see ``correlations_over_cells``.
    """
    cells: list[Row] = []
    rows: list[Row] = []
    probing: list[Row] = []
    training: list[Row] = []
    for one in outcomes:
        cell, found = one.cell, _read(one.cell.folder)
        about = {"cell": cell.name, "seed": cell.seed, **({"over": cell.over} if cell.over else {})}
        state = "failed" if one.error else "done" if cell.finished else "unfinished"
        seconds = found.get("seconds")
        cells.append({**about, "variant": cell.variant, "state": state, "error": one.error, "seconds": seconds})
        rows += [{**row, **about} for row in found.get("rows", [])]
        training += [{**row, **about} for row in found.get("training", [])]
        probed = _read(out / "probing" / cell.name).get("rows", [])
        probing += [{**row, **about} for row in probed if row.get("probe") == "Q" and not row.get("control")]
    return {
        "experiment": "sweep",
        "of": sweep.experiment,
        "seed": sweep.seeds[0] if sweep.seeds else None,
        "seconds": round(sum(cell["seconds"] or 0 for cell in cells), 1),
        "cells": cells,
        "means": means(rows),
        "correlations": correlations_over_cells(probing),
        "points": points(probing),
        "rows": rows,
        "probing": probing,
        "training": training,
    }


def _read(folder: Path) -> Row:
    path = folder / "summary.json"
    return records.read_record(path, ("rows",), f"remove {path} and start the sweep again") if path.exists() else {}


def means(rows: Sequence[Row]) -> list[Row]:
    """Rows that differ in nothing but their cell, seed and measurements, as one.

    What is a float in any row was measured; anything else says of what, but for lists, which are left out. Of a measurement
    ``x`` there are the mean ``x``, ``x_low``, ``x_high`` and the sample standard deviation ``x_sd`` (None for a single value);
    ``seeds`` counts the rows.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    apart = {*_NOT_MEASURED, *(k for row in rows for k, v in row.items() if _measured(v) or isinstance(v, list))}
    for row in rows:
        same = [(k, repr(v)) for k, v in row.items() if k not in apart]
        groups.setdefault(tuple(same), []).append(row)
    found = []
    for members in groups.values():
        mean = {k: v for k, v in members[0].items() if k not in apart}
        mean["seeds"] = len(members)
        for name in dict.fromkeys(k for row in members for k, v in row.items() if _measured(v)):
            values = np.array([row[name] for row in members if _measured(row.get(name))])
            mean[name] = float(values.mean())
            mean[f"{name}_low"], mean[f"{name}_high"] = float(values.min()), float(values.max())
            mean[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else None
        found.append(mean)
    return found


def _measured(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def points(probing: Sequence[Row]) -> list[Row]:
    """One point a dataset, attribute, target and value of what is swept over: Q-probing accuracy and P_test extraction, means
    over the seeds that have both.

    ``target`` is "whole" (exact match) or "first" (first tokens).
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in probing:
        if _measured(row.get("accuracy")) and _measured(row.get("extraction")):
            about = (row["target"], row["dataset"], row.get("mode", ""), row["attribute"])
            key = tuple(map(str, (*about, row["over"]) if row.get("over") else about))
            groups.setdefault(key, []).append(row)
    return [
        {
            **dict(zip(("target", "dataset", "mode", "attribute", "over"), key, strict=False)),
            "accuracy": float(np.mean([row["accuracy"] for row in of])),
            "extraction": float(np.mean([row["extraction"] for row in of])),
            "seeds": len(of),
        }
        for key, of in groups.items()
    ]


def correlations_over_cells(probing: Sequence[Row]) -> list[Row]:
    """Spearman's rho of the points of each target, with a bootstrap interval over points; and, as points of one dataset are not
    independent of each other, ``by_dataset`` the same of one point a dataset, the mean over its attributes."""
    found = []
    every = points(probing)
    for target in dict.fromkeys(point["target"] for point in every):
        of = [point for point in every if point["target"] == target]
        groups: dict[tuple[str, ...], list[Row]] = {}
        for point in of:
            groups.setdefault((point["dataset"], point["mode"], point.get("over", "")), []).append(point)
        averages = [
            {name: float(np.mean([p[name] for p in group])) for name in ("accuracy", "extraction")}
            for group in groups.values()
        ]
        found.append({"target": target, **_together(of), "by_dataset": _together(averages)})
    return found


def _together(of: Sequence[Row]) -> Row:
    rho, low, high = spearman([p["accuracy"] for p in of], [p["extraction"] for p in of])
    return {"points": len(of), "rho": rho, "low": low, "high": high}
