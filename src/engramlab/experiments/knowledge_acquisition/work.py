"""The long work of a knowledge-acquisition run: each part pretrained, injected and measured, resumable in between."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.acquisition.dynamics import measured_steps
from engramlab.acquisition.injection import Injected
from engramlab.acquisition.measuring import Measurements, measure
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import batches
from engramlab.core.training import checkpoints
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished, refuse_explosion
from engramlab.corpora.passages import all_queries
from engramlab.experiments.knowledge_acquisition.config import Arm
from engramlab.experiments.knowledge_acquisition.rates import continued, recipe_of
from engramlab.experiments.knowledge_acquisition.setup import Reader, Setup, check_vocabulary
from engramlab.experiments.knowledge_acquisition.summary import summarise
from engramlab.files import writing

LOSS_ROWS = 2000  # kept of a stage: an injection moves the loss of single steps, which 400 rows would leave out


@dataclasses.dataclass(frozen=True)
class Origin:
    """How a checkpoint was trained: read from the folder that this project wrote beside the weights."""

    folder: Path
    step: int
    recipe: Recipe


class Run(Setup):
    """One run: does what is not done yet."""

    def results(self) -> dict[str, Any]:
        self.say(
            f"{self.folder}: {'going on' if self.resumed else 'new run'}; {len(self.arms)} part(s): "
            + ", ".join(
                f"{arm.name} ({self.steps(arm):,} steps of {arm.batch} x {self.config.window} tokens)"
                for arm in self.arms
            )
        )
        for reader in self.readers.values():
            if reader.asked.straddling:
                what = "kept" if self.config.straddling == "keep" else "left out"
                self.say(
                    f"{len(reader.asked.straddling)} queries whose target begins inside a token of the prompt are {what}: "
                    + ", ".join(reader.asked.straddling[:5])
                )
        training = []
        for arm in self.arms:
            training += self._part(arm)
        unique = {(row["dataset"], row["stage"]): row for row in training}
        return summarise(self.folder, self.config, self.arms, list(unique.values()), self.groups)

    def _packed(self, reader: Reader) -> batches.Packed:
        assert reader.rows is not None
        order = batches.Order(len(reader.rows), random_key(self.config.seed, "stream"))
        return batches.Packed(reader.rows, order, end=reader.end, length=self.config.window)

    def _part(self, arm: Arm) -> list[dict[str, Any]]:
        """One part, from its checkpoint or from the beginning; returns rows about its training."""
        rows = [self._pretrain(arm)] if models.about(arm.model).from_scratch else []
        folder = self.folder / arm.name / "injection"
        record = finished(folder)
        if record is None:
            record = self._inject(arm, folder)
        about = {"dataset": arm.name, "stage": "injection"}
        return [*rows, about | {k: record[k] for k in ("steps", "tokens", "loss", "seconds", "measuring", "optimizer")}]

    def _pretrain(self, arm: Arm) -> dict[str, Any]:
        """Trains a named size on the stream; keeps the model with its moments at every stage asked for."""
        config, reader = self.config, self.reader(arm)
        folder = self.folder / arm.model / "pretrain"
        record = finished(folder)
        if record is None:
            recipe = config.pretrain
            at = {self._stage_step(part) for part in config.stage}
            model = self.fresh_model(arm.model, reader.tokenizer, family=config.family, context=config.window)
            state, stream = TrainState(model, recipe, accelerator=self.accelerator), self._packed(reader)

            with self._stage(folder, state, stream, f"{arm.model} pretrain", until=max(at)) as stage:
                for step in stage:
                    place = folder / f"state-{step.number}"
                    if step.number in at and not place.exists():
                        writing.write_folder(place, lambda path: self._save(path, state, stream, reader, recipe))
            record = stage.record
        return {"dataset": arm.model, "stage": "pretrain"} | {
            k: record[k] for k in ("steps", "tokens", "loss", "seconds")
        }

    def _stage_step(self, part: float) -> int:
        return max(1, round(part * self.config.pretrain.steps))

    def _save(self, folder: Path, state: TrainState, stream: batches.Stream, reader: Reader, recipe: Recipe) -> None:
        with models.quiet():
            state.bare.save_pretrained(folder)  # type: ignore[operator]
            reader.tokenizer.save_pretrained(folder)
        checkpoints.save(folder / "training", state, stream, {"recipe": dataclasses.asdict(recipe)})

    def _inject(self, arm: Arm, folder: Path) -> dict[str, Any]:
        config, reader, plan = self.config, self.reader(arm), self.plans[arm.name]
        source = arm.model
        if models.about(source).from_scratch:
            source = str(self.folder / arm.model / "pretrain" / f"state-{self._stage_step(arm.stage)}")
        model, _ = models.load(source)
        check_vocabulary(arm.model, int(model.get_input_embeddings().weight.shape[0]), reader.tokenizer)  # type: ignore[operator]
        origin = origin_of(source)
        recipe = self._recipe(arm, origin)
        packed = self._packed(reader)
        stream = Injected(packed, plan)
        if checkpoints.latest(folder / "checkpoints"):
            state = TrainState(model, recipe, accelerator=self.accelerator)
        else:
            state = self._begin(arm, model, recipe, origin, packed)
        measured = Measurements(folder / "measured")
        starts = sorted({step for group in plan.groups for step in group.steps})
        at = set(measured_steps(config.measure, recipe.steps, starts, config.reading.window).tolist())
        self._write_queries(folder, reader, arm)

        with self._stage(folder, state, stream, f"{arm.name} injection") as stage:
            measured.rewind(state.step if stage.resumed else -1)
            if not stage.resumed:
                if 0 in at:
                    measured.add(0, measure(model, reader.asked, config.budget))
                if origin is None:  # so that the warm-up need not be done again
                    measured.flush()
                    stage.checkpoint()
            for step in stage:
                refuse_explosion(stage.totals, step)
                if step.number in at:
                    measured.add(step.number, measure(model, reader.asked, config.budget))
                if stage.due:
                    measured.flush()
            measured.finish()
            stage.record["optimizer"] = self._optimizer_note(arm, origin, recipe)
        return stage.record

    def _stage(
        self, folder: Path, state: TrainState, stream: batches.Stream, label: str, until: int | None = None
    ) -> Stage:
        return Stage(
            folder,
            state,
            stream,
            label=label,
            until=until,
            rows=LOSS_ROWS,
            minutes=self.config.checkpoint_minutes,
            seed=random_key(self.config.seed, "dropout"),
            console=self.console,
        )

    def _recipe(self, arm: Arm, origin: Origin | None) -> Recipe:
        """The recipe of the run after step 0."""
        config, steps = self.config, self.steps(arm)
        rate = arm.learning_rate
        if origin is not None and rate is None:
            return continued(
                origin.recipe,
                origin.step,
                steps=steps,
                batch=arm.batch,
                hold=arm.rate == "constant",
                micro_batch=config.micro_batch,
            )
        if origin is not None and rate is not None:
            held = dataclasses.replace(origin.recipe, learning_rate=rate, schedule="constant", warmup=0)
            return dataclasses.replace(held, steps=steps, batch=arm.batch, micro_batch=config.micro_batch)
        made = recipe_of(config.optimizer, arm.batch, steps, rate or config.optimizer.learning_rate)
        return dataclasses.replace(made, micro_batch=config.micro_batch)

    def _begin(
        self, arm: Arm, model: nn.Module, recipe: Recipe, origin: Origin | None, packed: batches.Packed
    ) -> TrainState:
        """The state at step 0: moments restored where the checkpoint has them, else estimated on the stream."""
        config = self.config
        if origin is not None:
            state, place = TrainState(model, recipe, accelerator=self.accelerator), Anywhere()
            with torch.random.fork_rng():
                checkpoints.load(origin.folder, state, place)
            state.step = 0
            if models.about(arm.model).from_scratch:  # the stream goes on where pretraining left it
                packed.restore(place.place)
            return state
        warmup = config.optimizer.warmup
        if not warmup:
            return TrainState(model, recipe, accelerator=self.accelerator)
        made = recipe_of(config.optimizer, arm.batch, warmup, recipe.learning_rate, warmup=warmup)
        made = dataclasses.replace(made, micro_batch=config.micro_batch)
        state = TrainState(model, made, accelerator=self.accelerator)
        with self._stage(self.folder / arm.name / "warmup", state, packed, f"{arm.name} warm-up") as stage:
            for _ in stage:
                pass
        state.recipe, state.step = recipe, 0
        return state

    def _optimizer_note(self, arm: Arm, origin: Origin | None, recipe: Recipe) -> dict[str, Any]:
        moments = (
            f"restored with the checkpoint (after {origin.step:,} updates)"
            if origin is not None
            else f"estimated in {self.config.optimizer.warmup} steps on the stream before step 0"
        )
        rates = [recipe.rate(0), recipe.rate(recipe.steps - 1)]
        return {
            "moments": moments,
            "first_rate": rates[0],
            "last_rate": rates[1],
            "beta1": recipe.beta1,
            "beta2": recipe.beta2,
        }

    def _write_queries(self, folder: Path, reader: Reader, arm: Arm) -> None:
        """What each column of the measurements is, so that they can be read without the model."""
        owner = {passage: group for group in self.groups[arm.name] for passage in group.passages}
        _, numbers = all_queries(self.material.records)
        rows = []
        for query, number in zip(reader.asked.queries, reader.asked.numbers.tolist(), strict=True):
            passage = numbers[number]
            group = owner[passage]
            rows.append(
                {
                    "id": query.id,
                    "passage": self.material.records[passage].id,
                    "group": group.schedule,
                    "depth": query.group,
                    "prompt": query.prompt,
                    "target": query.target,
                    "start": group.start,
                    "injections": list(group.steps),
                }
            )
        writing.write_json(folder / "queries.json", {"offsets": reader.asked.offsets.tolist(), "queries": rows})


class Anywhere:
    """Stands for the stream of a checkpoint whose place in its stream does not matter, or is wanted for itself."""

    def __init__(self) -> None:
        self.place: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        return self.place

    def restore(self, state: dict[str, Any]) -> None:
        self.place = state


def origin_of(source: str) -> Origin | None:
    """How the checkpoint in a folder was trained, where this project trained it; None for any other."""
    found = checkpoints.latest(Path(source).expanduser() / "training")
    if found is None:
        return None
    record = json.loads((found / "state.json").read_text())
    return Origin(found, int(record["step"]), Recipe(**record["extra"]["recipe"]))
