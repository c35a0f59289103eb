"""Options and presets of entity propagation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, check_rules, once
from engramlab.editing import cases as editing_cases
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge.options import BesideOptions

Arm = Literal["ft-last", "ft-all", "distillation", "rome", "context", "random"]
#: What each arm edits with; the last two only put text in front.
METHODS = {"ft-last": "ft-m", "ft-all": "ft-m", "distillation": "distillation", "rome": "rome"}


@dataclass(frozen=True)
class Config(BesideOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model", "files")
    BASIC = (
        ("what is told", ("model", "files", "limit", "specificity")),
        ("how", ("arms", "together", "steps", "learning_rate")),
        ("numbers", ("dtype", "device", "seed")),
    )

    model: str = ""
    """The model that is told: a folder, a .gguf file or a hub id. Required."""
    files: tuple[str, ...] = ("fictional",)
    """`fictional` (made-up entities, built in), and files of Entity Inferences or ECBD."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of a record that is no entity: the file is refused, or the record left out."""
    limit: int | None = 20
    """Entities of each file; None for all (of `fictional` for 20)."""
    specificity: int = 20
    """Facts about countries that are asked beside every entity's probes: they should stay as likely as they were."""
    options: int = 4
    """Of `fictional`: wrong objects among which a probe's own is to be the likeliest."""
    arms: tuple[Arm, ...] = ("ft-last", "ft-all", "distillation", "rome", "context", "random")
    """How the definition is told: fine-tuning of the last layer's MLP or of all layers', distillation into all layers' MLPs,
    ROME; `context`: it stands before each probe (what could be reached), `random`: another entity's does (control)."""
    together: int = 1
    """Entities told in one change (the paper of distillation: up to 150) and asked for under it; ROME tells one at a time."""
    steps: int = 10
    """Optimizer steps of fine-tuning and distillation."""
    learning_rate: float = 1e-4
    """Of both."""
    at_once: int = 2
    """Changes made and asked for in one batch, each by itself; what is done is kept in such steps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights."""
    device: str | None = None
    """Such as cuda:0; None for a GPU if there is one."""
    seed: int = 0
    """Of entities, options and the bootstrap."""
    hyper: Hyperparameters = field(default_factory=Hyperparameters)
    """Hyperparameters of the methods, but for steps, rate and layers of fine-tuning and distillation, whose `hard` is 0, as in
    the paper, where it is left at 0.5."""


PRESETS = {"tiny": Config(limit=4, specificity=8), "small": Config(), "paper": Config(limit=None, specificity=40)}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    editing_cases.require_model(config.model)
    at_least(config, 2, "limit")
    at_least(config, 1, "steps", "at_once", "options", "together")
    check_rules(
        config,
        [
            ("learning_rate", config.learning_rate > 0, "above 0"),
            ("specificity", config.specificity >= 0, "at least 0"),
        ],
    )
    config.check_beside(config.together > 1, instead="--together 20")
    if config.together > 1 and "rome" in config.arms:
        others = " ".join(arm for arm in config.arms if arm != "rome") or "distillation"
        raise UserError(
            f"arms: rome tells one entity at a time, not {config.together} in one change; give --arms {others}"
        )
    once("arms", config.arms)
    once("files", config.files)
    if not config.arms or not config.files:
        raise UserError(f"arms: name at least one of {', '.join((*METHODS, 'context', 'random'))}; files: one too")
