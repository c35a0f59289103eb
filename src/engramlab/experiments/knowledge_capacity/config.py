"""Options and presets of knowledge capacity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, check_rules, once
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.corpora.biod import Shape
from engramlab.corpora.people import Pools
from engramlab.corpora.variants import MAX_ENTRIES
from engramlab.experiments.knowledge_capacity import networks, recipes

SPARE = 64  # texts about each person from which those are replaced that read as the one that is measured
Mixture = Literal["alone", "junk", "junk+domain", "repeated", "repeated+domain"]


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    READS = ("tokenizer", "written")
    BASIC = (
        ("what is read, by what", ("sizes", "networks", "people", "exposures", "corpus", "mixtures")),
        ("training", ("recipe.batch", "recipe.learning_rate", "context")),
        ("numbers", ("seed", "quantised", "precision")),
    )

    sizes: tuple[str, ...] = ("1x8", "1x16", "1x32")
    """Sizes of the models: LAYERSxWIDTH, or a name (see `engramlab models`)."""
    networks: tuple[str, ...] = ()
    """What a model of every size is made as: FAMILY[+untied][+gated|+plain][+mlp1/4|+nomlp], such as gpt-neox, llama+untied,
    gpt-neox+nomlp; none for `family` as it is."""
    people: tuple[int, ...] = (200, 400, 800, 1600)
    """Numbers of people; a model of every size and network reads about every number."""
    exposures: int = 100
    """How often each person is read about; training lasts as long as that takes."""
    corpus: Literal["bios", "biod", "bior"] = "bios"
    """`bios`: biographies; `biod`: bioD(N, K, C, D, L, T), strings of tokens whose diversity is set by `biod`; `bior`: the
    texts of `written`."""
    written: Path | None = None
    """A folder that `engramlab corpus bior` wrote, with the same `pools`."""
    texts: Literal["anew", "once"] = "anew"
    """`anew`: every exposure is written anew, with templates of its own (bioS); `once`: one entry a person, repeated
    (bioS^simple)."""
    permute: bool = False
    """Shuffle the sentences of every exposure (with `anew`)."""
    mixtures: tuple[Mixture, ...] = ("alone",)
    """What is read beside the people: `junk`, people whom nothing else is read about; `repeated`, the same few people again
    and again; with `+domain` a token stands before every entry that is no junk."""
    junk_share: float = 7 / 8
    """Share of the rows that are junk."""
    junk_people: int = 1_000_000
    """Most people whom junk is about; each is read about once, while they and their names last."""
    repeated_people: int = 50
    """People whom repeated junk is about."""
    seed: int = 0
    """Of the people, the entries, their order and the initial weights."""

    pools: Pools = field(default_factory=Pools)
    """How much of each pool of names and values is used."""
    biod: Shape = field(default_factory=Shape)
    """K, C, D, L, T and the names of bioD."""
    first_templates: int | None = None
    """Only the first so many templates of each attribute; None for all."""
    tokenizer: str = "compact"
    """`compact`: one made for the texts; or a tokenizer's folder or hub id."""
    vocabulary: int = 16_384
    """Largest size of a compact tokenizer; where every word fits, it has the words and nothing else."""
    family: str = "gpt-neox"
    """Architecture where `networks` has none: gpt-neox (GPT-2 with rotary embedding), llama, ... (see `engramlab models`)."""
    context: int = 512
    """Tokens of a row in the packed layout, and the longest text a model can read."""
    layout: Literal["packed", "entries"] = "packed"
    """Rows of training texts: windows cut from the shuffled entries laid end to end, or one entry a row."""
    recipe: Recipe = field(default_factory=lambda: Recipe(eps=1e-8))
    """How to train; its `steps` follow from the exposures and are not used."""
    recipes: Literal["given", "paper"] = "given"
    """`paper`: weight decay, learning rate and batch follow from the number of people and the exposures, as in the paper."""
    learning_rates: tuple[float, ...] = ()
    """Train with each of these rates; none for the recipe's alone."""
    quantised: tuple[Literal[2, 3, 4, 5, 6, 8], ...] = ()
    """Measure again with matrices rounded to so many bits after training."""
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

    def recipe_of(self, people: int, rate: float | None) -> Recipe:
        """How a model is trained on so many people, but for its steps."""
        recipe = self.recipe if self.recipes == "given" else recipes.of_people(self.recipe, people, self.exposures)
        return recipe if rate is None else replace(recipe, learning_rate=rate)


