"""Options, presets and arms of learning to edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engramlab.base.errors import UserError, listed, quoted
from engramlab.base.options import at_least, check_rules, once
from engramlab.editing.judge.options import BesideOptions

#: What is judged: the untouched model under IKE, edited by FT-M and under the block, and models trained on all examples,
#: without those out of scope, or without those that lack the block.
ARMS = ("ike", "ft-m", "untouched", "aligned", "no-out-of-scope", "no-twins")
TRAINED = ARMS[3:]
#: The methods of arms that make edits by another one than the block.
METHODS = {"ike": "ike", "ft-m": "ft-m"}


@dataclass(frozen=True)
class Config(BesideOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model",)
    BASIC = (
        ("what is trained", ("model", "countries", "training_cases")),
        ("how", ("arms", "epochs", "learning_rate", "rank", "projections", "facts")),
        ("how it is judged", ("test_cases", "counts", "seed")),
    )

    model: str = ""
    """What is trained: a model folder, a .gguf file or a hub id. Required."""
    arms: tuple[str, ...] = ("ike", "ft-m", "untouched", "aligned")
    """ike, ft-m (weights changed by each memory's edits together) and untouched (the block before an untrained model) prepare
    nothing; aligned is the method; no-out-of-scope and no-twins leave out examples whose answer the block must not change, and
    all those without a block. The first that trains is kept."""
    countries: int = 120
    """Countries in all, the most populous."""
    test_share: float = 0.4
    """Share of them that is tested on; nothing trained speaks of them."""
    training_cases: int | None = None
    """At most so many edits to make examples of; None for all."""
    test_cases: int = 100
    """At most so many edits to judge."""
    counts: tuple[int, ...] = (1, 10, 100)
    """So many edits stand in one memory when they are judged; those above the test cases are left out."""
    facts: int = 1
    """Facts before a prompt when it is judged."""
    epochs: int = 3
    """Times that every example is read."""
    batch: int = 16
    """Rows a step (128 in the paper, of sixty thousand examples)."""
    learning_rate: float = 3e-4
    """Highest, of AdamW; with 3 % of warm-up and a cosine."""
    rank: int = 8
    """Of the low-rank updates; they are scaled by 2."""
    projections: Literal["query and value", "all"] = "query and value"
    """Which projections are updated."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision."""
    checkpoint_minutes: float = 2.0
    """Time after which a checkpoint is due."""
    seed: int = 0
    """Of the split, the examples, their order and the bootstrap."""

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in ARMS:
                raise UserError(f"arms: there is no {quoted(arm)}; there are {listed(ARMS)}")
        once("arms", self.arms)
        once("counts", self.counts)
        at_least(self, 1, "training_cases", "test_cases", "facts", "epochs", "batch", "rank")
        check_rules(
            self,
            [
                ("arms", bool(self.arms), "at least one"),
                ("counts", bool(self.counts) and min(self.counts) >= 1, "numbers of edits, each at least 1"),
                ("learning_rate", self.learning_rate > 0, "above 0"),
            ],
        )

    @property
    def trained(self) -> list[str]:
        """The arms that train."""
        return [name for name in self.arms if name in TRAINED]


PRESETS = {
    "small": Config(),
    "tiny": Config(training_cases=60, test_cases=8, counts=(1, 8), epochs=2),
    "ablations": Config(arms=ARMS),
    "gpu": Config(arms=ARMS, countries=190, batch=64, precision="bf16"),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    if not config.model.strip():
        raise UserError("model: say which model is trained, with --model and a model folder, a .gguf file or a hub id")
    several = any(1 < count <= config.test_cases for count in config.counts)
    config.check_beside(bool(config.trained) or several, instead="an arm that trains, or a larger number in --counts")
