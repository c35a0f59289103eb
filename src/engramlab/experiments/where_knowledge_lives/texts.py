"""What a run reads, trains on and asks, as text and as token rows; and the model that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.random_access import key
from engramlab.core import models
from engramlab.core.text import tokens as texts
from engramlab.core.text.batches import Mixed, OneEntryARow, Order, Stream, TokenRows
from engramlab.core.text.passages import Asked, fitting, tail
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.corpora.facts import FactTable
from engramlab.editing import cases
from engramlab.experiments._run import Run
from engramlab.experiments.where_knowledge_lives import data as made
from engramlab.experiments.where_knowledge_lives.config import Config
from engramlab.experiments.where_knowledge_lives.data import Data
from engramlab.files import records, writing


class Texts:
    """What a run is about, and what is made of it."""

    def __init__(self, run: Run, data: Data) -> None:
        self.run, self.data = run, data
        self.config: Config = run.config

    def _folder(self, name: str) -> Path:
        return self.run.folder / "ways" / writing.name_of(name)

    @cached_property
    def asked(self) -> tuple[list[Asked], list[Asked]]:
        """Questions about what is put in, and about what was known before."""
        return self.data.asked(), self.data.natively(self.config.native)

    @cached_property
    def trained(self) -> list[Asked]:
        """The questions that are trained, without passages."""
        data = self.data
        return made.questions(data.words, (f for f in data.taught if f.subject in data.halves[0]), "trained")

    @cached_property
    def stated(self) -> dict[str, str]:
        """A passage for each subject whose facts are put in."""
        return made.documents(self.data.taught, self.config.seed)

    @cached_property
    def loaded(self) -> tuple[nn.Module, Any]:
        """The model as it is, and its tokenizer; whoever changes it puts it back."""
        if not self.config.scratch:
            return cases.model(self.config.model, methods=[self.config.edit_method])
        folder = self._folder("pretrain") / "model"
        records.check_sealed(folder)
        return models.load(str(folder))[0].to(self.run.accelerator.device), self.tokenizer

    def prepare(self) -> None:
        """Loads what is asked, and refuses questions that do not fit, before anything is trained."""
        if not self.config.scratch:
            self.run.ready()  # a run that is only to be tried loads no model
            if models.mask_token(self.loaded[0]) is not None:
                raise UserError(
                    f"model {self.config.model}: is a masked language model, which does not write; take a causal one"
                )
            limit = models.context_limit(self.loaded[0])
        else:
            limit = self.config.context
        tokenizer = self.tokenizer
        every = made.with_passages([*self.asked[0], *self.trained], self.stated)
        if self.config.scratch:
            every += made.with_passages(self._every(self.data.readers), self._readable)
        fitting(tokenizer, every, self.config.tokens, self.config.new_tokens, limit)

    @cached_property
    def tokenizer(self) -> Any:
        """Of a network from scratch: it has seen all names, facts and words of questions."""
        if not self.config.scratch:
            return self.loaded[1]
        return self.run.scratch_tokenizer(self._texts, self.config.vocabulary)

    def _texts(self) -> list[str]:
        data, seed = self.data, self.config.seed
        asked = [*self._every(data.natives), *self.asked[0], *self.trained]
        read = [*made.texts(data.natives, seed), *made.texts(data.taught, seed), *self._readable.values()]
        return [*read, *(f"{tail(one.question)} {one.answers[0]}" for one in asked)]

    def _every(self, table: FactTable | None) -> list[Asked]:
        """Questions about facts that a network from scratch knows or reads, in all wordings."""
        assert table is not None
        words = self.data.native_words
        return [one for part in ("trained", "held-out") for one in made.questions(words, table, part)]

    @cached_property
    def _readable(self) -> dict[str, str]:
        assert self.data.readers is not None
        return made.documents(self.data.readers, self.config.seed)

    def _said(self, lines: Sequence[str], name: str) -> Stream:
        """Texts to train on, one a row."""
        rows = Sequences.of(texts.encode(self.tokenizer, list(lines))[0])
        return self._stream(rows, name, False)

    def _questions(self, asked: Sequence[Asked], name: str) -> Stream:
        """Questions with their answers, which alone are targets."""
        queries = [Query(tail(one.question), one.answers[0]) for one in asked]
        rows = encode_queries(self.tokenizer, queries, end=False).sequences
        return self._stream(rows.behind(len(texts.start_tokens(self.tokenizer))), name, True)

    def _stream(self, rows: Sequences, name: str, answers: bool) -> Stream:
        start, end = texts.start_tokens(self.tokenizer), texts.end_token(self.tokenizer)
        order = Order(len(rows), key(self.config.seed, name))
        longest = int(rows.lengths.max()) + len(start) + 1
        return OneEntryARow(TokenRows(rows), order, start=start, end=end, length=longest, answers_only=answers)

    def _mixed(self, first: Stream, second: Stream, share: float, name: str) -> Mixed:
        end = texts.end_token(self.tokenizer)
        return Mixed(first, second, ratio=share, end=end, seed=key(self.config.seed, "mix", name))

    def _native_rows(self) -> tuple[Stream, Stream]:
        return (
            self._said(made.texts(self.data.natives, self.config.seed), "natives"),
            self._questions(self._every(self.data.natives), "native questions"),
        )

    def _steps(self, subjects: int) -> int:
        """Steps in which each subject is met so often."""
        config = self.config
        about = 1 - config.question_share - (config.replay_share if config.scratch else 0)
        return max(1, round(config.encounters * subjects / about / config.batch))

    def _lesson(self, table: FactTable, asked: Sequence[Asked], name: str) -> Stream:
        """Statements of the facts, questions, and from scratch what was read before."""
        config = self.config
        stream: Stream = self._said(made.texts(table, config.seed), name)
        replay = config.replay_share if config.scratch else 0.0
        if asked:
            share = config.question_share / (1 - replay)
            stream = self._mixed(stream, self._questions(asked, f"{name} questions"), share, f"{name} questions")
        if replay:
            stream = self._mixed(stream, self._mixed(*self._native_rows(), 0.5, "replay"), replay, f"{name} replay")
        return stream

    @property
    def _token_steps(self) -> int:
        return max(1, -(-len(self.trained) * self.config.epochs // self.config.batch))
