"""The tables of editing pitfalls and entity propagation, from runs kept as `pitfalls-*` and `propagation-*`."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, Kept, kept, made_by, percent, table

from engramlab.report.experiments.editing_pitfalls import CONFLICT, ROUND, ROUND_PUBLISHED, published
from engramlab.report.experiments.entity_propagation import ARMS


def _model(summary: dict[str, Any]) -> str:
    return str(summary["model"]).rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def _source(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def _ends(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "–"
    if name.startswith("distortion"):
        return f"{row[name]:.3f} [{row[name + '_low']:.3f}, {row[name + '_high']:.3f}]"
    return f"{percent(row[name])} [{percent(row[name + '_low'])}, {percent(row[name + '_high'])}]"


def _drawn(found: list[Kept], heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else ABSENT


def conflicts() -> str:
    """Two edits in a row; the paper's GPT-J behind ours."""
    found = kept("pitfalls-")
    lines = [
        [_model(summary), _source(row["source"]), row["kind"], row["method"], str(row["cases"])]
        + [_ends(row, name) for name in CONFLICT]
        + [published(row["kind"], row["method"], tuple(CONFLICT))]
        for summary, _ in found
        for row in summary["rows"]
        if row["kind"] != "round"
    ]
    heads = ["model", "cases of", "kind", "method", "cases", *CONFLICT.values(), "GPT-J (arXiv 2310.02129)"]
    return _drawn(found, heads, lines)


def rounds() -> str:
    """An answer edited away and back."""
    found = kept("pitfalls-")
    lines = [
        [_model(summary), _source(row["source"]), row["method"], str(row["cases"])]
        + [_ends(row, name) for name in ROUND]
        + [published("round", row["method"], ROUND_PUBLISHED)]
        for summary, _ in found
        for row in summary["rows"]
        if row["kind"] == "round"
    ]
    heads = [
        "model",
        "cases of",
        "method",
        "cases",
        *ROUND.values(),
        "GPT-J: D / answers × 100, easy / hard, then IR / success (arXiv 2310.02129)",
    ]
    return _drawn(found, heads, lines)


def propagation() -> str:
    """What each way of telling a definition gained."""
    found = kept("propagation-")
    lines = [
        [
            *(_model(summary), _source(row["source"]), row["kind"]),
            *(ARMS.get(row["arm"], row["arm"]), str(row["probes"])),
            f"{row['perplexity_before']:.3g} → {row['perplexity_after']:.3g}",
            _signed(row, "gain"),
            *(f"{percent(row[name + '_before'])} → {percent(row[name + '_after'])}" for name in ("sum", "mean")),
            _signed(row, "by_overlap"),
        ]
        for summary, _ in found
        for row in summary["rows"]
    ]
    heads = ["model", "entities of", "probes", "told by", "n", "perplexity", "nats gained a token"]
    heads += ["right, by sum", "right, by mean", "gain and overlap"]
    return _drawn(found, heads, lines)


def _signed(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "–"
    return f"{row[name]:+.2f} [{row[name + '_low']:+.2f}, {row[name + '_high']:+.2f}]"
