"""What a program says, as tests may hold it to."""

from __future__ import annotations


def lines_but_waiting(text: str) -> list[str]:
    """The lines of what was written to stderr, without those that are only said where loading takes a while: whether it does
    is the machine's business."""
    return [line for line in text.splitlines() if not line.startswith("loading ")]
