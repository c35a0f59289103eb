"""One dataset's way through a run: train on entries, finetune on questions, ask everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.core import models
from engramlab.core.text import batches
from engramlab.core.text.assembly import TokenTable
from engramlab.core.text.masking import Masked
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, evaluation_steps, finished
from engramlab.corpora.datasets import Dataset
from engramlab.experiments._run import Planned
from engramlab.experiments.knowledge_extraction.asking import Asker
from engramlab.experiments.knowledge_extraction.config import Attempt
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.experiments.knowledge_extraction.text import windows
from engramlab.files import records, writing
from engramlab.files.documents import documents
from engramlab.measuring import extraction

MEASURED = 50_000  # entries, and as many questions, whose length is compared with the context beforehand
TEXT_TOKENS = 200_000_000  # of unrelated text held in memory; a run that reads more repeats them in another order


class Part(Asker):
    """One dataset's way through the run: train on entries, finetune on questions, ask everybody."""

    def __init__(self, run: Run, data: Dataset) -> None:
        super().__init__(run, data)
        self.folder = run.folder / data.name
        self.length = min(self.config.model.context, run.about.context(self.config.model.context))
        self.text: batches.TokenRows | None = None

    def check(self) -> None:
        """Refuses, before any training, nobody to hold out and a context that cannot hold an entry or a question."""
        if not len(self.data.split.test):
            raise UserError(f"{self.data.name}: one subject cannot be split into two groups; there must be at least 2")
        for what, source in (("entry", self.entries), ("question", self.asking)):
            # All of a small corpus; of a large one so many that a longer entry is unlikely (training would refuse it then).
            sample = np.unique(np.linspace(0, len(source) - 1, MEASURED).astype(np.int64))
            parts = np.array_split(sample, -(-len(sample) // 4096))
            longest = max(int(source.tokens(part).lengths.max()) for part in parts) + len(self.run.start) + 1
            if longest > self.length:
                raise UserError(
                    f"model.context: {self.length} tokens are fewer than an {what} of {self.data.name} has ({longest}); "
                    "raise it"
                )
        if self.data.written.text:
            self.text = self._read_text()

    def planned(self) -> Iterator[Planned]:
        """The stages of this part."""
        config, name = self.config, self.data.name
        rows = self.length if config.layout == "packed" else _mean_length(self.entries)
        first = "mixed" if config.mode == "mixed" else "pretrain"
        yield Planned(f"{name} {first}", config.pretrain.steps, config.pretrain.batch, rows, self.run.outline)
        asked = _mean_length(self.asking)
        for stage, attempt in self._attempts() if first == "pretrain" else ():
            yield Planned(f"{name} {stage}", attempt.recipe.steps, attempt.recipe.batch, asked, self.run.outline)

    def _attempts(self) -> list[tuple[str, Attempt]]:
        """The finetunings of the grid and their stages' names."""
        attempts = self.config.finetune.attempts()
        return [("finetune" if len(attempts) == 1 else f"finetune-{k + 1}", one) for k, one in enumerate(attempts)]

    def _read_text(self) -> batches.TokenRows:
        """The unrelated text in rows as long as the entries' rows, so that a share of rows is a share of tokens too."""
        config = self.config
        if config.layout == "entries":
            sample = self.entries.tokens(np.unique(np.linspace(0, len(self.entries) - 1, 1000).astype(np.int64)))
            width = round(float(sample.lengths.mean()))
        else:
            width = self.length
        rows = config.pretrain.steps * config.pretrain.batch * self._beside_share
        needed = min(int(rows) + 1, TEXT_TOKENS // width) * width
        assert config.text is not None
        text = windows(self.run.tokenizer, documents(config.text, config.text_column), width, needed)
        if not len(text):
            raise UserError(f"text: {config.text} holds less than one row of {width} tokens; give more text")
        times = needed / (len(text) * width)
        if times > 1.5:
            self.run.say(
                f"{self.data.name}: {config.text} has {len(text) * width:,} tokens and is read {times:.1f} times"
            )
        return text

    def results(self) -> dict[str, Any]:
        """Trains and asks; returns final rows, training rows, the chosen finetuning, and the rows of all of a grid."""
        mixed = self.config.mode == "mixed"
        stage = "mixed" if mixed else "pretrain"
        trained = {stage: self._pretrain(stage)}
        best, settings = stage, {}
        grid: list[dict[str, Any]] = []
        if not mixed:
            for name, attempt in self._attempts():
                trained[name] = self._finetune(name, attempt)
                grid += [{"dataset": self.data.name, **attempt.settings, **row} for row in trained[name]["rows"]]
                if best == stage or _accuracy(trained[name]) > _accuracy(trained[best]):
                    best, settings = name, attempt.settings
            self._remove([name for name in trained if name not in (stage, best)])
        people = self.data.people
        start, asked = self.data.questions.subjects.start, self.config.asked_people
        chance = extraction.commonest(
            self.data.questions.population,
            self.data.questions.attributes,
            self.data.split.train + start,
            {name: members[:asked] + start for name, members in self.groups.items()},
        )
        rows = [
            {"dataset": self.data.name, "mode": f"masked {self.config.mode}" if self.run.masked else self.config.mode}
            | row
            | {"commonest": chance[row["group"], row["attribute"]]}
            | ({"people": people[row["group"]]} if people else {})
            for row in trained[best]["rows"]
        ]
        if self.run.accelerator.is_main_process:
            again = f"remove {self.folder / best} to do that part again"
            examples = records.read_record(self.folder / best / "examples.json", ("entries", "answers"), again)
            records.write_record(self.folder / "examples.json", examples)
        training = [
            {
                "dataset": self.data.name,
                "stage": name,
                **{k: r[k] for k in ("steps", "tokens", "loss", "seconds")},
                **{k: r[k] for k in ("next_token", "value_token") if k in r},
            }
            for name, r in trained.items()
        ]
        several = len(self._attempts()) > 1
        return {"rows": rows, "training": training, "best": settings, "grid": grid if several else []}

    def _remove(self, others: list[str]) -> None:
        """Models of the grid's other attempts go; their measurements stay."""
        if self.run.accelerator.is_main_process:
            writing.clear(*(self.folder / name / "model" for name in others))

    def _order(self, table: batches.Entries, purpose: str, subset: np.ndarray | None = None) -> batches.Order:
        return batches.Order(len(table), random_key(self.config.seed, purpose), subset=subset)

    def _train_questions(self) -> np.ndarray:
        return self.data.questions.entries(self.data.split.train + self.data.questions.subjects.start)

    def _pretrain(self, stage: str) -> dict[str, Any]:
        mixed = self.config.mode == "mixed"
        stream = self.mixed() if mixed else self._entries()
        return self._stage(stage, self.run.first_model, stream, self.config.pretrain, ask=mixed)

    def mixed(self) -> batches.Stream:
        """What mixed training reads: entries, and questions about P_train at their share (the paper's QA_r)."""
        config, run = self.config, self.run
        questions = self._order(self.asking, "questions", self._train_questions())
        asked = self._hidden(
            batches.Packed(self.asking, questions, end=run.end, length=self.length, answers_only=run.masked),
            "questions",
        )
        return self._mixed(self._entries(), asked, config.qa_ratio, config.seed)

    def _entries(self) -> batches.Stream:
        """What pretraining reads: the entries, with celebrities or text beside them at their share."""
        data = self.data
        if data.celebrities is not None:
            people = self._rows(self.entries, "entries", np.arange(data.celebrities))
            others = self._rows(self.entries, "celebrities", np.arange(data.celebrities, len(self.entries)))
        elif self.text is not None:
            people, others = self._rows(self.entries, "entries"), self._rows(self.text, "text")
        else:
            return self._rows(self.entries, "entries")
        return self._mixed(people, others, self._beside_share, random_key(self.config.seed, "beside"))

    @property
    def _beside_share(self) -> float:
        """Share of the rows that are not the people's: celebrities', or text."""
        given = self.config.text_share if self.data.written.text else None
        return 1 - self.config.minority_share if given is None else given

    def _rows(self, source: batches.Entries, purpose: str, subset: np.ndarray | None = None) -> batches.Stream:
        """Rows of training text in the run's layout."""
        run, order = self.run, self._order(source, purpose, subset)
        stream = batches.laid_out(self.config.layout, source, order, start=run.start, end=run.end, length=self.length)
        return self._hidden(stream, purpose)

    def _hidden(self, stream: batches.Stream, purpose: str) -> batches.Stream:
        """For a masked model the stream with words hidden (answers, if they are all that counts in it); else the stream."""
        run, config = self.run, self.config
        if not run.masked:
            return stream
        return Masked(
            stream,
            run.words,
            mask=run.tokenizer.mask_token_id,
            share=config.model.masked_words,
            answers=purpose == "questions",
            seed=random_key(config.seed, "masking", purpose),
        )

    def _mixed(self, first: batches.Stream, second: batches.Stream, ratio: float, seed: int) -> batches.Stream:
        return batches.Mixed(first, second, ratio=ratio, end=self.run.end, seed=seed)

    def _finetune(self, name: str, attempt: Attempt) -> dict[str, Any]:
        def pretrained() -> nn.Module:
            folder = self.folder / "pretrain"
            records.check_sealed(folder / "model", f"remove {folder} to do that part again")
            model, _ = models.load(str(folder / "model"))
            if not attempt.rank:
                return model
            return models.add_lora(model, rank=attempt.rank, embedding_rank=attempt.embedding_rank)

        run = self.run
        order = self._order(self.asking, "questions", self._train_questions())
        stream = batches.OneEntryARow(
            self.asking, order, start=run.start, end=run.end, length=self.length, answers_only=True
        )
        return self._stage(name, pretrained, self._hidden(stream, "questions"), attempt.recipe, ask=True)

    def _stage(
        self, name: str, make: Callable[[], nn.Module], stream: batches.Stream, recipe: Recipe, ask: bool
    ) -> dict[str, Any]:
        folder = self.folder / name
        if (record := finished(folder)) is not None:
            return record
        run, config, model = self.run, self.config, make()
        with Stage(
            folder,
            TrainState(model, recipe, accelerator=run.accelerator),
            stream,
            label=f"{self.data.name} {name}",
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", run.accelerator.process_index),
            console=run.console,
        ) as stage:
            at = evaluation_steps(recipe.steps, config.evaluations)
            for step in stage:
                if stage.main and step.number in at:
                    stage.add(self.along(model))
            if stage.main:
                stage.record |= self.ask(model, folder) if ask else {}
                stage.record |= {} if name.startswith("finetune") else self.tokens_right(model)
                records.write_sealed(folder / "model", lambda path: run.save(model, path))
        return stage.record


def _mean_length(table: TokenTable) -> float:
    """Tokens of its texts, on the average of a sample."""
    return float(table.tokens(np.unique(np.linspace(0, len(table) - 1, 1000).astype(np.int64))).lengths.mean())


def _accuracy(record: dict[str, Any]) -> float:
    """P_test accuracy of a finetuning: what the grid's best is chosen by, as in the paper."""
    return next(r["exact_match"] for r in record["rows"] if (r["group"], r["attribute"]) == ("test", "mean"))