_POOLS = Pools(20, 20, 20, 50, 30, 30, 30, 30)
TINY = Config(
    sizes=("2x8", "2x16"),
    people=(250, 500, 1000),
    pools=_POOLS,
    first_templates=2,
    context=96,
    layout="entries",
    recipe=Recipe(batch=24, learning_rate=1e-2, weight_decay=0.01, beta2=0.98, eps=1e-8, warmup=50),
)
_ONE = replace(TINY, sizes=("2x16",), people=(500,))
PRESETS = {
    "tiny": TINY,
    "tiny-permuted": replace(_ONE, people=(250, 500, 1000), permute=True, recipe=replace(TINY.recipe, batch=12)),
    "tiny-simple": replace(_ONE, people=(250, 500, 1000), texts="once"),
    "tiny-1000": replace(_ONE, people=(100, 200), exposures=1000, quantised=(8, 4)),
    "tiny-networks": replace(
        _ONE,
        networks=(
            *("gpt-neox", "gpt-neox+untied", "gpt-neox+gated", "gpt-neox+mlp1/4", "gpt-neox+nomlp"),
            *("llama+untied", "llama+untied+plain"),
        ),
    ),
    "tiny-quantised": replace(_ONE, people=(250, 500), quantised=(8, 4)),
    "tiny-depth": replace(_ONE, sizes=("1x24", "2x16", "4x8")),
    "tiny-junk": replace(
        _ONE,
        people=(200,),
        pools=replace(_POOLS, first_names=60, middle_names=60, last_names=60),
        mixtures=("alone", "junk", "junk+domain", "repeated", "repeated+domain"),
    ),
    "tiny-biod": replace(
        _ONE, people=(100, 200, 400), exposures=400, corpus="biod", first_templates=None, pools=Pools()
    ),
    "paper": Config(
        sizes=("2x128", "2x256", "4x256", "4x512", "8x512", "12x768"),
        people=(10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000),
        exposures=1000,
        permute=True,
        recipe=Recipe(eps=1e-8, warmup=1000),
        recipes="paper",
        precision="bf16",
        evaluations=20,
        evaluated_people=2_000,
        checkpoint_minutes=10,
    ),
}


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    for name in ("sizes", "people", "mixtures"):
        if not getattr(config, name):
            raise UserError(f"{name}: name at least one")
    for name in ("sizes", "people", "mixtures", "networks", "learning_rates", "quantised"):
        once(name, getattr(config, name))
    once("learning_rates", [f"{rate:g}" for rate in config.learning_rates])  # as the names of models have them
    for network in config.networks or (config.family,):
        networks.parse(network)
    for size in config.sizes:
        models.shape(size)
    at_least(config, 1, "exposures", "measured_people", "evaluated_people", "junk_people", "repeated_people")
    at_least(config, 0, "evaluations")
    between(config, "junk_share")
    texts = MAX_ENTRIES - 1 - SPARE  # one is measured
    most = ("exposures", config.exposures <= texts, f"at most {texts}")
    check_rules(
        config,
        [
            most,
            ("people", min(config.people) >= 1, "at least 1 each"),
            ("learning_rates", all(rate > 0 for rate in config.learning_rates), "above 0 each"),
        ],
    )
    if config.permute and config.texts == "once":
        raise UserError("permute goes with texts `anew`: an entry that is repeated keeps its order")
    if config.corpus != "bios" and config.mixtures != ("alone",):
        raise UserError(f"mixtures: junk is read beside bioS, not beside {config.corpus}; leave them out")
    if (config.corpus == "bior") != (config.written is not None):
        raise UserError(
            "written: give --corpus bior and --written, a folder that `engramlab corpus bior` wrote, together"
        )
    _check_parts(config)


#: Options that nothing is made of, by corpus.
_IDLE = {
    "bios": ("biod",),
    "biod": ("texts", "permute", "first_templates", "tokenizer", "vocabulary", "pools"),
    "bior": ("texts", "permute", "first_templates", "biod"),
}


def _check_parts(config: Config) -> None:
    """Raises UserError for an option that plays no part beside the others."""
    idle = [(name, f"with --corpus {config.corpus}") for name in _IDLE[config.corpus]]
    junk, repeated = (any(mixture.startswith(kind) for mixture in config.mixtures) for kind in ("junk", "repeated"))
    idle += [("junk_share", "without --mixtures")] * (not junk and not repeated)
    idle += [("junk_people", "without --mixtures junk")] * (not junk)
    idle += [("repeated_people", "without --mixtures repeated")] * (not repeated)
    idle += [("family", "with --networks, each of which names its own")] * bool(config.networks)
    for name, where in idle:
        value, usual = getattr(config, name), getattr(Config(), name)
        if value != usual:
            at = "out, with all its options" if is_dataclass(usual) else f"at {usual}"
            other = "; --preset tiny-biod does" * (config.corpus == "biod" and name in _IDLE["biod"])
            raise UserError(f"{name}: plays no part {where}; leave it {at}{other}")
    _check_recipe(config)


def _check_recipe(config: Config) -> None:
    """Raises UserError for an option of the recipe that others are taken in place of, unless it is as a preset has it."""
    idle = dict.fromkeys(
        ("batch", "learning_rate", "weight_decay") if config.recipes == "paper" else (), "--recipes paper"
    )
    idle |= {"learning_rate": "--learning-rates"} if config.learning_rates else {}

    def others(recipe: Recipe) -> dict[str, Any]:
        return {name: value for name, value in asdict(recipe).items() if name not in idle}

    known = [one.recipe for one in (Config(), *PRESETS.values())]
    # Which preset was begun from is not known here: those that have the other options, else any.
    known = [recipe for recipe in known if others(recipe) == others(config.recipe)] or known
    if any(all(getattr(recipe, name) == getattr(config.recipe, name) for name in idle) for recipe in known):
        return
    name = next((n for n in idle if getattr(config.recipe, n) not in {getattr(r, n) for r in known}), next(iter(idle)))
    raise UserError(
        f"recipe.{name}: plays no part with {idle[name]}, which decides it; leave it out (at {getattr(known[0], name)})"
    )
