"""Trains a model of every kind on every number of people, and measures its losses on names and values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.random_access import key as random_key
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.training.loop import TrainState
from engramlab.core.training.stage import Stage, evaluation_steps, finished
from engramlab.experiments import _run
from engramlab.experiments._run import Planned
from engramlab.experiments.knowledge_capacity import networks
from engramlab.experiments.knowledge_capacity.config import Config
from engramlab.experiments.knowledge_capacity.reading import Biographies, Chunked, Reading
from engramlab.experiments.knowledge_capacity.written import Written
from engramlab.files.writing import name_of


@dataclass(frozen=True)
class Cell:
    """One model: its network, size, people, what is read beside them, and a learning rate if not the recipe's."""

    network: str
    size: str
    people: int
    mixture: str = "alone"
    rate: float | None = None


class Run(_run.Run):
    """What the models of one run share: what they read."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("knowledge-capacity", config, out, preset=preset, console=console)

        def tokenizer(texts: Any) -> Any:
            return self.scratch_tokenizer(texts, config.vocabulary, chosen=config.tokenizer, closed=True)

        self.reading: Reading
        if config.corpus == "biod":
            self.reading = Chunked(config)
        else:
            self.reading = (Written if config.corpus == "bior" else Biographies)(config, tokenizer)
        self.reading.check_context()

    def cells(self) -> Iterator[Cell]:
        """Every model there is to be."""
        config = self.config
        for found in product(
            config.networks or (config.family,),
            config.sizes,
            config.people,
            config.mixtures,
            config.learning_rates or (None,),
        ):
            yield Cell(*found)

    def arm(self, cell: Cell) -> str:
        """What sets a model apart from others of its size and people."""
        config = self.config
        several = [
            cell.network if len(config.networks) > 1 or cell.network != config.family else "",
            cell.mixture if config.mixtures != ("alone",) else "",
            f"rate {cell.rate:g}" if cell.rate is not None else "",
        ]
        return ", ".join(filter(None, several))

    def name(self, cell: Cell) -> str:
        """Of the model's folder and its curve."""
        arm = self.arm(cell)
        return f"{cell.size}-{cell.people}people" + (f"-{name_of(arm)}" if arm else "")

    def model(self, cell: Cell) -> nn.Module:
        """A model from scratch."""
        network = networks.parse(cell.network)
        made = self.fresh_model(
            cell.size,
            self.reading.tokenizer,
            family=network.family,
            context=self.config.context,
            tied=network.tied,
        )
        return networks.change(made, network, random_key(self.config.seed, "mlp") >> 1)

    def steps(self, cell: Cell) -> int:
        """Optimizer steps of a model's training."""
        return self.reading.steps(cell.people, cell.mixture, self.config.recipe_of(cell.people, cell.rate).batch)

    def planned(self, cell: Cell) -> Planned:
        """The training of one model."""
        config, form = self.config, models.shape(cell.size)
        return Planned(
            self.name(cell),
            self.steps(cell),
            config.recipe_of(cell.people, cell.rate).batch,
            config.context if config.layout == "packed" else float(self.reading.lengths.mean()),
            lambda: self.model(cell),
            weight=form.width * (12 * form.layers * form.width + len(self.reading.tokenizer)),
        )

    def part(self, cell: Cell) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Trains one model, unless that is done, and returns its rows and what its training cost."""
        name = self.name(cell)
        folder = self.folder / name / "train"
        record = finished(folder) or self._train(name, folder, cell)
        stage = {"dataset": name, "stage": "train", **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
        about = {"dataset": name, "size": cell.size, "people": cell.people, "exposures": self.config.exposures}
        # A run of before measured once, by another definition, and finishes with what it has.
        return [{**about, **row} for row in record.get("rows", [record.get("row")])], stage

    def _train(self, name: str, folder: Path, cell: Cell) -> dict[str, Any]:
        config, accelerator = self.config, self.accelerator
        people, steps = cell.people, self.steps(cell)
        stream = self.reading.stream(people, cell.mixture)
        model = self.model(cell)
        recipe = replace(config.recipe_of(people, cell.rate), steps=steps)
        with Stage(
            folder,
            TrainState(model, recipe, accelerator=accelerator),
            stream,
            label=name,
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", accelerator.process_index),
            console=self.console,
        ) as stage:
            at = evaluation_steps(steps, config.evaluations)
            for step in stage:
                if stage.main and step.number in at:
                    stage.add([{"corpus": "bio", **self.measure(model, cell, config.evaluated_people)}])
            if stage.main:
                about = {
                    "corpus": self.reading.dataset,
                    "network": cell.network,
                    "mixture": cell.mixture,
                    "batch": recipe.batch,
                    "learning_rate": recipe.learning_rate,
                    "weight_decay": recipe.weight_decay,
                    "steps": steps,
                    "read_in_training": self.reading.read_share(people, config.measured_people),
                }
                stage.record["rows"] = [
                    {**about, "arm": arm, "numbers": numbers, **self.measure(made, cell, config.measured_people)}
                    for arm, numbers, made in self._precisions(cell, model)
                ]
        return stage.record

    def _precisions(self, cell: Cell, model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
        """The model as trained, and rounded: its arm, the kind of its numbers, itself."""
        arm = self.arm(cell)
        yield arm, "float32", model
        for size in self.config.quantised:
            label = f"int{size}"
            yield ", ".join(filter(None, (arm, label))), label, networks.quantise(copy.deepcopy(model), size)

    def measure(self, model: nn.Module, cell: Cell, asked: int) -> dict[str, Any]:
        """Losses (nats) and bits, and bits a parameter.

        ``parameters`` counts the model's, a tied embedding once, and of embeddings the rows of tokens that occur, as the paper
        does for its models, whose vocabulary has no others; ``parameters_all`` has every row, ``body`` none.
        """
        found = self.reading.bits(model, cell.people, asked, cell.mixture)
        every, size = models.parameters(model), len(self.reading.tokenizer)
        ends: tuple[Any, Any] = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
        embeddings = {id(p): p for end in ends for p in end.parameters()}.values()
        body = every - sum(p.numel() for p in embeddings)
        unused = size - self.reading.occurring
        parameters = every - sum(unused * p.numel() // size for p in embeddings if len(p) == size)
        return {
            "parameters": parameters,
            "parameters_all": every,
            "body": body,
            "share": found["bits"] / found["possible_bits"],
            "bits_per_parameter": found["bits"] / parameters,
            "possible_per_parameter": found["possible_bits"] / parameters,
            "bits_per_body_parameter": found["bits"] / body,
            "ratio": found["bits_paper"] / parameters,
            "ratio_theorem": found["bits_theorem"] / parameters,
            "ratio_unclamped": found["bits_unclamped"] / parameters,
            "ratio_most": found["possible_paper"] / parameters,
            **found,
        }
