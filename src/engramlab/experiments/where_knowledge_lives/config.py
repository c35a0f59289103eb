"""Options and presets of the comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, check_rules, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.facts import FactOptions

Way = Literal["training", "editing", "memory", "virtual tokens", "prompt"]
WAYS: tuple[Way, ...] = ("training", "editing", "memory", "virtual tokens", "prompt")


@dataclass(frozen=True)
class Config(FactOptions):
    """Everything that decides the numbers of a run."""

    READS = ("model",)
    BASIC = (
        ("what is put where", ("model", "facts", "subjects", "attributes", "ways")),
        ("the ways", ("encounters", "learning_rate", "edit_method", "tokens", "epochs")),
        ("what is measured", ("changed", "native", "seed")),
    )

    model: str = "3x128"
    """Whose knowledge it is: a model folder, a .gguf file or a hub id (then with --facts); or LAYERSxWIDTH, trained from
    scratch beforehand: once plainly and once with a plug-in memory."""
    ways: tuple[Way, ...] = WAYS
    """Where the facts are put. A plug-in memory needs a network built with one: a model that exists leaves it out."""
    subjects: int = 40
    """From scratch, without --facts: made-up people whose facts are put in."""
    people: int = 100
    """From scratch, without --facts: people that the network knows."""
    readers: int = 2000
    """From scratch, without --facts: others, whose passages it has learnt to read answers from."""
    new_share: float = 0.4
    """From scratch, with --facts: share of its subjects whose facts are put in; the others the network knows."""
    context: int = 192
    """From scratch: most tokens that the network reads."""
    vocabulary: int = 2048
    """From scratch: largest size of the tokenizer."""
    pretrain: Recipe = field(
        default_factory=lambda: Recipe(
            steps=2000, batch=16, learning_rate=3e-3, weight_decay=0.03, beta2=0.98, warmup=100
        )
    )
    """From scratch: training of either network."""
    memory_rate: float = 1e-3
    """From scratch: highest learning rate of the network with a memory, in the place of that of `pretrain`: at higher ones it
    does not learn to find documents."""
    encounters: int = 60
    """Training: rows about each subject."""
    batch: int = 8
    """Training: rows a step; of virtual tokens questions."""
    learning_rate: float = 2e-4
    """Training: highest learning rate, of LoRA on all projections."""
    rank: int = 8
    """Training: its rank."""
    question_share: float = 0.3
    """Training: share of rows that are questions, about the half of the subjects that is not asked about."""
    replay_share: float = 0.3
    """Training, from scratch: share of rows that are what the network has read before."""
    edit_method: str = "memit"
    """Editing: memit, ft-m, ... see `engramlab methods`."""
    tokens: int = 20
    """Virtual tokens between passage and question."""
    epochs: int = 3
    """Virtual tokens: how often each question about the half that is not asked about is trained."""
    tokens_rate: float = 1e-2
    """Virtual tokens: highest learning rate."""
    changed: int = 3
    """Facts that are changed afterwards, one after another."""
    native: int = 40
    """Subjects that the model knew before and is asked about again; of a model that exists countries' capitals."""
    new_tokens: int = 16
    """Most tokens of an answer."""
    seed: int = 0
    """Of people, halves, orders, what is changed, and the bootstrap."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""

    @property
    def scratch(self) -> bool:
        """Is the network trained here, from nothing?"""
        return models.is_size(self.model)


PRESETS = {
    "tiny": Config(
        attributes=("birth_city", "university", "major"), encounters=150, rank=32, learning_rate=3e-3, epochs=20
    ),
    "small": Config(model="", changed=5),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    from engramlab.editing import method

    if not config.model.strip():
        raise UserError("model: say whose knowledge it is, with --model and a model folder, a .gguf file or a hub id")
    models.check(config.model, "pluglm")
    at_least(config, 1, "readers", "encounters", "batch", "rank", "tokens", "epochs", "changed", "native", "new_tokens")
    at_least(config, 4, "subjects", "people")
    between(config, "new_share")
    shares = config.question_share + config.replay_share
    check_rules(
        config,
        [
            ("question_share", config.question_share > 0 and shares < 1, "above 0, and below 1 with replay_share"),
            ("memory_rate", 0 < config.memory_rate < math.inf, "above 0"),
        ],
    )
    once("ways", config.ways)
    for way in config.ways:
        if way not in WAYS:
            raise UserError(f"ways: {way!r} is unknown; choose from {', '.join(WAYS)}")
    if not config.ways or (config.ways == ("memory",) and not config.scratch):
        raise UserError(
            "ways: name at least one that the model can take; a plug-in memory needs a network built with one"
        )
    method.load(config.edit_method)
    if not config.scratch and config.facts is None:
        raise UserError("facts: say what the model shall know, with --facts and a table of invented facts")
