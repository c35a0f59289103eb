"""One part's way through a knowledge-acquisition run: pretrained, injected and measured, resumable in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.acquisition.injection import Injected
from engramlab.acquisition.measuring import Measurements, measure
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import batches
from engramlab.core.training import checkpoints
from engramlab.core.training.cost import like
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished, refuse_explosion
from engramlab.corpora.passages import all_queries
from engramlab.experiments._run import Planned
from engramlab.experiments.knowledge_acquisition.config import Optimizer, PartConfig
from engramlab.experiments.knowledge_acquisition.setup import Run
from engramlab.experiments.knowledge_acquisition.summary import states
from engramlab.files import records, writing

LOSS_ROWS = 2000  # kept of a stage: an injection moves the loss of single steps, which 400 rows would leave out


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a checkpoint was trained: read from the folder that this project wrote beside the weights."""

    folder: Path
    step: int
    recipe: Recipe


class Part:
    """One part of a run: does what is not done yet.

    Args:
        run: what it shares with the others.
        about: what the part differs in from the others.
    """

    def __init__(self, run: Run, about: PartConfig) -> None:
        self.run, self.about, self.config, self.name = run, about, run.config, about.name
        self.tokenised = run.tokenised(about.model)

    def planned(self) -> Iterator[Planned]:
        """The stages of this part."""
        config, about, run = self.config, self.about, self.run
        make: Callable[[], nn.Module] = partial(like, about.model)
        if models.about(about.model).from_scratch:
            how = {"family": config.family, "context": config.window}
            make = partial(run.fresh_model, about.model, self.tokenised.tokenizer, **how)
            steps = max(map(self._stage_step, config.stage))
            yield Planned(f"{about.model} pretrain", steps, config.pretrain.batch, config.window, make)
        elif config.optimizer.warmup:
            yield Planned(f"{self.name} warm-up", config.optimizer.warmup, about.batch, config.window, make)
        yield Planned(f"{self.name} injection", about.steps, about.batch, config.window, make)

    def results(self) -> list[dict[str, Any]]:
        """The part, from its checkpoint or from the beginning; returns rows about its training."""
        rows = [self._pretrain()] if models.about(self.about.model).from_scratch else []
        folder = self.run.folder / self.name / "injection"
        record = finished(folder) or self._inject(folder)
        names = ("steps", "tokens", "loss", "seconds", "measuring", "optimizer")
        return [*rows, {"dataset": self.name, "stage": "injection", **{name: record[name] for name in names}}]

    def packed(self) -> batches.Packed:
        """The stream from its beginning."""
        rows = self.tokenised.rows
        assert rows is not None
        order = batches.Order(len(rows), random_key(self.config.seed, "stream"))
        return batches.Packed(rows, order, end=self.tokenised.end, length=self.config.window)

    def _stage(
        self,
        folder: Path,
        state: TrainState,
        stream: batches.Stream,
        label: str,
        until: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> Stage:
        return Stage(
            folder,
            state,
            stream,
            label=label,
            until=until,
            rows=LOSS_ROWS,
            minutes=self.config.checkpoint_minutes,
            before=before,
            seed=random_key(self.config.seed, "dropout"),
            console=self.run.console,
        )

    def _state(self, model: nn.Module, recipe: Recipe) -> TrainState:
        return TrainState(model, recipe, accelerator=self.run.accelerator)

    def _pretrain(self) -> dict[str, Any]:
        """Trains a named size on the stream; keeps the model with its moments at every stage asked for."""
        size, folder = self.about.model, self._pretraining
        record = finished(folder)
        if record is None or not all(self._pretrained_state(part).exists() for part in self.config.stage):
            writing.clear(folder / "done.json")
            record = self._pretrained(folder)
        names = ("steps", "tokens", "loss", "seconds")
        return {"dataset": size, "stage": "pretrain", **{name: record[name] for name in names}}

    @property
    def _pretraining(self) -> Path:
        return self.run.folder / self.about.model / "pretrain"

    def _pretrained_state(self, part: float) -> Path:
        return self._pretraining / f"state-{self._stage_step(part)}"

    def _pretrained(self, folder: Path) -> dict[str, Any]:
        config, tokenizer = self.config, self.tokenised.tokenizer
        recipe, at = config.pretrain, {self._stage_step(part) for part in config.stage}
        model = self.run.fresh_model(self.about.model, tokenizer, family=config.family, context=config.window)
        state, stream = self._state(model, recipe), self.packed()

        def save(path: Path) -> None:
            with models.quiet():
                state.bare.save_pretrained(path)  # type: ignore[operator]
                tokenizer.save_pretrained(path)
            checkpoints.save(path / "training", state, stream, {"recipe": dataclasses.asdict(recipe)})

        with self._stage(folder, state, stream, f"{self.about.model} pretrain", until=max(at)) as stage:
            for step in stage:
                place = folder / f"state-{step.number}"
                if step.number in at and not place.exists():
                    records.write_sealed(place, save)
        return stage.record

    def _stage_step(self, part: float) -> int:
        return max(1, round(part * self.config.pretrain.steps))

    def _inject(self, folder: Path) -> dict[str, Any]:
        config, about, asked, plan = self.config, self.about, self.tokenised.asked, self.run.plans[self.name]
        source, remedy = about.model, "take it from a copy"
        if models.about(source).from_scratch:
            source, remedy = str(self._pretrained_state(about.stage)), f"remove {self._pretraining} to train it again"
        if Path(source).expanduser().is_dir():
            records.check_sealed(Path(source).expanduser(), remedy)
        model, _ = models.load(source)
        vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
        models.check_vocabulary(about.model, self.tokenised.tokenizer, vocabulary)
        origin = origin_of(source)
        recipe, stream = self.recipe(origin), self.packed()
        if checkpoints.latest(folder / "checkpoints"):
            state = self._state(model, recipe)
        else:
            state = self.begin(model, recipe, origin, stream)
        measured = Measurements(folder / "measured")
        at = set(states(config, about, plan.groups))
        self._write_queries(folder)
        with self._stage(
            folder, state, Injected(stream, plan), f"{self.name} injection", before=measured.flush
        ) as stage:
            reached = state.step if stage.resumed else -1
            measured.rewind(reached, (step for step in at if step <= reached))
            if not stage.resumed:
                if 0 in at:
                    measured.add(0, measure(model, asked, config.budget))
                if origin is None:  # so that the warm-up need not be done again
                    stage.checkpoint()
            for step in stage:
                refuse_explosion(stage.totals, step)
                if step.number in at:
                    measured.add(step.number, measure(model, asked, config.budget))
            measured.finish()
            stage.record["optimizer"] = self._optimizer_note(origin, recipe)
        return stage.record

    def recipe(self, origin: Origin | None) -> Recipe:
        """The recipe of the run after step 0: the checkpoint's own gone on with, or AdamW with a constant learning rate."""
        config, about = self.config, self.about
        if origin is None:
            rate = about.learning_rate or config.optimizer.learning_rate
            made = recipe_of(config.optimizer, about.batch, about.steps, rate)
        elif about.learning_rate is not None:
            made = at_constant_rate(origin.recipe, about.learning_rate)
        elif about.rate == "constant":
            made = at_constant_rate(origin.recipe, origin.recipe.rate(origin.step))
        else:
            made = continued_recipe(origin.recipe, origin.step)
        return dataclasses.replace(made, steps=about.steps, batch=about.batch, micro_batch=config.micro_batch)

    def begin(self, model: nn.Module, recipe: Recipe, origin: Origin | None, stream: batches.Packed) -> TrainState:
        """The state at step 0: moments restored where the checkpoint has them, else estimated on the stream."""
        config, about = self.config, self.about
        if origin is not None:
            state = self._state(model, recipe)
            # The stream goes on where pretraining left it; where another one is read, it begins at its beginning.
            ours = models.about(about.model).from_scratch
            with torch.random.fork_rng():
                checkpoints.load(origin.folder, state, stream if ours else None)
            state.step = 0
            return state
        warmup = config.optimizer.warmup
        if not warmup:
            return self._state(model, recipe)
        made = recipe_of(config.optimizer, about.batch, warmup, recipe.learning_rate, warmup=warmup)
        state = self._state(model, dataclasses.replace(made, micro_batch=config.micro_batch))
        with self._stage(self.run.folder / self.name / "warmup", state, stream, f"{self.name} warm-up") as stage:
            for _ in stage:
                pass
        state.recipe, state.step = recipe, 0
        return state

    def _optimizer_note(self, origin: Origin | None, recipe: Recipe) -> dict[str, Any]:
        moments = (
            f"restored with the checkpoint (after {origin.step:,} updates)"
            if origin is not None
            else f"estimated in {self.config.optimizer.warmup} steps on the stream before step 0"
        )
        return {
            "moments": moments,
            "first_rate": recipe.rate(0),
            "last_rate": recipe.rate(recipe.steps - 1),
            "beta1": recipe.beta1,
            "beta2": recipe.beta2,
        }

    def _write_queries(self, folder: Path) -> None:
        """What each column of the measurements is, so that they can be read without the model."""
        asked, passages = self.tokenised.asked, self.run.material.records
        owner = {passage: group for group in self.run.groups[self.name] for passage in group.passages}
        _, numbers = all_queries(passages)
        rows = []
        for query, number in zip(asked.queries, asked.numbers.tolist(), strict=True):
            passage = numbers[number]
            group = owner[passage]
            rows.append(
                {
                    "id": query.id,
                    "passage": passages[passage].id,
                    "group": group.schedule,
                    "depth": query.group,
                    "prompt": query.prompt,
                    "target": query.target,
                    "start": group.start,
                    "injections": list(group.steps),
                }
            )
        texts = {passages[passage].id: passages[passage].text for passage in owner}
        about = {"offsets": asked.offsets.tolist(), "queries": rows, "texts": texts}
        records.write_record(folder / "queries.json", about)


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
