"""The network whose edits are probed: of a run of knowledge-extraction, or a small one trained here on bioS."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from engramlab import corpora
from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import batches, tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage
from engramlab.corpora.datasets import Dataset, dataset, recorded, variants
from engramlab.corpora.facts import FactTable
from engramlab.corpora.layout import facts_of
from engramlab.corpora.people import ATTRIBUTES, Pools
from engramlab.corpora.sources import bios
from engramlab.experiments._run import Planned
from engramlab.experiments.fact_lifecycle.work import Lifecycle
from engramlab.files import records, writing

VARIANT = "multi5+permute"
_BATCH, _RATE, _CONTEXT, _VOCABULARY = 32, 2e-3, 256, 4000
_STAGES = ("pretrain", "mixed")


class Network:
    """A model and the facts that it has read.

    Attributes:
        table: the facts, in sentences like those it read.
        tokenizer: its own.

    Raises:
        UserError: a run that is not there, unfinished, or of another kind.
    """

    def __init__(self, work: Lifecycle) -> None:
        self.work, self.config, self.run = work, work.config, work.run
        self.folder = work.run.folder / "name" / "network"
        self.weights = str(self.folder / "model")
        self.trained = self.config.run is None and not self.config.of_model
        if self.config.of_model:
            self.table, self.tokenizer, self.weights = work.facts, work.tokenizer, self.config.model
            return
        self.data = self._made() if self.config.run is None else self._found(Path(self.config.run))
        self.table = _spoken(self.data)
        if self.config.run is None:
            self.tokenizer = self.run.scratch_tokenizer(self._texts, _VOCABULARY)
        else:
            self.tokenizer = models.load_tokenizer(self.weights)

    def _made(self) -> Dataset:
        pools = Pools(birth_cities=self.config.values, universities=20, majors=20, companies=20, birth_years=20)
        config = bios.Config(seed=self.config.seed, people=self.config.people, pools=pools)
        made: Dataset = bios.dataset(config, VARIANT)
        return made

    def _found(self, folder: Path) -> Dataset:
        path = folder / "config.json"
        record = writing.read_json(path) if path.is_file() else {}
        if record.get("experiment") != "knowledge-extraction":
            raise UserError(f"run: {folder} is no run of knowledge-extraction; give the folder of one")
        source = recorded(record["config"])
        there = variants(source, tuple(record["config"]["variants"]))
        for variant in sorted(there, key=lambda name: name != VARIANT):
            data = dataset(source, variant)
            for stage in _STAGES:
                at = folder / data.name / stage / "model"
                if at.is_dir():
                    self.weights = str(at)
                    return data
        raise UserError(f"run: {folder} has no trained network yet; run it to its end first")

    def _texts(self) -> list[str]:
        corpus = self.data.corpus
        rows = corpus.layout(np.arange(len(corpus))).pieces.tolist()
        return ["".join([corpus.pieces[p] for p in row]) for row in rows]

    def planned(self) -> list[Planned]:
        """Its training, if it is trained here."""
        return [Planned("the network", self.config.network_steps, _BATCH, 80)] if self.trained else []

    @cached_property
    def model(self) -> nn.Module:
        """The network, trained if it must be."""
        if self.config.of_model:
            return self.work.fresh()
        if self.trained and not Path(self.weights).exists():
            self._train()
        records.check_sealed(Path(self.weights))
        found: nn.Module = models.load(self.weights)[0].to(self.run.accelerator.device)
        return found

    def _train(self) -> None:
        config, table = self.config, TokenTable(self.data.corpus, self.tokenizer)
        stream = batches.OneEntryARow(
            table,
            batches.Order(len(table), random_key(config.seed, "network")),
            start=tokens.start_tokens(self.tokenizer),
            end=tokens.end_token(self.tokenizer),
            length=_CONTEXT,
        )
        model = self.run.fresh_model(config.network, self.tokenizer, context=_CONTEXT)
        recipe = Recipe(steps=config.network_steps, batch=_BATCH, learning_rate=_RATE, warmup=20)
        state = TrainState(model, recipe, accelerator=self.run.accelerator)
        with Stage(
            self.folder / "stage",
            state,
            stream,
            label="the network",
            minutes=config.checkpoint_minutes,
            console=self.run.console,
        ) as stage:
            for _ in stage:
                pass
            records.write_sealed(Path(self.weights), lambda path: models.save(model, self.tokenizer, path))


def _spoken(data: Dataset) -> FactTable:
    """The facts of a dataset, said as bioS says them where they are its attributes."""
    population = data.corpus.population
    facts = (fact for subject in data.questions.subjects for fact in facts_of(population, subject))
    own = set(population.attributes) <= set(ATTRIBUTES)
    templates = Path(corpora.__file__).parent / "templates" / "bios" if own else None
    return FactTable.of(facts, templates=templates, name="the network's people")
