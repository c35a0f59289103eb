"""What a run needs before its long work: groups, tokenizers, queries, plans, the stream; everything checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from engramlab.acquisition.injection import Plan, encode_passages, plan_injections
from engramlab.acquisition.schedule import Group, make_groups
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text import batches, tokenizers, tokens
from engramlab.corpora.passages import all_queries
from engramlab.experiments.knowledge_acquisition.config import Arm, Config
from engramlab.experiments.knowledge_acquisition.data import Material, material, stream_rows
from engramlab.files import writing


@dataclasses.dataclass
class Reader:
    """What depends on a tokenizer alone: parts with the same one share it."""

    tokenizer: Any
    end: int
    versions: list[list[list[int]]]
    asked: tokens.EncodedQueries
    rows: batches.Rows | None = None


class Setup:
    """Everything a run needs before its long work. Making it reads the files and refuses what cannot be run."""

    def __init__(self, config: Config, out: Path, console: Console) -> None:
        from accelerate import Accelerator

        self.config, self.out, self.console = config, out, console
        self.accelerator = Accelerator(mixed_precision=config.precision)
        if self.accelerator.num_processes > 1:
            raise UserError(
                "knowledge-acquisition runs on one device; start it without a launcher of several processes"
            )
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
        name = "scratch" if arm.model in models.SIZES else arm.model
        if name not in self.readers:
            tokenizer = self._tokenizer(arm.model)
            texts = [record.versions for record in self.material.records]
            queries, _ = all_queries(self.material.records)
            context = self._context(arm.model)
            if not queries:
                raise UserError("there are no queries to measure; give each passage some")
            asked = tokens.encode_queries(tokenizer, queries, straddling=self.config.straddling, context=context)
            self.readers[name] = Reader(
                tokenizer, tokens.end_token(tokenizer), encode_passages(tokenizer, texts), asked
            )
        return self.readers[name]

    def _tokenizer(self, model: str) -> Any:
        config = self.config
        if model not in models.SIZES:
            return models.load_tokenizer(model)
        if config.tokenizer != "compact":
            return tokenizers.lead_with_space(models.load_tokenizer(config.tokenizer))
        if (self.out / "tokenizer").exists():
            return models.load_tokenizer(str(self.out / "tokenizer"))
        return tokenizers.train_compact_tokenizer(self.material.tokenizer_texts(), config.vocabulary)

    def _context(self, model: str) -> int:
        """The longest text the model reads; refuses a window beyond it."""
        window = self.config.window
        if model in models.SIZES:
            return window
        limit = _config_of(model).get("max_position_embeddings")
        if limit is not None and window > int(limit):
            raise UserError(
                f"window: {window} tokens are more than the context of {model}, {limit}; choose at most that"
            )
        return int(limit or window)

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
            if arm.model not in models.SIZES:
                size = _config_of(arm.model).get("vocab_size")
                if size is not None:
                    check_vocabulary(arm.model, int(size), self.reader(arm).tokenizer)

    def _needed(self, reader: Reader) -> int:
        """Most tokens any part with this tokenizer reads from the stream."""
        config, most = self.config, 0
        for arm in self.arms:
            if self.reader(arm) is reader:
                rows = self.steps(arm) * arm.batch
                if arm.model in models.SIZES:
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


def _config_of(model: str) -> dict[str, Any]:
    """The config.json of a local model folder; nothing for other sources, which are checked when they are loaded."""
    path = Path(model).expanduser() / "config.json"
    return dict(writing.read_json(path)) if path.is_file() else {}


def check_vocabulary(name: str, rows: int, tokenizer: Any) -> None:
    if len(tokenizer) > rows:
        raise UserError(
            f"model {name}: its vocabulary has {rows:,} tokens, but its tokenizer has {len(tokenizer):,}; the checkpoint and "
            "the tokenizer are not of one model"
        )
