"""Every way of reading with identifiers: its documents, its training, and what its model then names."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.core import models
from engramlab.core.forward.tries import beam
from engramlab.core.text import batches
from engramlab.core.text.tokens import Sequences, encode, end_token, start_tokens
from engramlab.core.training.cost import like
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.documents import of_people, to_jsonl
from engramlab.editing.folders.opening import require_in_weights
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.source_attribution import text
from engramlab.experiments.source_attribution.config import Arm, Config, check
from engramlab.experiments.source_attribution.judging import rows_of
from engramlab.experiments.source_attribution.text import HELD, OUT, TRAINED
from engramlab.files import records, writing
from engramlab.files.documents import documents as running_text
from engramlab.measuring import citing
from engramlab.measuring.answers import exact_match, f1
from engramlab.measuring.citing import Citer, Form, Sources
from engramlab.measuring.scoring import nats, score
from engramlab.reading.attributed import read_documents, with_questions

OTHER_TEXTS = 200  # of another text, that what is lost is measured on


class Attribution:
    """What all arms of a run share, and the arms.

    Raises:
        UserError: whatever can be found wrong before a model is loaded.
    """

    def __init__(self, config: Config, out: Path, preset: str, console: Any) -> None:
        check(config)
        self.config = config
        require_in_weights("model", config.model)
        self.about = models.about(config.model)
        if not self.about.from_scratch and self.about.objective != "causal":
            raise UserError(f"model: {config.model} is a masked language model; name a causal one")
        self.letters = config.sources is None and config.ids == "random"
        self.documents = self._documents()
        self.every = text.grouped(config, self.documents)
        self.asked = text.chosen(config, self.every)
        inside = {one.document for one in self.every if one.group == TRAINED}
        self.inside = np.isin(np.arange(len(self.documents)), [*inside])
        self.run = Run("source-attribution", config, out, preset=preset, console=console)
        if self.about.from_scratch:
            self.tokenizer = self.run.scratch_tokenizer(self._texts, config.vocabulary, chosen=config.tokenizer)
        else:
            self.tokenizer = self.run.kept = models.load_tokenizer(config.model)
        citing.add_tokens(self.tokenizer, self.letters)
        self.start, self.end = start_tokens(self.tokenizer), end_token(self.tokenizer)
        self.length = self.about.context(config.context)
        self.ids = [document.id for document in self.documents]
        citing.tree(self.tokenizer, self.ids, self.letters)  # are they told apart?
        self._check_lengths()
        self.plain = text.plain_rows(self.tokenizer, self.documents)
        self.unread = text.plain_rows(self.tokenizer, text.unread(config, self.documents))
        self.other = self._other_text()

    def _documents(self) -> list[Any]:
        config = self.config
        if config.sources is None:
            return of_people(
                config.documents,
                config.seed,
                people=config.people,
                facts=config.facts,
                ids=config.ids,
                pools=config.pools,
                templates=config.templates,
            )
        found = read_documents(config.sources)
        return found if config.questions is None else with_questions(found, config.questions)

    def _texts(self) -> list[str]:
        """What a compact tokenizer learns from."""
        form = self.form(False)
        asked = [f"{form.prompt(one.question.text)} {one.question.answer} {citing.SEPARATOR}" for one in self.every]
        return [*(document.text for document in self.documents), *asked, *([] if self.letters else self.ids)]

    def _other_text(self) -> Sequences | None:
        if self.config.text is None:
            return None
        found = list(islice(running_text(str(self.config.text), self.config.text_column, by_line=True), OTHER_TEXTS))
        rows = [ids[: self.length - len(self.start)] for ids in encode(self.tokenizer, found)[0] if len(ids) > 1]
        if not rows:
            raise UserError(f"text: {self.config.text} holds no text of two tokens or more")
        return Sequences.of(rows)

    def form(self, thought: bool) -> Form:
        """How questions are put."""
        return Form(self.config.instruction, thought, self.letters)

    def _check_lengths(self) -> None:
        around = len(self.start) + 1
        for strategy in self.config.strategies:
            rows = text.document_rows(self.tokenizer, self.documents, Arm(strategy, 1), self.letters, 0)
            text.check_length(rows, self.ids, around, self.length, "document")
        for thought in {arm.thought for arm in self.config.arms()}:
            questions = text.question_rows(self.tokenizer, self.documents, self.every, self.form(thought))
            named = [one.question.text for one in self.every]
            text.check_length(questions, named, around + 4, self.length, "question")

    @cached_property
    def new(self) -> dict[bool, int]:
        """Most tokens of an answer, without and with the rest of a document behind it."""
        answers = encode(self.tokenizer, [f" {one.question.answer} {citing.SEPARATOR}" for one in self.every])[0]
        longest = max(map(len, answers)) + 2
        return {False: longest, True: longest + int(self.plain.lengths.max())}

    def planned(self) -> list[Planned]:
        """The stages, arm by arm."""
        found = []
        for arm in self.config.arms():
            for name, recipe in self._stages():
                length = float(self.plain.lengths.mean()) + len(self.start) + 1
                found.append(Planned(f"{arm.name} {name}", recipe.steps, recipe.batch, length, self.outline))
        return found

    def _stages(self) -> list[tuple[str, Recipe]]:
        config = self.config
        return (
            [("mixed", config.read)] if config.mode == "mixed" else [("read", config.read), ("answer", config.answer)]
        )

    def outline(self) -> nn.Module:
        """A model of that shape, with random weights."""
        return self.first_model() if self.about.from_scratch else like(self.config.model)

    def first_model(self) -> nn.Module:
        """The model that training starts from."""
        config = self.config
        if self.about.from_scratch:
            return self.run.fresh_model(config.model, self.tokenizer, family=config.family, context=config.context)
        return citing.grow(models.load(config.model)[0], self.tokenizer)

    def said(self) -> str:
        """A line about what is trained."""
        counts = {group: sum(one.group == group for one in self.every) for group in (TRAINED, HELD, OUT)}
        return (
            f"{len(self.documents):,} documents, {int(self.inside.sum()):,} of them with trained questions; questions: "
            + ", ".join(f"{count:,} {group}" for group, count in counts.items())
        )

    def write_documents(self) -> None:
        """The documents, for the user and for whoever reads them again."""
        if self.run.main:
            marked = [replace(d, in_domain=bool(i)) for d, i in zip(self.documents, self.inside, strict=True)]
            writing.write_text(self.run.folder / "documents.jsonl", to_jsonl(marked))

    # an arm ---------------------------------------------------------------------------------------------------------------

    def results(self, arm: Arm) -> dict[str, Any]:
        """An arm's record: rows, what its texts cost, and its training; made or read."""
        folder, training = self.run.folder / arm.name, []
        make, record = self.first_model, {}
        for name, recipe in self._stages():
            last = name != "read"
            record = self._trained(arm, folder / name, make, recipe, last)
            training.append(
                {"dataset": arm.name, "stage": name} | {k: record[k] for k in ("steps", "tokens", "loss", "seconds")}
            )
            make = self._loader(folder / name / "model")
        if self.run.main:
            writing.clear(folder / "read" / "model")
        return {"rows": record["rows"], "texts": record["texts"], "training": training}

    def _loader(self, folder: Path) -> Callable[[], nn.Module]:
        def load() -> nn.Module:
            records.check_sealed(folder, f"remove {folder.parent} to do that part again")
            return models.load(str(folder))[0]

        return load

    def _trained(
        self, arm: Arm, folder: Path, make: Callable[[], nn.Module], recipe: Recipe, last: bool
    ) -> dict[str, Any]:
        if (record := finished(folder)) is not None:
            return record
        run, config = self.run, self.config
        model = make()
        with Stage(
            folder,
            TrainState(model, recipe, accelerator=run.accelerator),
            self.stream(arm, folder.name),
            label=f"{arm.name} {folder.name}",
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", run.accelerator.process_index),
            console=run.console,
        ) as stage:
            for _ in stage:
                pass
            if stage.main:
                sources = Sources(self.form(arm.thought), self._shown(), self.new[arm.thought])
                if last:
                    stage.record |= self._judged(model, arm, sources, folder)

                def save(path: Path) -> None:
                    models.save(model, self.tokenizer, path)
                    sources.save(path)

                records.write_sealed(folder / "model", save)
        return stage.record

    def _shown(self) -> dict[str, str]:
        return {document.id: document.text for document in self.documents}

    def stream(self, arm: Arm, stage: str) -> batches.Stream:
        """What a stage reads: documents, questions, or rows of both."""
        config = self.config
        if stage == "answer":
            return self._questions(arm)
        rows = text.document_rows(self.tokenizer, self.documents, arm, self.letters, config.seed)
        read = self._rows(rows, "documents", False)
        if stage == "read":
            return read
        seed = random_key(config.seed, "mixed")
        return batches.Mixed(read, self._questions(arm), ratio=config.question_share, end=self.end, seed=seed)

    def _questions(self, arm: Arm) -> batches.Stream:
        trained = [one for one in self.every if one.group == TRAINED]
        rows = text.question_rows(self.tokenizer, self.documents, trained, self.form(arm.thought))
        return self._rows(rows, "questions", True)

    def _rows(self, rows: Sequences, purpose: str, answers: bool) -> batches.Stream:
        order = batches.Order(len(rows), random_key(self.config.seed, purpose))
        return batches.OneEntryARow(
            batches.TokenRows(rows), order, start=self.start, end=self.end, length=self.length, answers_only=answers
        )

    # what came of it ------------------------------------------------------------------------------------------------------

    def _judged(self, model: nn.Module, arm: Arm, sources: Sources, folder: Path) -> dict[str, Any]:
        began = time.monotonic()
        citer = Citer(model, self.tokenizer, sources)
        questions = [one.question.text for one in self.asked]
        gold = np.array([one.document for one in self.asked])
        said = citing.answered(model, self.tokenizer, sources.form, questions, new=sources.new)
        golden = [one.question.answer for one in self.asked]
        right = np.array([exact_match(a, [b]) for a, b in zip(said.answers, golden, strict=True)])
        own = self._scores(citer, said.before, f"{arm.name}, citing")
        given, wrong = own.copy(), np.flatnonzero(~right)
        if len(wrong):
            rests = [self.documents[gold[i]].rest(self.asked[i].question) for i in wrong]
            behind = citing.told(
                self.tokenizer, sources.form, [questions[i] for i in wrong], [golden[i] for i in wrong], rests
            )
            given[wrong] = self._scores(citer, behind.before, f"{arm.name}, told the answer")
        overlap = np.array([f1(a, [b]) for a, b in zip(said.answers, golden, strict=True)])
        rows = rows_of(arm, self.asked, self.ids, self.inside, right, overlap, own, given, self.config.seed)
        best = own.argmax(1)
        rank = (own > np.take_along_axis(own, gold[:, None], 1)).sum(1)
        answers = [
            {"group": one.group, "question": one.question.text, "gold": one.question.answer, "answer": answer}
            | {"right": bool(r), "source": self.ids[g], "named": self.ids[b], "rank": int(k)}
            for one, answer, r, g, b, k in zip(self.asked, said.answers, right, gold, best, rank, strict=True)
        ]
        records.write_rows(folder / "answers.parquet", answers)
        return {"rows": rows, "texts": self._lost(model, arm), "asking_seconds": round(time.monotonic() - began, 2)}

    def _scores(self, citer: Citer, before: Sequence[Sequence[int]], label: str) -> np.ndarray:
        width = self.config.beams
        with ProgressBar(label, len(before), console=self.run.console) as bar:
            if not width:
                return citer.scores(before, lambda done, total: bar.update(done))
            found = np.full((len(before), len(self.ids)), -np.inf)
            for i, row in enumerate(before):
                for k, logprob in beam(citer.model, row, citer.trie, width):
                    found[i, k] = logprob
                bar.update(i + 1)
            return found

    def _lost(self, model: nn.Module, arm: Arm) -> Row:
        """Recital of what was read, and nats a token of texts without identifiers."""
        wrapped = self.plain.wrapped(self.start, [])
        recital = score(model, wrapped).greedy if wrapped.marks.any() else np.zeros(0)
        texts = {"read": self.plain, "unread": self.unread, "other": self.other}
        lost = {name: nats(model, rows, self.start) for name, rows in texts.items() if rows is not None and len(rows)}
        return {"dataset": arm.name, "recital": float(recital.mean()) if len(recital) else None, **lost}

    def finish(self, found: dict[str, dict[str, Any]]) -> str:
        """The arm that names the right source most often for questions about documents none of whose was trained; its model
        is kept as the run's."""
        best = max(
            found,
            key=lambda name: next(r["hits1"] for r in found[name]["rows"] if (r["group"], r["ids"]) == (OUT, "all")),
        )
        if self.run.main:
            stage = self._stages()[-1][0]
            kept = self.run.folder / "model"
            if not kept.exists():
                source = self.run.folder / best / stage / "model"
                records.check_sealed(source)
                records.write_sealed(kept, lambda path: shutil.copytree(source, path, dirs_exist_ok=True))
            if self.config.keep == "best":
                writing.clear(*(self.run.folder / name / stage / "model" for name in found))
        self.run.accelerator.wait_for_everyone()
        return best
