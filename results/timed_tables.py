"""The tables of time-sensitive editing, from runs kept as `timed-*`."""

from __future__ import annotations

from typing import Any

from kept import ABSENT, kept, made_by, table

from engramlab.report.experiments.time_sensitive_editing import SCORES, fluency, kinds, name_of
from engramlab.report.parts.words import percent_ranged


def _model(summary: dict[str, Any]) -> str:
    return str(summary["model"]).rstrip("/").rpartition("/")[2].removesuffix(".gguf")


def arms() -> str:
    """Every arm at every number of joint edits."""
    return _drawn(swept=False)


def layers() -> str:
    """LoRA in a window that slides over the layers."""
    return _drawn(swept=True)


def _drawn(swept: bool) -> str:
    found = kept("timed-")
    lines = [
        [_model(summary), row["source"], name_of(row), str(row["edits"]), str(row["cases"])]
        + [percent_ranged(row, name) for name in SCORES]
        + [
            kinds(row),
            fluency(row),
            f"{row['parameters']:,}",
            "–" if row["seconds_per_edit"] is None else f"{row['seconds_per_edit']:.2f}",
        ]
        for summary, _ in found
        for row in summary["rows"]
        if bool(row["window"]) == swept
    ]
    heads = [
        "model",
        "cases of",
        "arm",
        "edits",
        "cases",
        *SCORES.values(),
        "changed / new",
        "fluency",
        "parameters",
        "s an edit",
    ]
    return "\n".join([*table(heads, lines), "", made_by(found)]) if lines else ABSENT
