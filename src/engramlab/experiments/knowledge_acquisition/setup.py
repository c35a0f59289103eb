"""What a run needs before its long work: groups, tokenizers, queries, plans, the stream; everything checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from engramlab.acquisition.injection import Plan, encode_passages, plan_injections
from engramlab.acquisition.measuring import Asked, prepare
from engramlab.acquisition.schedule import Group, make_groups
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text import batches, tokens
from engramlab.corpora.passages import all_queries
from engramlab.experiments import _run
from engramlab.experiments.knowledge_acquisition.config import Arm, Config
from engramlab.experiments.knowledge_acquisition.data import Material, material, stream_rows


@dataclasses.dataclass
class Reader:
    """What depends on a tokenizer alone: parts with the same one share it."""

    tokenizer: Any
    end: int
    versions: list[list[list[int]]]
    asked: Asked
    rows: batches.Rows | None = None


class Setup(_run.Run):
    """Everything a run needs before its long work. Making it reads the files and refuses what cannot be run."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("knowledge-acquisition", config, out, preset=preset, console=console)
        self.alone()
        self.arms = config.arms()
        self.material: Material = material(config)
        self.groups = {arm.name: self._groups(arm) for arm in self.arms}
        self.readers: dict[str, Reader] = {}
        self.plans = {arm.name: self._plan(arm) for arm in self.arms}
        self._check_models()

    def _groups(self, arm: Arm) -> tuple[Group, ...]:
        """The groups of a part, each cut into as many as are injected at different steps, the groups' turns in between."""
        config = self.config
        paraphrases = [len(record.paraphrases) for record in self.material.records]
        times = 1 if config.schedule == "once" else config.times
        groups = make_groups(
            config.schedule, paraphrases, control=self.material.control, interval=arm.interval, times=times
        )
        found = []
        injected = sum(group.schedule != "never" for group in groups)
        for turn, group in enumerate(groups):
            parts = 1 if group.schedule == "never" else arm.stagger
            for k in range(parts):
                start = (k * injected + turn) * arm.interval // (parts * injected) if parts > 1 else 0
                name = group.name if parts == 1 else f"{group.name}@{start}"
                if group.passages[k::parts]:
                    found.append(dataclasses.replace(group, name=name, passages=group.passages[k::parts], start=start))
        return tuple(found)

    def steps(self, arm: Arm) -> int:
        """Updates of a part after step 0."""
        times = 1 if self.config.schedule == "once" else self.config.times
        return arm.interval * times + arm.after

    def reader(self, arm: Arm) -> Reader:
        about = models.about(arm.model)
        name = "scratch" if about.from_scratch else arm.model
        if name not in self.readers:
            if about.from_scratch:
                config, texts_of = self.config, self.material.tokenizer_texts
                tokenizer = self.scratch_tokenizer(texts_of, config.vocabulary, chosen=config.tokenizer)
            else:
                tokenizer = models.load_tokenizer(arm.model)
            texts = [record.versions for record in self.material.records]
            queries, _ = all_queries(self.material.records)
            context = about.context(self.config.window)
            if self.config.window > context:
                raise UserError(
                    f"window: {self.config.window} tokens are more than the context of {arm.model}, {context}; choose at most "
                    "that"
                )
            asked = prepare(tokenizer, queries, straddling=self.config.straddling, context=context)
            self.readers[name] = Reader(
                tokenizer, tokens.end_token(tokenizer), encode_passages(tokenizer, texts), asked
            )
        return self.readers[name]

    def _plan(self, arm: Arm) -> Plan:
        reader = self.reader(arm)
        return plan_injections(
            self.groups[arm.name],
            reader.versions,
            rows=arm.batch,
            window=self.config.window,
            steps=self.steps(arm),
            end=reader.end,
            seed=self.config.seed,
            names=[record.id for record in self.material.records],
        )

    def _check_models(self) -> None:
        for arm in self.arms:
            if (size := models.about(arm.model).vocabulary) is not None:
                check_vocabulary(arm.model, size, self.reader(arm).tokenizer)

    def _needed(self, reader: Reader) -> int:
        """Most tokens any part with this tokenizer reads from the stream."""
        config, most = self.config, 0
        for arm in self.arms:
            if self.reader(arm) is reader:
                rows = self.steps(arm) * arm.batch
                if models.about(arm.model).from_scratch:
                    rows += round(max(config.stage) * config.pretrain.steps) * config.pretrain.batch
                else:
                    rows += config.optimizer.warmup * arm.batch
                most = max(most, rows * config.window)
        return most

    def read_stream(self) -> None:
        """Tokenises the stream; refuses one that ends before the run does."""
        for reader in self.readers.values():
            if reader.rows is None:
                reader.rows, _ = stream_rows(self.material, reader.tokenizer, self._needed(reader))


def check_vocabulary(name: str, rows: int, tokenizer: Any) -> None:
    if len(tokenizer) > rows:
        raise UserError(
            f"model {name}: its vocabulary has {rows:,} tokens, but its tokenizer has {len(tokenizer):,}; the checkpoint and "
            "the tokenizer are not of one model"
        )
