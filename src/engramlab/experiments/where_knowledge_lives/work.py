"""The stages of a run: the network from scratch, what it says by itself, and each way of putting the facts in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.facts import Query
from engramlab.base.random_access import key
from engramlab.base.rows import Row
from engramlab.core import deltas, models
from engramlab.core.deltas.virtual_tokens import VirtualTokens, placed
from engramlab.core.text.batches import Stream
from engramlab.core.text.passages import Asked, PassageRows, tail
from engramlab.core.text.tokens import encode_queries
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.core.training.stage import Stage, finished
from engramlab.editing import method
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.where_knowledge_lives import data as made
from engramlab.experiments.where_knowledge_lives.asking import Examiner
from engramlab.experiments.where_knowledge_lives.data import Data
from engramlab.files import records, writing
from engramlab.measuring.looking_up import loss, retrieved

REFRESH = 50  # steps after which the memory's keys are encoded anew
BETA = 8.0  # what the weight of a document's nearness is learnt from, as in the tiny preset of plug-in-memory


class Work(Examiner):
    """What a run is about to do.

    Attributes:
        stages: their names, in order.
    """

    def __init__(self, run: Run, data: Data) -> None:
        super().__init__(run, data)
        ways = [way for way in self.config.ways if way != "memory" or self.config.scratch]
        plain = any(way != "memory" for way in ways)
        self.stages = [
            *(["pretrain"] if self.config.scratch and plain else []),
            *(["untouched"] if plain else []),
            *ways,
        ]

    def planned(self) -> list[Planned]:
        """The stages, as they are shown beforehand."""
        config, subjects = self.config, len(self.data.taught.subjects)
        asked = len(self.asked[0]) + len(self.asked[1])
        of = {
            "pretrain": (config.pretrain.steps, config.pretrain.batch),
            "memory": (config.pretrain.steps, config.pretrain.batch),
            "training": (self._steps(subjects), config.batch),
            "virtual tokens": (self._token_steps, config.batch),
            "editing": (len(self.data.taught), 20),
        }
        return [Planned(name, *of.get(name, (1, asked)), 50.0) for name in self.stages]

    # ------------------------------------------------------------------------------------------------------- from scratch

    def _pretrain(self, folder: Path) -> dict[str, Any]:
        config, tokenizer = self.config, self.tokenizer
        model = self.run.fresh_model(config.model, tokenizer, family="llama", context=config.context)
        reading = made.with_passages(self._every(self.data.readers), self._readable)
        said, closed = self._native_rows()
        seed = key(config.seed, "reading")
        stream = self._mixed(
            said, self._mixed(closed, PassageRows(tokenizer, reading, seed=seed), 0.6, "asked"), 0.7, "pretrain"
        )
        with self._stage("pretrain", folder, model, config.pretrain, stream) as stage:
            for _ in stage:
                pass
            records.write_sealed(folder / "model", lambda path: models.save(model, tokenizer, path))
        return stage.record

    def _stage(self, name: str, folder: Path, model: nn.Module, recipe: Recipe, stream: Stream, **more: Any) -> Stage:
        parameters = more.pop("parameters", None)
        return Stage(
            folder,
            TrainState(model, recipe, parameters=parameters, accelerator=self.run.accelerator),
            stream,
            label=name,
            minutes=self.config.checkpoint_minutes,
            seed=key(self.config.seed, name),
            console=self.run.console,
            **more,
        )

    def results(self, name: str) -> dict[str, Any]:
        """The record of a stage, from its folder or made now."""
        folder = self._folder(name)
        if (folder / "done.json").exists():
            if name in ("untouched", "prompt", "editing"):
                return records.read_record(folder / "done.json", ("seconds",))
            record = finished(folder)
            assert record is not None
            return record
        of = {
            "pretrain": self._pretrain,
            "untouched": self._untouched,
            "training": self._training,
            "editing": self._editing,
            "memory": self._memory,
            "virtual tokens": self._tokens,
            "prompt": self._prompt,
        }
        return of[name](folder)

    def _kept(self, folder: Path, began: float, answers: list[Row], **record: Any) -> dict[str, Any]:
        """Writes the folder of a stage that trains nothing."""
        record["seconds"] = round(time.monotonic() - began, 2)

        def write(path: Path) -> None:
            records.write_rows(path / "answers.parquet", answers)
            records.write_record(path / "done.json", record)

        writing.write_folder(folder, write)
        return record

    @property
    def before(self) -> list[Row]:
        """What the model said by itself."""
        return records.read_rows(self._folder("untouched") / "answers.parquet")

    # ---------------------------------------------------------------------------------------------------------------- ways

    def _untouched(self, folder: Path) -> dict[str, Any]:
        began = time.monotonic()
        answers, _ = self._answers(self.loaded[0], "untouched", "before")
        return self._kept(folder, began, answers)

    def _read(self, way: str, ids: Sequence[int] = (), **costs: Any) -> tuple[list[Row], Row]:
        """Passages are found for the questions and stand before them."""
        model, _ = self.loaded
        began = time.monotonic()
        find = self._retriever(made.documents(self.data.taught, self.config.seed))
        adding = (time.monotonic() - began) / len(self.data.taught)
        answers, cost = self._answers(model, way, "after", find, ids)
        seconds, says = [], []
        for fact, new, table in self._changed():
            began = time.monotonic()
            other = self._retriever(self.stated | made.documents(table, self.config.seed))
            seconds.append(time.monotonic() - began)
            says.append(self._says(model, fact, new, other, ids))
        costs = {"once_seconds": 0.0, **costs, **cost, "add_seconds": adding, "add_tokens": 0.0}
        costs |= {"change_seconds": float(np.mean(seconds)), "changed": float(np.mean(says))}
        return answers, self._row(way, self.before, answers, **costs)

    def _prompt(self, folder: Path) -> dict[str, Any]:
        began = time.monotonic()
        answers, row = self._read("prompt")
        return self._kept(folder, began, answers, row=row)

    def _tokens(self, folder: Path) -> dict[str, Any]:
        config, (model, tokenizer) = self.config, self.loaded
        tokens = VirtualTokens.of_text(model, tokenizer, config.tokens)
        asked = made.with_passages(self.trained, self.stated)
        stream = PassageRows(tokenizer, asked, virtual=tokens.ids(), seed=key(config.seed, "tokens"))
        recipe = self._recipe(self._token_steps, config.tokens_rate)
        with (
            placed(model, tokens),
            self._stage("virtual tokens", folder, model, recipe, stream, parameters=[tokens.vectors]) as stage,
        ):
            for _ in stage:
                pass
            spent = stage.totals["seconds"]
            answers, row = self._read("virtual tokens", tokens.ids(), once_seconds=spent)
            records.write_rows(folder / "answers.parquet", answers)
            stage.record |= {"row": row}
        return stage.record

    def _recipe(self, steps: int, rate: float) -> Recipe:
        return Recipe(
            steps=steps,
            batch=self.config.batch,
            learning_rate=rate,
            weight_decay=0.0,
            eps=1e-8,
            warmup=max(1, steps // 20),
            schedule="linear",
            final=0.0,
        )

    def _adapted(self, model: nn.Module, name: str) -> nn.Module:
        rank, seed = self.config.rank, key(self.config.seed, "lora", name) >> 1
        return models.add_lora(model, rank=rank, alpha=2 * rank, projections="all", seed=seed)

    def _training(self, folder: Path) -> dict[str, Any]:
        """LoRA on all projections; a change is trained on top of it."""
        config, data, (model, _) = self.config, self.data, self.loaded
        steps, accelerator = self._steps(len(data.taught.subjects)), self.run.accelerator
        wrapped = self._adapted(model, "training")
        stream = self._lesson(data.taught, self.trained, "training")
        with self._stage("training", folder, wrapped, self._recipe(steps, config.learning_rate), stream) as stage:
            for _ in stage:
                pass
            spent, read = stage.totals["seconds"], stage.totals["tokens"]
            answers, cost = self._answers(wrapped, "training", "after")
            kept = {n: p.detach().clone() for n, p in wrapped.named_parameters() if p.requires_grad}
            seconds, says = [], []
            for number, (fact, new, table) in enumerate(self._changed()):
                again = TrainState(wrapped, self._recipe(self._steps(1), config.learning_rate), accelerator=accelerator)
                began = time.monotonic()
                for _ in train(again, self._lesson(table, [], f"change {number}"), None, again.recipe.steps):
                    pass
                seconds.append(time.monotonic() - began)
                says.append(self._says(wrapped, fact, new))
                with torch.no_grad():
                    for name, weight in wrapped.named_parameters():
                        if name in kept:
                            weight.copy_(kept[name])
            facts = len(data.taught)
            costs = {"once_seconds": 0.0, "add_seconds": spent / facts, "add_tokens": read / facts, **cost}
            costs |= {"change_seconds": float(np.mean(seconds)), "changed": float(np.mean(says))}
            records.write_rows(folder / "answers.parquet", answers)
            stage.record |= {"row": self._row("training", self.before, answers, **costs)}
        models.unwrap(wrapped)
        return stage.record

    def _editing(self, folder: Path) -> dict[str, Any]:
        """One delta of all facts; a change is an edit on top of it."""
        config, data, (model, tokenizer) = self.config, self.data, self.loaded
        start = time.monotonic()
        prepare = getattr(method.load(config.edit_method), "prepare", None)
        if prepare is not None:
            prepare(model, tokenizer, method.load(config.edit_method).Config())
        once, began = time.monotonic() - start, time.monotonic()
        edits = [edit for case in data.taught.edits("own", locality=0, seed=config.seed) for edit in case.edits]
        delta = method.make(model, tokenizer, edits, method=config.edit_method)
        spent = time.monotonic() - began
        with deltas.active(model, delta):
            answers, cost = self._answers(model, "editing", "after")
            seconds, says = [], []
            for fact, new, table in self._changed():
                began = time.monotonic()
                (edit,) = [
                    edit for case in table.edits("own", locality=0, relations=[fact.relation]) for edit in case.edits
                ]
                other = method.make(model, tokenizer, [edit], method=config.edit_method)
                seconds.append(time.monotonic() - began)
                with deltas.active(model, other):
                    says.append(self._says(model, fact, new))
        costs = {"once_seconds": once, "add_seconds": spent / len(data.taught), "add_tokens": 0.0, **cost}
        costs |= {"change_seconds": float(np.mean(seconds)), "changed": float(np.mean(says))}
        return self._kept(folder, start, answers, row=self._row("editing", self.before, answers, **costs))

    def _memory(self, folder: Path) -> dict[str, Any]:
        """A network with a memory, trained on what is known and read; the facts come as documents."""
        config, data, tokenizer = self.config, self.data, self.tokenizer
        model: Any = self.run.fresh_model(
            config.model, tokenizer, family="pluglm", context=config.context, own={"memory_beta": BETA}
        )
        embedding = model.to(self.run.accelerator.device).get_input_embeddings()
        known = made.documents(data.natives, config.seed) | self._readable
        # About all of them, and not only as documents state it: from this, too, it learns to look documents up.
        said = self._said(
            made.texts(data.natives, config.seed) + made.reworded(data.readers, config.seed), "read about"
        )
        asked = {one.question: one for one in [*self._every(data.natives), *self._every(data.readers)]}
        stream = self._mixed(said, self._questions([*asked.values()], "all questions"), 0.7, "memory")
        names = [*known, *self.stated]

        def encode(lines: Sequence[str]) -> list[list[int]]:
            return [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines]

        def find(asked: Sequence[Asked]) -> tuple[list[Asked], list[bool] | None]:
            queries = encode_queries(tokenizer, [Query(tail(one.question), one.answers[0]) for one in asked], end=True)
            at = retrieved(model, queries)[:, 0].tolist()
            return list(asked), [names[i] == one.subject for one, i in zip(asked, at, strict=True)]

        def objective() -> torch.Tensor:
            batch = stream.take(recipe.batch)
            return loss(state, batch, torch.full((len(batch.source),), -1), masked=False)

        recipe = replace(config.pretrain, learning_rate=config.memory_rate)
        model.memory.fill(encode([*known.values()]), embedding)
        with self._stage("memory", folder, model, recipe, stream, objective=objective) as stage:
            state = stage.state
            for step in stage:
                if step.number % REFRESH == 0:
                    model.memory.encode(embedding)
            model.memory.encode(embedding)
            model.eval()
            once = stage.totals["seconds"]
            before, _ = self._answers(model, "memory", "before")
            began = time.monotonic()
            model.memory.add(encode([*self.stated.values()]), embedding)
            adding = (time.monotonic() - began) / len(data.taught)
            answers, cost = self._answers(model, "memory", "after", find)
            seconds, says = [], []
            for fact, new, table in self._changed():
                number = names.index(fact.subject)
                old = model.memory.document(number)
                began = time.monotonic()
                model.memory.swap(number, *encode([*made.documents(table, config.seed).values()]), embedding)
                seconds.append(time.monotonic() - began)
                says.append(self._says(model, fact, new))
                model.memory.swap(number, old, embedding)
            costs = {"once_seconds": once, "add_seconds": adding, "add_tokens": 0.0, **cost}
            costs |= {"change_seconds": float(np.mean(seconds)), "changed": float(np.mean(says))}
            records.write_rows(folder / "answers.parquet", [*before, *answers])
            stage.record |= {"row": self._row("memory", before, answers, **costs)}
        return stage.record
