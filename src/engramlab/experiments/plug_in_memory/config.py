"""Options and presets of the plug-in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, check_rules
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora import datasets
from engramlab.corpora.people import Pools

Source: Any = datasets.options()


@dataclass(frozen=True)
class Model:
    """The network, always from scratch: a memory is trained along with it."""

    name: str = "tiny"
    """A size (LAYERSxWIDTH, or a name: see `engramlab models`)."""
    context: int = 256
    """Longest row in tokens."""
    dropout: float = 0.0
    """Dropout while it trains."""
    objective: Literal["masked", "causal"] = "masked"
    """`masked`: names hidden words, a question has its answer hidden (the paper's kind). `causal` (ours): writes the answer,
    and decides once, where the question ends, what it reads."""
    masked_words: float = 0.15
    """Share of an entry's words chosen in masked training."""


@dataclass(frozen=True)
class Memory:
    """The memory."""

    top: int = 5
    """Documents that a row reads."""
    layers: tuple[int, ...] = ()
    """Layers that look up; none means one, the last but one."""
    keys: int | None = None
    """Width of keys and queries; none means half the network's, 128 at most."""
    refresh: int = 200
    """Steps after which all keys are encoded anew."""
    beta: float = 1.0
    """What the weight of a document's nearness is learnt from (the paper's 1). Queries and keys learn through it alone;
    their gradients are proportional to it."""
    own: Literal["out", "in"] = "out"
    """May an entry that is read find itself in the memory? `out`: no, or it would be copied."""


@dataclass(frozen=True)
class Config(Source):
    """Everything that decides the numbers of a run."""

    READS = ("tokenizer",)
    BASIC = (
        ("what is read and asked", ("facts", "people", "variant", "unseen", "exchanged")),
        ("training", ("model.name", "model.objective", "memory.top", "memory.refresh", "recipe.steps", "bare")),
        ("numbers", ("seed", "precision")),
    )

    variant: str = "multi3+permute"
    """How entries are written. A subject's first entry is its document; the others are only read."""
    unseen: float = 0.2
    """Share of the subjects of whom nothing is read in training; their documents are added afterwards."""
    exchanged: int = 20
    """Subjects whose document is exchanged for one with another value."""
    tokenizer: str = "compact"
    """`compact`: a BPE trained on the corpus; or a tokenizer's folder or hub id."""
    vocabulary: int = 4096
    """Largest size of a compact tokenizer."""
    model: Model = field(default_factory=Model)
    """The network."""
    memory: Memory = field(default_factory=Memory)
    """Its memory."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training, with memory and without."""
    asked: float = 0.5
    """Share of rows that are questions (about one half of those read about); the others are entries."""
    bare: bool = True
    """Train the same network without a memory on the same rows, too."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of training."""
    evaluations: int = 5
    """How often questions are asked along training."""
    evaluated: int = 40
    """Subjects of each group in those; at the end all are asked."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""


_FEW = Pools(
    first_names=60,
    middle_names=60,
    last_names=100,
    birth_years=20,
    birth_cities=20,
    universities=20,
    majors=20,
    companies=20,
)
PRESETS = {
    # Of 200 people the answers are learnt by heart before documents are found; so many have too many answers for that.
    "tiny": Config(
        people=2_000,
        variant="multi3+permute+fullname",
        first_templates=3,
        pools=_FEW,
        model=Model("3x128", context=200),
        memory=Memory(beta=8.0, refresh=50),
        recipe=Recipe(steps=4000, batch=32, learning_rate=1e-3, weight_decay=0.03, beta2=0.98, warmup=100),
    ),
    "small": Config(
        people=3_000,
        exchanged=100,
        model=Model("small"),
        memory=Memory(beta=8.0, refresh=50),
        recipe=Recipe(steps=10_000, batch=64, learning_rate=1e-3, weight_decay=0.03, beta2=0.98, warmup=500),
    ),
    # BERT-base's size and the paper's share of warm-up; its text was Wikipedia, its optimizer LAMB, its steps far larger.
    "paper": Config(
        people=100_000,
        exchanged=1_000,
        vocabulary=16_384,
        model=Model("gpt2-small", dropout=0.1),
        recipe=Recipe(steps=80_000, batch=512, learning_rate=3e-4, weight_decay=0.01, warmup=22_744, schedule="linear"),
        precision="bf16",
    ),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    models.check(config.model.name, "pluglm")
    if not models.is_size(config.model.name):
        raise UserError(
            f"model.name: {config.model.name} is no size; a memory is trained with its network, from scratch"
        )
    between(config, "unseen")
    between(config, "asked")
    between(config.model, "masked_words", "model.")
    at_least(config, 1, "exchanged", "evaluations", "evaluated")
    depth, memory = models.shape(config.model.name).layers, config.memory
    check_rules(
        memory,
        [
            ("top", memory.top >= 1, "at least 1"),
            ("refresh", memory.refresh >= 1, "at least 1"),
            ("beta", 0 < memory.beta < math.inf, "above 0"),
            ("keys", memory.keys is None or memory.keys >= 1, "at least 1"),
            ("layers", all(0 <= layer < depth for layer in memory.layers), f"between 0 and {depth - 1}"),
        ],
        "memory.",
    )
    rule = "at least 2, for the queries of a step are normed together"
    check_rules(config.recipe, [("batch", config.recipe.batch >= 2, rule)], "recipe.")
