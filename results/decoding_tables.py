"""The tables of factual decoding, from runs kept as `decoding-*`; nothing where there is none."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, percent, table

_SETS = {"facts": "facts", "truthfulqa": "TruthfulQA", "factor": "FACTOR"}


def _ends(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "–"
    return f"{percent(row[name])} [{percent(row[name + '_low'])}, {percent(row[name + '_high'])}]"


def _model(summary: dict[str, Any]) -> str:
    return str(summary["model"]).rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def choices() -> str:
    """MC1 to MC3 and what is written, of questions that chose no layers."""
    found = [run for run in kept("decoding-") if run[0]["rows"]]
    lines = [
        [_model(summary), _SETS.get(row["dataset"], row["dataset"]), row["way"], str(row["questions"])]
        + [_ends(row, name) for name in ("mc1", "mc2", "mc3", "mc1_more", "written")]
        for summary, _ in found
        for row in summary["rows"]
    ]
    heads = ["model", "set", "decoding", "questions", "MC1", "MC2", "MC3", "MC1 less greedy", "written"]
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else ABSENT


def passages() -> str:
    """What is written behind passages."""
    found = [run for run in kept("decoding-") if run[0]["passages"]]
    lines = [
        [_model(summary), row["kind"], row["way"], _alpha(row), *(_ends(row, n) for n in ("follows", "own", "kept"))]
        for summary, _ in found
        for row in summary["passages"]
    ]
    heads = ["model", "passage", "decoding", "alpha", "follows it", "keeps its own answer", "known answers kept"]
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else ABSENT


def speed() -> str:
    """Time of writing over greedy's."""
    found = [run for run in kept("decoding-") if run[0]["speed"]]
    lines = [
        [_model(summary), row["way"], str(row["batch"]), f"{row['seconds_times_greedy']:.2f}", f"{row['bound']:.2f}"]
        for summary, _ in found
        for row in summary["speed"]
    ]
    return "\n".join(table(["model", "decoding", "batch", "times greedy", "bound"], lines)) if lines else ABSENT


def _alpha(row: dict[str, Any]) -> str:
    return f"{row['alpha']:g}" if row["alpha"] is not None else "dynamic" if row["way"] == "micd" else "–"
