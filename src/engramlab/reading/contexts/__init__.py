"""Questions of other people's files that come with passages: one file a format, with ``read``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

from engramlab.base import registry


@dataclass(frozen=True)
class Reading:
    """A question with a passage, as a decoder that compares contexts is asked it.

    Attributes:
        prompt: the question behind its passage.
        bare: the question by itself.
        irrelevant: the question behind a passage on something else; "" where the format names none.
        answers: right ones.
        alpha: weight of the contrast that the file asks for.
        plausible: share of the likeliest below which tokens are out, that the file asks for.
    """

    id: str
    prompt: str
    bare: str
    irrelevant: str
    answers: tuple[str, ...]
    alpha: float | None = None
    plausible: float | None = None


def load(name: str) -> ModuleType:
    """A format by name."""
    found: ModuleType = registry.load(sys.modules[__name__], name, "format")
    return found
