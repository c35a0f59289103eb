"""Options and presets of knowledge estimation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, once
from engramlab.corpora.facts import FactOptions
from engramlab.measuring.candidates import By
from engramlab.measuring.estimators.many_shot import SEPARATORS, Form

Control = Literal["unknown", "incorrect"]
Place = Literal["spread", "start", "end"]


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model",)
    BASIC = (
        ("what is asked", ("model", "facts", "key", "attributes", "limit", "subjects", "options")),
        ("how", ("counts", "draws", "forms", "controls", "wordings", "seed")),
    )

    model: str = ""
    """What is asked: a model folder, a .gguf file or a hub id. Required."""
    limit: int | None = None
    """At most so many of the facts, drawn by the seed; None for all."""
    counts: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50)
    """Facts in the list; 0 is the bare subject. What a relation has too few facts for is left out."""
    draws: int = 5
    """Lists drawn for every count."""
    subjects: int = 100
    """Subjects asked for in a relation, at most; lists are made of the others."""
    options: int = 100
    """Objects to choose from, the right one among them, at most."""
    forms: tuple[Form, ...] = ("list",)
    """How the list is written: `list`, as in the paper, or `lines`, a fact a line (ours)."""
    by: By = "sum"
    """What of an option counts: its log-probability (the paper's), that of a token, of a character, or less what it has by
    itself."""
    controls: tuple[Control, ...] = ("unknown", "incorrect")
    """What is put into the longest list; none: no controls."""
    places: tuple[Place, ...] = ("spread", "start", "end")
    """Where it is put: spread over the list, or in one block."""
    control_share: float = 0.4
    """How much of the list it is."""
    wordings: bool = True
    """Ask in the table's own wordings too, three at most: beginnings of sentences, and the question."""
    seed: int = 0
    """Of subjects, lists, options and the bootstrap."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""


TINY = Config(counts=(0, 1, 5, 20), draws=2, subjects=30, options=20, places=("spread", "end"))
PRESETS = {"tiny": TINY, "paper": Config(counts=(50,), draws=1, subjects=10_000, controls=())}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    at_least(config, 1, "draws", "subjects", "limit")
    at_least(config, 2, "options")
    between(config, "control_share")
    for name in ("counts", "forms", "controls", "places"):
        once(name, getattr(config, name))
    if not config.counts or min(config.counts) < 0:
        raise UserError(f"counts: name at least one, none below 0, not {config.counts}")
    if not config.forms:
        raise UserError(f"forms: name at least one of: {', '.join(SEPARATORS)}")
    if config.controls and not config.places:
        raise UserError("places: name at least one of spread, start, end, or leave the controls out")
