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
from engramlab.acquisition.measuring import Measurements, observe
from engramlab.acquisition.schedule import Group
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import batches
from engramlab.core.training import checkpoints
from engramlab.core.training.cost import like
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished, refuse_explosion
from engramlab.corpora.passages import all_queries
from engramlab.experiments._run import Planned
from engramlab.experiments.knowledge_acquisition.config import PartConfig
from engramlab.experiments.knowledge_acquisition.origins import (
    Origin,
    at_constant_rate,
    continued_recipe,
    mean_rate,
    origin_of,
    recipe_of,
    stage_step,
)
from engramlab.experiments.knowledge_acquisition.setup import Run
from engramlab.experiments.knowledge_acquisition.summary import asked_at
from engramlab.files import records, writing

LOSS_ROWS = 2000  # kept of a stage: an injection moves the loss of single steps, which 400 rows would leave out


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
        if self.warms(models.about(about.model).from_scratch):
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
            models.save(state.bare, tokenizer, path)
            checkpoints.save(path / "training", state, stream, {"recipe": dataclasses.asdict(recipe)})

        with self._stage(folder, state, stream, f"{self.about.model} pretrain", until=max(at)) as stage:
            for step in stage:
                place = folder / f"state-{step.number}"
                if step.number in at and not place.exists():
                    records.write_sealed(place, save)
        return stage.record

    def _stage_step(self, part: float) -> int:
        return stage_step(self.config, part)

    def warms(self, known: bool) -> bool:
        """Are AdamW's moments estimated on the stream first? ``known``: the checkpoint brings some."""
        wanted = self.about.moments == "warmed" or (self.about.moments == "restored" and not known)
        return wanted and self.config.optimizer.warmup > 0

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
        measured, written = Measurements(folder / "measured"), Measurements(folder / "written")
        self._write_queries(folder)
        owner = [self._owner[number] for number in self._numbers]
        at = asked_at(config.measure, about.steps, plan.groups, self.run.readings[self.name].window, owner)

        def ask(number: int) -> None:
            if number in at:
                logprobs, greedily = observe(model, asked, config.budget, at[number])
                measured.add(number, logprobs)
                if stage.totals["written"]:
                    written.add(number, greedily)

        def flush() -> None:
            measured.flush()
            written.flush()

        with self._stage(folder, state, Injected(stream, plan), f"{self.name} injection", before=flush) as stage:
            reached = state.step if stage.resumed else -1
            there = [step for step in at if step <= reached]
            measured.rewind(reached, there)
            stage.totals.setdefault("written", not stage.resumed)  # not of a run begun before it was measured
            written.rewind(reached, there if stage.totals["written"] else ())
            if not stage.resumed:
                ask(0)
                if self.warms(origin is not None):  # so that the warm-up need not be done again
                    stage.checkpoint()
            for step in stage:
                refuse_explosion(stage.totals, step)
                ask(step.number)
            measured.finish()
            written.finish()
            stage.record["written"] = stage.totals["written"]
            stage.record["optimizer"] = self._optimizer_note(origin, recipe)
            stage.record["optimizer"]["parameters"] = sum(p.numel() for p in model.parameters())
        return stage.record

    def recipe(self, origin: Origin | None) -> Recipe:
        """The recipe of the run after step 0: the checkpoint's own gone on with, or AdamW with a constant learning rate."""
        config, about = self.config, self.about
        if origin is None:
            rate = about.learning_rate or config.optimizer.learning_rate
            made = recipe_of(config.optimizer, about.batch, about.steps, rate)
        elif about.learning_rate is not None:
            made = at_constant_rate(origin.recipe, about.learning_rate)
        elif about.rate == "mean":
            made = at_constant_rate(origin.recipe, mean_rate(config))
        elif about.rate == "constant":
            made = at_constant_rate(origin.recipe, origin.recipe.rate(origin.step))
        else:
            made = continued_recipe(origin.recipe, origin.step)
        return dataclasses.replace(made, steps=about.steps, batch=about.batch, micro_batch=config.micro_batch)

    def begin(self, model: nn.Module, recipe: Recipe, origin: Origin | None, stream: batches.Packed) -> TrainState:
        """The state at step 0: moments restored with the checkpoint, estimated on the stream, or none yet."""
        about, warmup = self.about, self.config.optimizer.warmup
        state = self._state(model, recipe)
        if origin is not None:
            # The stream goes on where pretraining left it; where another one is read, it begins at its beginning.
            ours = models.about(about.model).from_scratch
            with torch.random.fork_rng():
                checkpoints.load(origin.folder, state, stream if ours else None)
            state.step = 0
            if about.moments != "restored":
                state.optimizer.state.clear()
        if not self.warms(origin is not None):
            return state
        held = at_constant_rate(recipe, recipe.rate(0))
        state.recipe = dataclasses.replace(held, steps=warmup, warmup=warmup, schedule_start=0, schedule_steps=None)
        with self._stage(self.run.folder / self.name / "warmup", state, stream, f"{self.name} warm-up") as stage:
            for _ in stage:
                pass
        state.recipe, state.step = recipe, 0
        return state

    def _optimizer_note(self, origin: Origin | None, recipe: Recipe) -> dict[str, Any]:
        moments = "begun anew at step 0"
        if self.warms(origin is not None):
            moments = f"estimated in {self.config.optimizer.warmup} steps on the stream before step 0"
        elif origin is not None and self.about.moments == "restored":
            moments = f"restored with the checkpoint (after {origin.step:,} updates)"
        return {
            "moments": moments,
            "first_rate": recipe.rate(0),
            "last_rate": recipe.rate(recipe.steps - 1),
            "beta1": recipe.beta1,
            "beta2": recipe.beta2,
        }

    @property
    def _owner(self) -> dict[int, Group]:
        """The group of each passage."""
        return {passage: group for group in self.run.groups[self.name] for passage in group.passages}

    @property
    def _numbers(self) -> list[int]:
        """The passage of each query."""
        _, numbers = all_queries(self.run.material.records)
        return [numbers[number] for number in self.tokenised.asked.numbers.tolist()]

    def _write_queries(self, folder: Path) -> None:
        """What each column of the measurements is, so that they can be read without the model."""
        asked, passages, owner = self.tokenised.asked, self.run.material.records, self._owner
        rows = []
        for query, passage in zip(asked.queries, self._numbers, strict=True):
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
