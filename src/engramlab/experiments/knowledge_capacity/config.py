"""Options and presets of knowledge capacity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, check_rules, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.people import Pools
from engramlab.corpora.variants import MAX_ENTRIES


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    BASIC = (
        ("what is read, by what", ("sizes", "people", "exposures", "texts")),
        ("training", ("recipe.batch", "recipe.learning_rate", "layout", "context")),
        ("numbers", ("seed", "precision")),
    )

    sizes: tuple[str, ...] = ("1x8", "1x16", "1x32")
    """Sizes of the models: LAYERSxWIDTH, or a name (see `engramlab models`)."""
    people: tuple[int, ...] = (200, 400, 800, 1600)
    """Numbers of bioS people; a model of every size reads about every number."""
    exposures: int = 100
    """How often each person is read about; training lasts as long as that takes."""
    texts: Literal["anew", "once"] = "anew"
    """`anew`: every exposure is written anew, with templates of its own; `once`: one entry a person, repeated."""
    permute: bool = False
    """Shuffle the sentences of every exposure (with `anew`)."""
    seed: int = 0
    """Of the people, the entries, their order and the initial weights."""

    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    first_templates: int | None = None
    """Only the first so many templates of each attribute; None for all."""
    vocabulary: int = 16_384
    """Largest size of the tokenizer, which is made for the texts; where every word fits, it has the words and nothing else."""
    family: str = "gpt-neox"
    """Architecture: gpt-neox (GPT-2 with rotary embedding), llama, ... (see `engramlab models`)."""
    context: int = 512
    """Tokens of a row in the packed layout, and the longest text a model can read."""
    layout: Literal["packed", "entries"] = "packed"
    """Rows of training texts: windows cut from the shuffled entries laid end to end, or one entry a row."""
    recipe: Recipe = field(default_factory=Recipe)
    """How to train; its `steps` follow from the exposures and are not used."""
    precision: Literal["no", "bf16"] = "no"
    """Mixed precision of the forward and backward passes."""

    measured_people: int = 20_000
    """Losses are means over so many people at most."""
    evaluations: int = 5
    """How often the bits are measured along training."""
    evaluated_people: int = 100
    """People in those measurements."""
    checkpoint_minutes: float = 2.0
    """Wall-clock minutes between checkpoints."""


TINY = Config(
    pools=Pools(20, 20, 20, 50, 30, 30, 30, 30),
    first_templates=1,
    context=96,
    layout="entries",
    recipe=Recipe(batch=24, learning_rate=1e-2, weight_decay=0.01, beta2=0.98, warmup=50),
)
PAPER = Config(
    sizes=("2x128", "2x256", "4x256", "4x512", "8x512", "12x768"),
    people=(10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000),
    exposures=1000,
    permute=True,
    recipe=Recipe(batch=192, learning_rate=1e-3, weight_decay=0.01, eps=1e-6, warmup=1000),
    precision="bf16",
    evaluations=20,
    evaluated_people=2_000,
    checkpoint_minutes=10,
)
PRESETS = {"tiny": TINY, "paper": PAPER}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    for name in ("sizes", "people"):
        values = getattr(config, name)
        if not values:
            raise UserError(f"{name}: name at least one")
        once(name, values)
    models.family(config.family)
    for size in config.sizes:
        models.shape(size)
    at_least(config, 1, "exposures", "measured_people", "evaluated_people")
    at_least(config, 0, "evaluations")
    most = ("exposures", config.exposures <= MAX_ENTRIES, f"at most {MAX_ENTRIES}")
    check_rules(config, [most, ("people", min(config.people) >= 1, "at least 1 each")])
    if config.permute and config.texts == "once":
        raise UserError("permute goes with texts `anew`: an entry that is repeated keeps its order")
