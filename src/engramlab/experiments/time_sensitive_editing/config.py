"""Options and presets of time-sensitive editing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, once
from engramlab.editing import benchmarks
from engramlab.editing import cases as editing_cases
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge.options import BesideOptions

ArmName = Literal["ft", "lora-attention", "lora-mlp", "lora-both", "p-tuning", "rome", "memit"]
ARMS: tuple[ArmName, ...] = ("ft", "lora-attention", "lora-mlp", "lora-both", "p-tuning", "rome", "memit")
#: What each arm edits with.
METHODS = {
    "ft": "ft-m",
    **dict.fromkeys(("lora-attention", "lora-mlp", "lora-both"), "lora"),
    **{name: name for name in ("p-tuning", "rome", "memit")},
}


@dataclass(frozen=True)
class Config(BesideOptions):
    """Everything that decides the numbers of a run. Steps and rates are ours: the paper's abstract names none."""

    READS = ("model", "benchmarks")
    BASIC = (
        ("what is edited", ("model", "benchmarks", "limit", "judges")),
        ("how", ("arms", "counts", "groups", "rank", "steps", "learning_rate", "window")),
        ("numbers", ("dtype", "seed")),
    )

    model: str = ""
    """The model to edit: a folder, a .gguf file or a hub id. Required."""
    benchmarks: tuple[str, ...] = ("world",)
    """`world` (facts about countries are changed), `dated` (made facts with dates, changed and new), or files of edits in
    any of the known formats, such as a table of your own with columns subject, relation, object, start, end."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of malformed records: the file is refused, or they are left out."""
    arms: tuple[ArmName, ...] = ARMS
    """`ft` fine-tunes every layer's MLP down-projection, `lora-both` all linear maps of the layers."""
    counts: tuple[int, ...] = (1, 10, 100)
    """So many cases are edited jointly."""
    groups: int = 20
    """So many groups of each count at most; the cases are dealt out to them."""
    limit: int | None = 100
    """Cases of each benchmark; None for all."""
    judges: int | None = 2
    """At most so many questions of each role and kind judge a case; None for all."""
    rank: int = 8
    """Of LoRA. With equal rank more modules are more parameters."""
    steps: int = 70
    """Optimizer steps at most, of `ft` and LoRA."""
    learning_rate: float = 1e-3
    """Of `ft` and LoRA."""
    window: int = 4
    """Layers of the window in which LoRA on both alone changes, sliding over the model at the largest count; 0 for no sweep."""
    stride: int | None = None
    """By so many layers the window slides; None for its own width."""
    at_once: int = 4
    """Groups of one case that are edited and judged in one batch; what is done is kept in such steps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights."""
    device: str | None = None
    """Such as cuda:0; None for a GPU if there is one."""
    seed: int = 0
    """Of the cases that are made, and of the bootstrap."""
    hyper: Hyperparameters = field(default_factory=Hyperparameters)
    """Other settings of the methods."""


PRESETS = {
    "tiny": Config(arms=("ft", "lora-both", "p-tuning", "memit"), counts=(1, 4), groups=2, limit=8, judges=1, window=0),
    "small": Config(),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    editing_cases.require_model(config.model)
    at_least(config, 1, "groups", "limit", "judges", "rank", "steps", "stride", "at_once")
    at_least(config, 0, "window")
    for name in ("benchmarks", "arms", "counts"):
        if not getattr(config, name):
            raise UserError(f"{name}: name at least one")
        once(name, getattr(config, name))
    if min(config.counts) < 1:
        raise UserError(f"counts: must be numbers of edits from 1 up, not {min(config.counts)}")
    config.check_beside(max(config.counts) > 1 and config.limit != 1, instead="a larger number in --counts")
    if not config.learning_rate > 0:
        raise UserError(f"learning_rate must be above 0, not {config.learning_rate}")
    for name in config.benchmarks:
        benchmarks.check(name)
