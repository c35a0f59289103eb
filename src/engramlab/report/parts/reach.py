"""Where probes can read anything at all: the one rule of pages, headlines and tables on what an edit reached. No models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.report.parts.verdicts import Interval, interval, more, wilson
from engramlab.report.rows import Row, number

UNREADABLE = "cannot be read here"


def can_be_read(summary: Mapping[str, Any], row: Row) -> bool:
    """Do the probes of a row's place and layer read subjects that they were not trained on better than the commonest object?

    A row of ``name`` says it itself (``readable``). Runs that did not note it are judged by their probes' accuracy, whose
    interval is then Wilson's over the subjects. Where nothing is known of the probes, nothing can be read.
    """
    if isinstance(flag := row.get("readable"), bool):
        return flag
    probe = probe_of(summary, row)
    majority, accuracy = number(probe.get("majority")), number(probe.get("accuracy"))
    if majority is None or accuracy is None:
        return False
    found: Interval | None = interval(probe, "accuracy") or wilson(accuracy, _subjects(summary))
    return more(found, majority) is True


def probe_of(summary: Mapping[str, Any], row: Row) -> Row:
    """What is known of the probes that a row was read by; nothing where the run does not say."""
    here = row["place"], row["layer"]
    return next((one for one in summary.get("probes") or [] if (one["place"], one["layer"]) == here), {})


def _subjects(summary: Mapping[str, Any]) -> float:
    """How many subjects the probes were tried on: those edited, and as many beside them."""
    made: Row = next(iter(summary.get("name_edits") or []), {})
    return 2 * ((number(made.get("edits")) or 0.0) + (number(made.get("failed")) or 0.0))
