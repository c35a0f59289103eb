"""The likeliest token (of several the one with the lowest id)."""

from __future__ import annotations

from dataclasses import dataclass

from engramlab.core.forward.decoding import Decoding


@dataclass(frozen=True)
class Config(Decoding):
    """Takes the likeliest token."""
