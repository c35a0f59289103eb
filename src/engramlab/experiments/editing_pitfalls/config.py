"""Options and presets of editing pitfalls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, comma_separated, once
from engramlab.editing import cases as editing_cases
from engramlab.editing import method
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge.options import BesideOptions

Kind = Literal["reverse", "composite", "coverage", "round"]


@dataclass(frozen=True)
class Config(BesideOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "files", "conflict_wordings", "round_wordings")
    BASIC = (
        ("what is edited", ("model", "files", "conflict_wordings", "round_wordings", "kinds", "limit")),
        ("how", ("methods", "any_of", "at_once")),
        ("numbers", ("dtype", "device", "seed")),
    )

    model: str = ""
    """The model to edit: a folder, a .gguf file or a hub id. Required."""
    files: tuple[str, ...] = ("world",)
    """Files of ConflictEdit and RoundEdit; `world` for cases made of facts about countries, built in."""
    conflict_wordings: Path | None = None
    """ConflictEdit's wordings of relations (conflict_prompts.json); a file of it needs them."""
    round_wordings: Path | None = None
    """RoundEdit's (round_prompts.json)."""
    kinds: tuple[Kind, ...] = ("reverse", "composite", "coverage", "round")
    """Of `world`: a fact and its inverse, a fact and one that follows from it, one fact twice, and an answer among several
    right ones edited away and back."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of a record that is no such case: the file is refused, or the record left out."""
    methods: tuple[str, ...] = ("ft-m", "rome", "memit")
    """Methods by name. Commas or spaces between them."""
    any_of: tuple[str, ...] | None = None
    """Of these methods the way back is also made as one edit to all right answers together (MLE); they must be able to make
    several edits at once. None for memit, where it is among the methods."""
    limit: int | None = 50
    """Cases of a file, and of each kind of `world`; None for all of a file."""
    at_once: int = 8
    """Cases whose first edits are made, and whose probabilities are read, in one batch; what is done is kept in such steps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights."""
    device: str | None = None
    """Such as cuda:0; None for a GPU if there is one."""
    seed: int = 0
    """Of the cases of `world` and of the bootstrap."""
    hyper: Hyperparameters = field(default_factory=Hyperparameters)
    """Hyperparameters of the methods."""

    @property
    def joint(self) -> tuple[str, ...]:
        """The methods whose way back is also made to all right answers together."""
        listed = comma_separated(self.methods)
        return tuple({"memit"} & set(listed)) if self.any_of is None else comma_separated(self.any_of)


PRESETS = {"tiny": Config(limit=5), "small": Config(), "paper": Config(limit=None)}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    editing_cases.require_model(config.model)
    at_least(config, 1, "limit", "at_once")
    config.check_beside(many=False)
    listed = comma_separated(config.methods)
    for name, values in (
        ("methods", listed),
        ("any_of", config.joint),
        ("kinds", config.kinds),
        ("files", config.files),
    ):
        once(name, values)
    if not listed or not config.files:
        raise UserError(
            "files: name a file, or world" if listed else f"methods: name at least one of {', '.join(method.names())}"
        )
    if "world" in config.files and not config.kinds:
        raise UserError("kinds: name at least one of reverse, composite, coverage, round")
    for name in (*listed, *config.joint):
        found = method.load(name)
        if name not in listed:
            raise UserError(f"any_of: {name!r} is none of the methods; name it there too")
        if name in config.joint and not found.TOGETHER:
            raise UserError(f"any_of: {name!r} makes one edit after another, not several together; leave it out")
