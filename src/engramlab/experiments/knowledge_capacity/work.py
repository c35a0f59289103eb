"""Trains a model of every size on every number of people, and measures its losses on names and values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import batches, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training.loop import TrainState
from engramlab.core.training.stage import Stage, evaluation_steps, finished
from engramlab.corpora.layout import NAME
from engramlab.corpora.people import DAYS, MONTHS
from engramlab.corpora.sources.bios import BiosCorpus, bios
from engramlab.corpora.sources.bios import Config as BiosConfig
from engramlab.experiments import _run
from engramlab.experiments._run import Planned
from engramlab.experiments.knowledge_capacity import bits
from engramlab.experiments.knowledge_capacity.config import Config
from engramlab.measuring import scoring

_NAME = 120  # the mark of a name's tokens where they are scored; attributes have 1 to 6
_SAMPLED = 4096  # entries whose lengths stand for all
FREE = "work_city"  # what follows from another value carries no bits


class Run(_run.Run):
    """What the parts of one run share: the tokenizer and what a guesser would lose."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("knowledge-capacity", config, out, preset=preset, console=console)
        # The pieces of a corpus do not depend on how many people it has: one tokenizer serves all.
        largest = self.corpus(max(config.people), self._variant())
        self.tokenizer = self.scratch_tokenizer(lambda: _shown(largest), config.vocabulary, closed=True)
        self.end = tokens.end_token(self.tokenizer)
        self.guesses = self._guesses(largest)
        table = TokenTable(largest, self.tokenizer)
        sample = np.unique(np.linspace(0, len(table) - 1, _SAMPLED).astype(np.int64))
        self.lengths = table.tokens(sample).lengths
        if int(self.lengths.max()) + 2 > config.context:
            raise UserError(
                f"context: {config.context} tokens are fewer than an entry has ({int(self.lengths.max()) + 2}); raise it"
            )

    def _variant(self, order: bool = True) -> str:
        if self.config.texts == "once":
            return "single"
        return f"multi{self.config.exposures}" + ("+permute" if self.config.permute and order else "")

    def corpus(self, people: int, variant: str) -> BiosCorpus:
        """Entries about so many people; the people are the same in every variant."""
        config = self.config
        made = BiosConfig(config.seed, people, pools=config.pools, first_templates=config.first_templates)
        return bios(made, variant)

    def _guesses(self, corpus: BiosCorpus) -> dict[str, float]:
        """By attribute, and for names, the loss of a guesser who knows nothing but the pools; nats a person."""
        population, pools = corpus.population, self.config.pools

        def rows(pieces: np.ndarray) -> list[tuple[int, ...]]:
            texts = ["".join(population.pieces[p] for p in row) for row in pieces.tolist()]
            return [tuple(ids) for ids in tokens.encode(self.tokenizer, texts)[0]]

        # Of a name and a date, only the last word can begin another; words before it are told apart by the space behind.
        last = np.unique(population.name_examples()[:, -1])[:, None]
        found = {"name": math.log(pools.first_names * pools.middle_names) + bits.guess(rows(last))}
        for a, attribute in enumerate(corpus.attributes):
            if attribute == "birth_date":
                found[attribute] = math.log(pools.birth_years * len(MONTHS) * DAYS)
            elif attribute != FREE:
                found[attribute] = bits.guess(rows(population.value_examples(a)))
        return found

    def steps(self, people: int) -> int:
        """Optimizer steps that read about each of so many people as often as asked."""
        rows: float = people * self.config.exposures
        if self.config.layout == "packed":
            rows *= (float(self.lengths.mean()) + 1) / self.config.context
        return max(1, math.ceil(rows / self.config.recipe.batch))

    def planned(self, size: str, people: int) -> Planned:
        """The training of one model."""
        config, form = self.config, models.shape(size)
        length = config.context if config.layout == "packed" else float(self.lengths.mean())
        return Planned(
            f"{size}-{people}people",
            self.steps(people),
            config.recipe.batch,
            length,
            partial(self.fresh_model, size, self.tokenizer, family=config.family, context=config.context),
            weight=form.width * (12 * form.layers * form.width + len(self.tokenizer)),
        )

    def part(self, size: str, people: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Trains one model, unless that is done, and returns its row and what its training cost."""
        name = f"{size}-{people}people"
        folder = self.folder / name / "train"
        record = finished(folder) or self._train(name, folder, size, people)
        stage = {"dataset": name, "stage": "train", **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
        return {
            "dataset": name,
            "size": size,
            "people": people,
            "exposures": self.config.exposures,
            **record["row"],
        }, stage

    def _train(self, name: str, folder: Path, size: str, people: int) -> dict[str, Any]:
        config, accelerator = self.config, self.accelerator
        corpus = self.corpus(people, self._variant())
        table = TokenTable(corpus, self.tokenizer)
        order = batches.Order(
            len(table),
            random_key(config.seed, "entries"),
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        stream = batches.laid_out(config.layout, table, order, start=[self.end], end=self.end, length=config.context)
        model = self.fresh_model(size, self.tokenizer, family=config.family, context=config.context)
        steps = self.steps(people)
        with Stage(
            folder,
            TrainState(model, replace(config.recipe, steps=steps), accelerator=accelerator),
            stream,
            label=name,
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", accelerator.process_index),
            console=self.console,
        ) as stage:
            at = evaluation_steps(steps, config.evaluations)
            for step in stage:
                if stage.main and step.number in at:
                    stage.add([{"corpus": "bio", **self.measure(model, people, config.evaluated_people)}])
            if stage.main:
                stage.record["row"] = self.measure(model, people, config.measured_people)
        return stage.record

    def measure(self, model: nn.Module, people: int, asked: int) -> dict[str, Any]:
        """Losses (nats a person) and bits, of names and attributes, and bits a parameter.

        ``parameters`` counts all of the model's, the tied embedding once, as the paper does for its models, whose vocabulary
        has only tokens that occur; ``body`` leaves the embedding out.
        """
        losses = self.losses(model, people, asked)
        found = bits.stored(people, self.guesses, losses)
        most = sum(bits.possible(people, self.guesses).values())
        total = sum(found.values())
        parameters = models.parameters(model)
        body = parameters - model.get_input_embeddings().weight.numel()  # type: ignore[operator]
        return {
            "parameters": parameters,
            "body": body,
            "bits": total,
            "possible_bits": most,
            "share": total / most,
            "bits_per_parameter": total / parameters,
            "possible_per_parameter": most / parameters,
            "bits_per_body_parameter": total / body,
            **{f"bits_{name}": value for name, value in found.items()},
            **{f"loss_{name}": value for name, value in losses.items()},
        }

    def losses(self, model: nn.Module, people: int, asked: int) -> dict[str, float]:
        """Mean loss of a person's name at the opening of an entry, and of each value given all before it; nats a person."""
        corpus = self.corpus(people, self._variant(order=False))
        chosen = np.unique(np.linspace(0, people - 1, min(asked, people)).astype(np.int64))
        rows = TokenTable(corpus, self.tokenizer).tokens(corpus.first_entry(chosen)).wrapped([self.end], [])
        marks = np.where(rows.marks == NAME, _NAME, np.where(rows.marks == tokens.GAP, 0, rows.marks)).astype(np.int8)
        scores = scoring.score(model, tokens.Sequences(rows.ids, rows.offsets, marks))
        sums = np.bincount(scores.marks, -scores.logprobs.astype(np.float64), minlength=_NAME + 1) / len(chosen)
        values = {name: float(sums[a + 1]) for a, name in enumerate(corpus.attributes)}
        return {"name": float(sums[_NAME]), **values}


def _shown(corpus: BiosCorpus) -> Iterator[str]:
    """Texts that between them show every piece of the corpus that entries use."""
    for group in corpus.groups:
        for layout in group.contexts():
            for row in layout.pieces.tolist():
                yield "".join([corpus.pieces[p] for p in row])
