"""One network's way through a run: train it, then ask it, with its documents as they are, added, exchanged and gone."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.base.random_access import permute
from engramlab.core.text import batches
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.batches import Batch
from engramlab.core.text.masking import Masked
from engramlab.core.training.loop import TrainState
from engramlab.core.training.stage import Stage, evaluation_steps, finished
from engramlab.corpora.datasets import Dataset
from engramlab.experiments.plug_in_memory import asking
from engramlab.experiments.plug_in_memory.asking import Answers, Asked
from engramlab.experiments.plug_in_memory.config import Config
from engramlab.experiments.plug_in_memory.exchanging import Exchange, exchange
from engramlab.experiments.plug_in_memory.shared import Run
from engramlab.files import writing
from engramlab.measuring import extraction
from engramlab.measuring.looking_up import loss


class Noted(batches.OneEntryARow):
    """One entry a row; ``numbers`` are the entries of the batch that was taken last, int64 ``[own rows]``."""

    numbers = np.zeros(0, dtype=np.int64)

    def take(self, rows: int, own: slice = batches.ALL) -> Batch:
        self.numbers = self.order.next(rows)[own]
        return self.batch(self.entries.tokens(self.numbers).wrapped(self.start, [self.end], suffix_mark=1))


class Texts:
    """What is read and asked: entries, documents, questions, and who is in which group.

    Attributes:
        groups: subjects by group: ``train`` (read about, and asked in training), ``test`` (read about), ``unseen``.
        document: int64 ``[subjects]``: the entry that is each subject's document.
    """

    def __init__(self, run: Run, data: Dataset) -> None:
        config: Config = run.config
        self.run, self.data, self.config = run, data, config
        self.entries, self.questions = TokenTable(data.corpus, run.tokenizer), TokenTable(data.questions, run.tokenizer)
        for what, table in (("entries", self.entries), ("questions", self.questions)):
            if table.fallback:
                run.say(f"{what} are tokenised as text ({table.fallback})")
        everybody = np.arange(len(data.corpus.subjects))
        unseen = permute(random_key(config.seed, "unseen"), everybody, len(everybody)) < round(
            config.unseen * len(everybody)
        )
        self.groups = {name: members[~unseen[members]] for name, members in data.split.groups.items()}
        self.groups["unseen"] = np.flatnonzero(unseen)
        self.document = data.corpus.first_entry(everybody + data.corpus.subjects.start)
        self.read = np.flatnonzero(
            ~unseen[data.corpus.subject(np.arange(len(data.corpus))) - data.corpus.subjects.start]
        )

    @cached_property
    def known(self) -> np.ndarray:
        """The subjects whose documents are in the memory in training, in the documents' order."""
        return np.sort(np.concatenate([self.groups["train"], self.groups["test"]]))

    def documents(self, subjects: np.ndarray) -> list[list[int]]:
        """Token ids of their documents."""
        rows = self.entries.tokens(self.document[subjects])
        return [rows.row(i).tolist() for i in range(len(rows))]

    def stream(self) -> tuple[batches.Mixed, Noted]:
        """Rows to train on, entries and questions; and where the entries' numbers are."""
        run, config = self.run, self.config
        start = self.data.questions.subjects.start
        asked = self.data.questions.entries(self.groups["train"] + start)

        def rows(
            kind: type[batches.OneEntryARow], table: TokenTable, name: str, subset: np.ndarray, answers: bool
        ) -> Any:
            order = batches.Order(len(table), random_key(config.seed, name), subset=subset)
            context = config.model.context
            return kind(table, order, start=run.start, end=run.end, length=context, answers_only=answers)

        entries = rows(Noted, self.entries, "entries", self.read, False)
        questions = rows(batches.OneEntryARow, self.questions, "questions", asked, True)
        both = [self._hidden(one, name) for one, name in ((entries, "entries"), (questions, "questions"))]
        return batches.Mixed(*both, ratio=config.asked, end=run.end, seed=config.seed), entries

    def _hidden(self, stream: batches.Stream, name: str) -> batches.Stream:
        if not self.run.masked:
            return stream
        return Masked(
            stream,
            self.run.words,
            mask=self.run.tokenizer.mask_token_id,
            share=self.config.model.masked_words,
            answers=name == "questions",
            seed=random_key(self.config.seed, "masking", name),
        )

    def asked(self, each: int | None = None) -> Asked:
        """Questions about (so many) subjects of every group."""
        members = {name: of[:each] for name, of in self.groups.items()}
        subjects = np.concatenate([*members.values()])
        group_of = dict(
            zip(subjects.tolist(), np.repeat([*members], [len(of) for of in members.values()]), strict=True)
        )
        questions = self.data.questions
        numbers = questions.entries(subjects + questions.subjects.start)
        about = questions.subject(numbers) - questions.subjects.start
        return Asked(
            asking.encoded(self.run.tokenizer, questions.queries(numbers), self.run.masked),
            about,
            questions.attribute(numbers),
            np.array([group_of[subject] for subject in about.tolist()]),
            tuple(questions.attributes),
        )

    @cached_property
    def chance(self) -> dict[tuple[str, str], float]:
        """What always naming the commonest value of those asked in training would have right."""
        questions = self.data.questions
        start = questions.subjects.start
        groups = {name: members + start for name, members in self.groups.items()}
        return extraction.commonest(questions.population, questions.attributes, groups["train"], groups)

    def longest(self) -> int:
        """Tokens of the longest row, of all entries and questions."""
        found = 0
        for table in (self.entries, self.questions):
            for part in np.array_split(np.arange(len(table)), -(-len(table) // 4096)):
                found = max(found, int(table.tokens(part).lengths.max()))
        return found + len(self.run.start) + 1


class Part:
    """A network that is trained and asked: ``memory`` with a memory, ``bare`` without."""

    def __init__(self, run: Run, texts: Texts, name: str) -> None:
        self.run, self.texts, self.name, self.config = run, texts, name, run.config
        self.folder: Path = run.folder / name / "training"
        self.tokens = 0  # of the latest step

    def results(self) -> dict[str, Any]:
        """Its record, from the folder or made now."""
        if (record := finished(self.folder)) is not None:
            return record
        run, config, recipe = self.run, self.config, self.config.recipe
        model: Any = run.first_model()
        state = TrainState(model, recipe, accelerator=run.accelerator)
        embedding = model.get_input_embeddings()
        if self.name == "memory":
            model.memory.fill(self.texts.documents(self.texts.known), embedding)
        stream, noted = self.texts.stream()
        few = self.texts.asked(config.evaluated)
        at = evaluation_steps(recipe.steps, config.evaluations)
        with Stage(
            self.folder,
            state,
            stream,
            label=f"{self.name}, training",
            objective=lambda: self._loss(state, stream, noted),
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout"),
            console=run.console,
        ) as stage:
            for step in stage:
                stage.totals["tokens"] += self.tokens
                if step.number in at or step.number % config.memory.refresh == 0:
                    model.memory.encode(embedding)
                if step.number in at:
                    stage.add(self._along(model, few))
            model.memory.encode(embedding)
            model.eval()
            writing.write_folder(run.folder / self.name / "model", lambda path: run.save(model, path))
            stage.record |= self._asked(model)
        return stage.record

    def _loss(self, state: TrainState, stream: batches.Mixed, noted: Noted) -> torch.Tensor:
        """Mean loss of the targets of the next rows; no entry finds itself in the memory, unless it is to."""
        model: Any = state.bare
        batch = stream.take(state.recipe.batch)
        self.tokens = batch.tokens
        own = torch.full((len(batch.source),), -1)
        if len(model.memory) and self.config.memory.own == "out":
            entries = np.flatnonzero(batch.source == 0)
            if len(entries):
                own[entries] = torch.from_numpy(self._number_of_entry[noted.numbers])
        return loss(state, batch, own, masked=self.run.masked)

    @cached_property
    def _number_of_entry(self) -> np.ndarray:
        """int64 ``[entries]``: the number in the memory of an entry that is a document; -1 of others."""
        numbers = np.full(len(self.texts.data.corpus), -1)
        numbers[self.texts.document[self.texts.known]] = np.arange(len(self.texts.known))
        return numbers

    def _document(self, subjects: np.ndarray) -> np.ndarray:
        """The number of each subject's document in a memory that holds those of ``subjects``; -1 of others."""
        found = np.full(len(self.texts.document), -1)
        found[subjects] = np.arange(len(subjects))
        return found

    def _rows(self, asked: Asked, answers: Answers, document: np.ndarray, when: str) -> list[dict[str, Any]]:
        found = asking.rows_of(asked, answers, document, self.texts.chance, self.config.seed)
        return [{"network": self.name, "when": when, **row} for row in found]

    def _along(self, model: nn.Module, few: Asked) -> list[dict[str, Any]]:
        rows = self._rows(few, asking.ask(model, few), self._document(self.texts.known), "along")
        return [
            {k: row.get(k) for k in ("group", "exact_match", "hit", "hit_1")}
            for row in rows
            if row["attribute"] == "mean"
        ]

    def _asked(self, model: Any) -> dict[str, Any]:
        """Everybody, with the documents as in training, with those of the unseen added, with some exchanged, and with none."""
        texts, seed = self.texts, self.config.seed
        everybody, known = texts.asked(), texts.known
        before = asking.ask(model, everybody)
        if self.name == "bare":
            return {"rows": self._rows(everybody, before, self._document(known[:0]), "as trained")}
        rows = self._rows(everybody, before, self._document(known), "as trained")
        memory, embedding = model.memory, model.get_input_embeddings()
        made = Exchange.drawn(texts.data, texts.groups["test"], self.config.exchanged, seed)
        moved = [exchange(model, self.run, texts, made, everybody, before)]
        memory.add(texts.documents(texts.groups["unseen"]), embedding)
        added = asking.ask(model, everybody)
        rows += self._rows(everybody, added, self._document(np.concatenate([known, texts.groups["unseen"]])), "added")
        others = np.isin(everybody.subject, known)
        same = asking.alike(before, added)[others]
        moved.append(
            {"change": "documents added", "documents": len(texts.groups["unseen"])}
            | bootstrap.ranged(same, everybody.subject[others], seed, "same")
        )
        memory.clear()
        rows += self._rows(everybody, asking.ask(model, everybody), self._document(known[:0]), "emptied")
        return {"rows": rows, "changes": moved, "beta": [layer.beta.tolist() for layer in model.looking()]}

    def checked(self) -> None:
        """Raises UserError where rows do not fit the network or documents are fewer than it reads."""
        if (longest := self.texts.longest()) > self.config.model.context:
            raise UserError(
                f"model.context: {self.config.model.context} tokens are fewer than a row has ({longest}); raise it"
            )
        if len(self.texts.known) <= self.config.memory.top:
            raise UserError(
                f"memory.top: {self.config.memory.top} documents a row are to be read, and the memory would hold "
                f"{len(self.texts.known)}; take more subjects or a smaller top"
            )
        for name, members in self.texts.groups.items():
            if not len(members):
                raise UserError(f"unseen: nobody is left for the group {name}; take more subjects or another share")
