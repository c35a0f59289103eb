"""What a run needs before its long work: groups, tokenizers, queries, plans, the stream; everything checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from engramlab.acquisition.injection import Plan, encode_passages, plan_injections
from engramlab.acquisition.schedule import Group, make_groups
from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.core import models
from engramlab.core.text import batches, tokens
from engramlab.corpora.passages import all_queries
from engramlab.editing.folders.opening import require_in_weights
from engramlab.experiments import _run
from engramlab.experiments.knowledge_acquisition.config import Config, PartConfig
from engramlab.experiments.knowledge_acquisition.data import Material, material, stream_rows
from engramlab.experiments.knowledge_acquisition.origins import mean_rate, reading_of, refuse_alike


@dataclasses.dataclass
class Tokenised:
    """What depends on a tokenizer alone: parts with the same one share it.

    Attributes:
        versions: token ids of each passage's original and paraphrases.
        asked: the queries, ready to be measured.
        rows: the stream's documents, once they are read.
    """

    tokenizer: Any
    end: int
    versions: list[list[list[int]]]
    asked: tokens.EncodedQueries
    rows: batches.TokenRows | None = None


class Run(_run.Run):
    """What the parts of a run share. Making it reads the files and refuses what cannot be run."""

    config: Config

    def __init__(self, config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> None:
        super().__init__("knowledge-acquisition", config, out, preset=preset, console=console)
        self.alone()
        self.parts = config.parts()
        if "mean" in config.rate:
            mean_rate(config)  # refuses checkpoints that do not say theirs
        refuse_alike(config)
        self.material: Material = material(config)
        self.readings = {part.name: reading_of(config, part) for part in self.parts}
        self.groups = {part.name: groups_of(config, part, self.material) for part in self.parts}
        self._tokenised: dict[str, Tokenised] = {}
        self.plans = {part.name: self._plan(part) for part in self.parts}
        self._check_models()

    def begin(self) -> None:
        """Says what the run does."""
        parts = [
            f"{part.name} ({part.steps:,} steps of {part.batch} x {self.config.window} tokens)" for part in self.parts
        ]
        self.say(
            f"{self.folder}: {'going on' if self.resumed else 'new run'}; {len(parts)} part(s): {', '.join(parts)}"
        )
        for tokenised in self._tokenised.values():
            if names := tokenised.asked.straddling:
                what = "kept" if self.config.straddling == "keep" else "left out"
                self.say(
                    f"{len(names)} queries whose target begins inside a token of the prompt are {what}: "
                    + ", ".join(names[:5])
                )

    def tokenised(self, model: str) -> Tokenised:
        """What the tokenizer of a model makes of the passages and queries."""
        about = models.about(model)
        name = "scratch" if about.from_scratch else model
        if name not in self._tokenised:
            config = self.config
            if about.from_scratch:
                texts_of = self.material.tokenizer_texts
                tokenizer = self.scratch_tokenizer(texts_of, config.vocabulary, chosen=config.tokenizer)
            else:
                tokenizer = models.load_tokenizer(model)
            texts = [record.versions for record in self.material.records]
            queries, _ = all_queries(self.material.records)
            if not queries:
                raise UserError("there are no queries to measure; give each passage some")
            if config.window > (context := about.context(config.window)):
                raise UserError(
                    f"window: {config.window} tokens are more than the context of {model}, {context}; choose at most that"
                )
            asked = tokens.encode_queries(tokenizer, queries, straddling=config.straddling, context=context)
            versions = encode_passages(tokenizer, texts)
            self._tokenised[name] = Tokenised(tokenizer, tokens.end_token(tokenizer), versions, asked)
        return self._tokenised[name]

    def _plan(self, part: PartConfig) -> Plan:
        tokenised = self.tokenised(part.model)
        return plan_injections(
            self.groups[part.name],
            tokenised.versions,
            rows=part.batch,
            window=self.config.window,
            steps=part.steps,
            end=tokenised.end,
            seed=self.config.seed,
            names=[record.id for record in self.material.records],
        )

    def _check_models(self) -> None:
        for part in self.parts:
            require_in_weights("model", part.model)
            if (size := models.about(part.model).vocabulary) is not None:
                models.check_vocabulary(part.model, self.tokenised(part.model).tokenizer, size)

    def _needed(self, part: PartConfig) -> int:
        """Tokens that a part reads from the stream."""
        config, rows = self.config, part.steps * part.batch
        if models.about(part.model).from_scratch:
            rows += round(max(config.stage) * config.pretrain.steps) * config.pretrain.batch
        if part.moments == "warmed" or not models.about(part.model).from_scratch:
            rows += config.optimizer.warmup * part.batch
        return rows * config.window

    def read_stream(self) -> None:
        """Tokenises the stream; refuses one that ends before the run does."""
        for tokenised in self._tokenised.values():
            mine = [part for part in self.parts if self.tokenised(part.model) is tokenised]
            needed = max(self._needed(part) for part in mine)
            tokenised.rows, _ = stream_rows(self.material, tokenised.tokenizer, needed)


def groups_of(config: Config, part: PartConfig, material: Material) -> tuple[Group, ...]:
    """The groups of a part, each cut into as many as are injected at different steps, the groups' turns in between."""
    paraphrases = [len(record.paraphrases) for record in material.records]
    groups = make_groups(
        config.schedule, paraphrases, control=material.control, interval=part.interval, times=part.times
    )
    found = []
    injected = sum(group.schedule != "never" for group in groups)
    for turn, group in enumerate(groups):
        parts = 1 if group.schedule == "never" else part.stagger
        for k in range(parts):
            start = (k * injected + turn) * part.interval // (parts * injected) if parts > 1 else 0
            name = group.name if parts == 1 else f"{group.name}@{start}"
            if group.passages[k::parts]:
                found.append(dataclasses.replace(group, name=name, passages=group.passages[k::parts], start=start))
    return tuple(found)
