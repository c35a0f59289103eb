"""The stages of a run: the model from scratch, plain reading, the virtual tokens, LoRA; and what questions are answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key
from engramlab.base.rows import Row
from engramlab.core import models
from engramlab.core.deltas.virtual_tokens import VirtualTokens, placed
from engramlab.core.text import tokens as texts
from engramlab.core.text.batches import OneEntryARow, Order, Stream, TokenRows
from engramlab.core.text.passages import Asked, PassageRows, answered, fitting, head, tail
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.editing import cases
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.retrieval_tokens.config import Config
from engramlab.experiments.retrieval_tokens.data import Data, chosen, count_trained, searched
from engramlab.files import records, writing
from engramlab.measuring.answers import exact_match, f1, is_answer
from engramlab.measuring.reading import written
from engramlab.measuring.scoring import score

SAMPLES = 1000
SCORES = {"em": exact_match, "f1": f1, "begins": is_answer}
PLAIN = "plain"


class Work:
    """What a run is about to do.

    Attributes:
        stages: their names, in order.
        left: passages that did not fit.
    """

    def __init__(self, run: Run, data: Data) -> None:
        self.run, self.data, self.left = run, data, 0
        self.config: Config = run.config
        self.stages = [
            *(["pretrain"] if self.config.scratch else []),
            PLAIN,
            "tokens",
            *(["lora"] if self.config.lora else []),
        ]

    @property
    def steps(self) -> int:
        """Steps of a training on questions."""
        return max(1, -(-count_trained(self.config, self.data) * self.config.epochs // self.config.batch))

    def planned(self) -> list[Planned]:
        """The stages, as they are shown beforehand."""
        length, ways = 30.0 * (1 + self.config.most), 3 + len(self.config.ks)
        of = {"pretrain": (self.config.pretrain.steps, self.config.pretrain.batch), PLAIN: (3, self.config.limit // 3)}
        return [
            Planned(name, *of.get(name, (self.steps, self.config.batch)), length, weight=1.0 if name in of else ways)
            for name in self.stages
        ]

    def _folder(self, name: str) -> Path:
        return self.run.folder / "reading" / name

    @cached_property
    def tokenizer(self) -> Any:
        """Of the model from scratch: it has seen the words of questions, too."""
        every = [text for pair in self.data.entries for text in pair]
        return self.run.scratch_tokenizer(lambda: [*every, *self._asked_texts()], self.config.vocabulary)

    def _asked_texts(self) -> list[str]:
        return [head(one.passages) + tail(one.question) for one in self.data.asked]

    def prepare(self) -> None:
        """Loads what is read, and refuses questions that do not fit, before anything is trained."""
        if self.config.scratch:
            _ = self.tokenizer
            self.rows = self._rows()
        if not all((self._folder(name) / "done.json").exists() for name in self.stages):
            _ = self.questions

    @cached_property
    def loaded(self) -> tuple[nn.Module, Any]:
        """The model that exists, or that was trained before, and its tokenizer."""
        if not self.config.scratch:
            found = cases.model(self.config.model, dtype=self.config.dtype)
            if models.mask_token(found[0]) is not None:
                raise UserError(
                    f"model {self.config.model}: is a masked language model, which does not write; take a causal one"
                )
            return found
        records.check_sealed(self._folder("pretrain") / "model")
        model, _ = models.load(str(self._folder("pretrain") / "model"))
        return model.to(self.run.accelerator.device), self.tokenizer

    @cached_property
    def questions(self) -> tuple[list[Asked], list[Asked]]:
        """Those trained and those asked, with what fits of their passages."""
        config = self.config
        model, tokenizer = (None, self.tokenizer) if config.scratch else self.loaded
        limit = config.context if config.scratch else models.context_limit(model)
        every = searched(config, self.data, model, tokenizer)
        found = []
        for part in (0, 1):
            room = max(config.new_tokens, self._longest(tokenizer, every))
            fit, left = fitting(tokenizer, chosen(config, self.data, every, part), config.tokens, room, limit)
            found.append(fit)
            self.left += left
        if config.retrieval == "gold" and config.records is None:  # some of them, and the right one anywhere
            drawn = PassageRows(tokenizer, found[1], seed=key(config.seed, "asked"))
            found[1] = [replace(drawn.drawn(i, 0), answers=one.answers) for i, one in enumerate(found[1])]
        return found[0], found[1]

    @staticmethod
    def _longest(tokenizer: Any, asked: Sequence[Asked]) -> int:
        answers = list(dict.fromkeys(answer for one in asked for answer in one.answers))
        return max(map(len, tokenizer(answers, add_special_tokens=False)["input_ids"])) + 2

    def results(self, name: str) -> dict[str, Any]:
        """The record of a stage, from its folder or made now."""
        folder = self._folder(name)
        if name == PLAIN:
            return self._plain(folder)
        if (record := finished(folder)) is not None:
            return record
        return {"pretrain": self._pretrain, "tokens": self._tokens, "lora": self._lora}[name](folder)

    # ------------------------------------------------------------------------------------------------------- from scratch

    def _rows(self) -> TokenRows:
        """Two entries of one person a row."""
        rows, _ = texts.encode(self.tokenizer, ["\n".join(pair) for pair in self.data.entries])
        return TokenRows(Sequences.of(rows))

    def _pretrain(self, folder: Path) -> dict[str, Any]:
        config, tokenizer = self.config, self.tokenizer
        model = self.run.fresh_model(config.model, tokenizer, family=config.family, context=config.context)
        start, end = texts.start_tokens(tokenizer), texts.end_token(tokenizer)
        order = Order(len(self.rows), key(config.seed, "entries"))
        stream = OneEntryARow(self.rows, order, start=start, end=end, length=config.context)
        with self._stage(
            "pretrain", folder, TrainState(model, config.pretrain, accelerator=self.run.accelerator), stream
        ) as s:
            for _ in s:
                pass
            records.write_sealed(folder / "model", lambda path: models.save(model, tokenizer, path))
        return s.record

    def _stage(self, name: str, folder: Path, state: TrainState, stream: Stream) -> Stage:
        minutes, seed = self.config.checkpoint_minutes, key(self.config.seed, name)
        return Stage(folder, state, stream, label=name, minutes=minutes, seed=seed, console=self.run.console)

    # -------------------------------------------------------------------------------------------------------------- asking

    def _plain(self, folder: Path) -> dict[str, Any]:
        """The model as it is: by itself, from passages, and with the words that the vectors begin as."""
        if not (folder / "done.json").exists():
            began, (model, tokenizer), config = time.monotonic(), self.loaded, self.config
            asked = self.questions[1]
            bare = [replace(one, passages=()) for one in asked]
            tokens = VirtualTokens.of_text(model, tokenizer, config.tokens)
            rows, answers = [], []
            ways: list[tuple[str, list[Asked], list[int]]]
            ways = [("no passage", bare, []), (PLAIN, asked, []), ("untrained tokens", asked, tokens.ids())]
            for way, of, ids in ways:
                with placed(model, tokens) if ids else contextlib.nullcontext():
                    answers += self._answers(model, tokenizer, way, len(ids), of, ids)
            base = _of(answers, PLAIN, 0)
            rows = [_row(_of(answers, way, len(ids)), base, config.seed) for way, _, ids in ways]
            inside = [any(_holds(one.passages, answer) for answer in one.answers) for one in asked]
            record = {
                "rows": rows,
                "without": [{"way": PLAIN, "nats": self._nats(model, tokenizer), "change": 0.0}],
                "left_out": self.left,
                "answer_in_passages": float(np.mean(inside)),
                "seconds": round(time.monotonic() - began, 2),
            }

            def write(path: Path) -> None:
                records.write_rows(path / "answers.parquet", answers)
                records.write_record(path / "done.json", record)

            writing.write_folder(folder, write)
        return records.read_record(folder / "done.json", ("rows", "without", "left_out", "seconds"))

    def _answers(
        self, model: nn.Module, tokenizer: Any, way: str, k: int, asked: Sequence[Asked], ids: Sequence[int]
    ) -> list[Row]:
        """What is written to each question, a row each."""
        label = f"{way} {k}" if k else way
        with ProgressBar(label, len(asked), console=self.run.console) as bar:
            said = written(
                model,
                tokenizer,
                asked,
                ids,
                new_tokens=self.config.new_tokens,
                progress=lambda done, _: bar.update(done),
            )
        return [
            {"way": way, "k": k, "subject": one.subject, "question": one.question, "answers": list(one.answers)}
            | {"passages": len(one.passages), "written": text}
            | {name: float(of(text, one.answers)) for name, of in SCORES.items()}
            for one, text in zip(asked, said, strict=True)
        ]

    def _nats(self, model: nn.Module, tokenizer: Any) -> float:
        """Of the answers to the questions by themselves, the mean negative log-probability of a token."""
        found = score(model, answered(tokenizer, [replace(one, passages=()) for one in self.questions[1]]))
        return -float(found.logprobs.astype(np.float64).mean())

    def _judged(self, folder: Path, model: nn.Module, tokenizer: Any, answers: list[Row], way: str) -> dict[str, Any]:
        """What a training's record holds of the answers behind it, which go into its folder."""
        plain = records.read_rows(self._folder(PLAIN) / "answers.parquet")
        base = {name: _of(plain, name, 0) for name in (PLAIN, "no passage")}
        records.write_rows(folder / "answers.parquet", answers)
        keys = dict.fromkeys((row["way"], row["k"]) for row in answers)
        after, before = self._nats(model, tokenizer), self._plain(self._folder(PLAIN))["without"][0]["nats"]
        return {
            "rows": [
                _row(_of(answers, *one), base["no passage" if "no passage" in one[0] else PLAIN], self.config.seed)
                for one in keys
            ],
            "without": [{"way": way, "nats": after, "change": after - before}],
        }

    # ------------------------------------------------------------------------------------------------------------ training

    def _recipe(self, rate: float) -> Recipe:
        warmup = max(1, round(0.02 * self.steps))
        common = {"weight_decay": 0.0, "schedule": "linear", "final": 0.0, "eps": 1e-8}
        return Recipe(steps=self.steps, batch=self.config.batch, learning_rate=rate, warmup=warmup, **common)  # type: ignore[arg-type]

    def _stream(self, tokenizer: Any, virtual: Sequence[int]) -> PassageRows:
        return PassageRows(tokenizer, self.questions[0], virtual=virtual, seed=key(self.config.seed, "training"))

    def _tokens(self, folder: Path) -> dict[str, Any]:
        config, (model, tokenizer) = self.config, self.loaded
        tokens = VirtualTokens.of_text(model, tokenizer, config.tokens)
        with placed(model, tokens):
            recipe = self._recipe(config.learning_rate)
            state = TrainState(model, recipe, parameters=[tokens.vectors], accelerator=self.run.accelerator)
            with self._stage("tokens", folder, state, self._stream(tokenizer, tokens.ids())) as stage:
                for _ in stage:
                    pass
                answers = [
                    row
                    for k in sorted(config.ks)
                    for row in self._answers(model, tokenizer, "virtual tokens", k, self.questions[1], tokens.ids(k))
                ]
                stage.record |= self._judged(folder, model, tokenizer, answers, "virtual tokens")
                tokens.save(folder / "vectors")
        return stage.record

    def _lora(self, folder: Path) -> dict[str, Any]:
        config, (model, tokenizer) = self.config, self.loaded
        seed = key(config.seed, "lora") >> 1
        wrapped = models.add_lora(
            model, rank=config.lora_rank, alpha=2 * config.lora_rank, projections="all", seed=seed
        )
        state = TrainState(wrapped, self._recipe(config.lora_rate), accelerator=self.run.accelerator)
        with self._stage("lora", folder, state, self._stream(tokenizer, [])) as stage:
            for _ in stage:
                pass
            bare = [replace(one, passages=()) for one in self.questions[1]]
            answers = [
                *self._answers(wrapped, tokenizer, "LoRA", 0, self.questions[1], []),
                *self._answers(wrapped, tokenizer, "LoRA, no passage", 0, bare, []),
            ]
            stage.record |= self._judged(folder, wrapped, tokenizer, answers, "LoRA")
        models.unwrap(wrapped)
        return stage.record


def _of(answers: Sequence[Row], way: str, k: int) -> list[Row]:
    return [row for row in answers if (row["way"], row["k"]) == (way, k)]


def _holds(passages: Sequence[str], answer: str) -> bool:
    return any(answer.casefold() in passage.casefold() for passage in passages)


def _row(answers: Sequence[Row], base: Sequence[Row], seed: int) -> Row:
    """A way's scores, and how much they are above plain reading's, with 95 % intervals over subjects."""
    names = {subject: i for i, subject in enumerate(dict.fromkeys(row["subject"] for row in answers))}
    of = np.array([names[row["subject"]] for row in answers])
    counts = np.bincount(of)
    weights = bootstrap.times(bootstrap.draws(len(names), SAMPLES, seed))
    about = {name: answers[0][name] for name in ("way", "k")}
    found: Row = {**about, "questions": len(answers), "subjects": len(names)}
    for name in SCORES:
        values = np.array([row[name] for row in answers])
        less = values - np.array([row[name] for row in base])
        for label, each in ((name, values), (f"{name}_more", less)):
            low, high = bootstrap.interval((weights @ np.bincount(of, each)) / (weights @ counts))
            found |= {label: float(each.mean()), f"{label}_low": low, f"{label}_high": high}
    return found
