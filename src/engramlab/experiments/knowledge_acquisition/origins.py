"""Where training goes on from: what a checkpoint says of how it was trained, and the recipes that follow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from engramlab.acquisition.curves import CurveOptions
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Recipe
from engramlab.experiments.knowledge_acquisition.config import Config, Optimizer, PartConfig


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a checkpoint was trained: read from the folder that this project wrote beside the weights."""

    folder: Path
    step: int
    recipe: Recipe


def origin_of(source: str) -> Origin | None:
    """How the checkpoint in a folder was trained, where this project trained it; None for any other.

    Raises:
        UserError: a file of it is not what was written.
    """
    found = checkpoints.latest(Path(source).expanduser() / "training")
    if found is None:
        return None
    record = checkpoints.read_state(found, f"take it from a copy, or remove {source} to train it again")
    return Origin(found, int(record["step"]), Recipe(**record["extra"]["recipe"]))


def recipe_of(optimizer: Optimizer, batch: int, steps: int, learning_rate: float, warmup: int = 0) -> Recipe:
    """A constant learning rate, risen to in ``warmup`` steps."""
    settings = dataclasses.asdict(optimizer) | {"learning_rate": learning_rate, "warmup": warmup}
    return Recipe(steps=steps, batch=batch, schedule="constant", **settings)


def continued_recipe(origin: Recipe, offset: int) -> Recipe:
    """``origin`` with its learning rates from state ``offset`` on, however many steps it goes on for."""
    laid_out = origin.schedule_steps or origin.steps
    return dataclasses.replace(origin, schedule_start=origin.schedule_start + offset, schedule_steps=laid_out)


def at_constant_rate(origin: Recipe, learning_rate: float) -> Recipe:
    """``origin`` with a constant learning rate."""
    return dataclasses.replace(origin, learning_rate=learning_rate, schedule="constant", warmup=0)


def stage_step(config: Config, stage: float) -> int:
    """Updates of pretraining after which a part of it ends."""
    return max(1, round(stage * config.pretrain.steps))


def before(config: Config, part: PartConfig) -> tuple[float, float | None]:
    """The momentum (β1, 0 for plain descent) that a part is trained with, and the learning rate where it begins, None of a
    checkpoint that does not say."""
    if models.about(part.model).from_scratch:
        recipe, step = config.pretrain, stage_step(config, part.stage)
    elif (origin := origin_of(part.model)) is not None:
        recipe, step = origin.recipe, origin.step
    else:
        return config.optimizer.beta1, None
    return recipe.beta1 if recipe.optimizer == "adamw" else 0.0, recipe.rate(step)


def mean_rate(config: Config) -> float:
    """The mean of the learning rates that the checkpoints of a run have where injection begins.

    Raises:
        UserError: a checkpoint does not say what rate it had: what we take in its place is no part of such a mean.
    """
    rates = []
    for part in {(part.model, part.stage): part for part in config.parts()}.values():
        _, rate = before(config, part)
        if rate is None:
            raise UserError(
                f"rate: mean is of the rates that checkpoints had, and {part.model} does not say its own; give --learning-rate"
            )
        rates.append(rate)
    return sum(rates) / len(rates)


def refuse_alike(config: Config) -> None:
    """Refuses values to compare that mean the same for a checkpoint that does not say how it was trained.

    Raises:
        UserError: several `rate` (it has no schedule to continue, so that all hold `--optimizer.learning-rate`), or `restored`
            moments (it has none) beside what is done in their place: `warmed`, or `fresh` without steps of warm-up.
    """
    instead = "warmed" if config.optimizer.warmup else "fresh"
    for model in config.model:
        if models.about(model).from_scratch or origin_of(model) is not None:
            continue
        if len(config.rate) > 1:
            raise UserError(
                f"rate: {' and '.join(config.rate)} are the same for {model}, which does not say its own; give one of them, or "
                "--learning-rate with the rates to compare"
            )
        if {"restored", instead} <= set(config.moments):
            raise UserError(
                f"moments: restored and {instead} are the same for {model}, which has no moments to restore; give one of them"
            )


def reading_of(config: Config, part: PartConfig) -> CurveOptions:
    """How a part's curves are read: without momentum t_w is 1 (arXiv 2406.11813, footnote 3), for a passage moves the weights
    in its own update alone."""
    momentum, _ = before(config, part)
    return config.reading if momentum > 0 else dataclasses.replace(config.reading, window=1)
