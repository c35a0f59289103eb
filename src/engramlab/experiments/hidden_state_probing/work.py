"""One model's way through a probing run: its tasks, Q-probing, P-probing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as random_key
from engramlab.core.models import mask_token
from engramlab.core.text import tokens
from engramlab.core.text.assembly import TokenTable
from engramlab.core.training.stage import finished
from engramlab.corpora.datasets import halved
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.hidden_state_probing.config import Config
from engramlab.experiments.hidden_state_probing.targets import ProbedModel
from engramlab.probing import p_probing, q_probing
from engramlab.probing.accuracy import accuracies
from engramlab.probing.classifier import check_layer
from engramlab.probing.examples import NOWHERE, UNKNOWN, Tasks, tasks_of
from engramlab.probing.examples import ProbeTarget as Asked
from engramlab.probing.fitting import fit

SUBJECTS_AT_ONCE = 20_000


class Part:
    """One model and its texts."""

    config: Config

    def __init__(self, run: Run, target: ProbedModel) -> None:
        self.run, self.config, self.target = run, run.config, target
        self.folder = run.folder / target.name
        self.data, split = halved(target.data, run.config.seed)
        self.is_train = split.is_train(np.arange(split.subjects))
        if self.is_train.all():
            raise UserError(f"{target.name}: one subject cannot be split into two groups; there must be at least 2")

    def planned(self) -> Iterator[Planned]:
        """The probings of this model."""
        for name in self.config.probes:
            recipe = getattr(self.config, name.lower()).recipe
            yield Planned(f"{self.target.name} {name}-probing", recipe.steps, recipe.batch)

    def results(self) -> dict[str, Any]:
        """Probes what is not done yet: rows, closer rows, skipped tasks and one training row a probe."""
        records: dict[str, dict[str, Any]] = {}
        wanted = [name.lower() for name in self.config.probes]
        for name in wanted:
            if (record := finished(self.folder / name)) is not None:
                records[name] = record
        if len(records) < len(wanted):
            self.model, self.tokenizer = self.target.load()
            for name in wanted:
                check_layer(self.model, getattr(self.config, name).layer)
            tasks = self._tasks()
            if not len(tasks):
                why = "; ".join(f"{s['target']} of {s['attribute']}: {s['reason']}" for s in tasks.skipped)
                raise UserError(f"{self.target.name}: there is nothing to probe ({why})")
            for name in wanted:
                if name not in records:
                    records[name] = self._q(tasks) if name == "q" else self._p(tasks)
            del self.model
        return self._collect(records)

    def _collect(self, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
        data, mode = self.target.data, self.target.mode
        about = {"model": self.target.model, "dataset": data.name, "part": self.target.name, "mode": mode}
        asked = self.target.extraction or {}
        rows = []
        for name, record in records.items():
            for row in record["rows"]:
                extraction = asked.get(row["attribute"], {}).get(row["target"])
                rows.append({**about, "probe": name.upper(), **row, "extraction": extraction})
        return {
            "rows": rows,
            "closer": [{**about, **row} for record in records.values() for row in record.get("closer", ())],
            "skipped": [{**about, **row} for row in next(iter(records.values()))["skipped"]],
            "training": [
                {**about, "stage": name, **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
                for name, record in records.items()
            ],
        }

    def _tasks(self) -> Tasks:
        """First tokens and whole values of every attribute, by subject."""
        questions = self.data.questions
        subjects = np.arange(questions.subjects.start, questions.subjects.stop)
        attributes = range(len(questions.attributes))
        asking = TokenTable(questions, self.tokenizer)
        first = []
        for part in np.array_split(subjects, -(-len(subjects) // SUBJECTS_AT_ONCE)):
            entries = questions.entries(part)
            texts, asked = asking.tokens(entries), questions.attribute(entries)
            wanted = np.repeat(asked + 1, texts.lengths)
            row = np.repeat(np.arange(len(texts)), texts.lengths)
            value = np.flatnonzero(texts.marks == wanted)
            _, begins = np.unique(row[value], return_index=True)
            found = np.full((len(part), len(attributes)), UNKNOWN, np.int64)
            found[np.searchsorted(part, questions.subject(entries)), asked] = texts.ids[value[begins]]
            first.append(found)
        firsts = np.concatenate(first)
        whole = [
            np.unique(questions.population.value_pieces(a, subjects), axis=0, return_inverse=True)[1].ravel()
            for a in attributes
        ]
        values: dict[Asked, np.ndarray] = {
            "first": firsts,
            "whole": np.where(firsts == UNKNOWN, UNKNOWN, np.stack(whole, axis=1)),
        }
        tasks = tasks_of(
            questions.attributes,
            values,
            self.is_train,
            first_only=self.config.first_only,
            controls=self.config.controls,
            seed=self.config.seed,
        )
        for left in tasks.skipped:
            self.run.say(f"{self.target.name}: skipped the {left['target']} of {left['attribute']}: {left['reason']}")
        return tasks

    def _q(self, tasks: Tasks) -> dict[str, Any]:
        config, population = self.config, self.data.questions.population
        names = [population.name(s) for s in self.data.questions.subjects]
        at = config.at if mask_token(self.model) is None else config.masked_at
        examples = q_probing.examples(self.tokenizer, names, config.prompt, at)
        train, test = np.flatnonzero(self.is_train), np.flatnonzero(~self.is_train)
        return self._fit("q", tasks, examples, train, test)

    def _p(self, tasks: Tasks) -> dict[str, Any]:
        corpus, start = self.data.corpus, self.data.questions.subjects.start
        entries = np.arange(len(corpus))
        subjects = corpus.subject(entries) - start
        asked = (subjects >= 0) & (subjects < len(self.is_train))  # not the celebrities
        entries, subjects = entries[asked], subjects[asked]
        train, test = entries[self.is_train[subjects]], entries[~self.is_train[subjects]]
        if len(test) > self.config.test_entries:
            rng = np.random.default_rng(random_key(self.config.seed, "test entries"))
            test = np.sort(rng.choice(test, self.config.test_entries, replace=False))
        chosen = np.concatenate([train, test])
        texts = TokenTable(corpus, self.tokenizer).tokens(chosen).wrapped(tokens.start_tokens(self.tokenizer), [])
        examples, order = p_probing.examples(texts, corpus.subject(chosen) - start, corpus.attributes, self.target.name)
        return self._fit("p", tasks, examples, np.arange(len(train)), np.arange(len(train), len(chosen)), order)

    def _fit(
        self,
        name: str,
        tasks: Tasks,
        examples: Any,
        train: np.ndarray,
        test: np.ndarray,
        order: np.ndarray | None = None,
    ) -> dict[str, Any]:
        subjects, there = examples.subjects[test], examples.places[test] != NOWHERE

        def finish(predicted: np.ndarray) -> dict[str, Any]:
            record = {
                "rows": accuracies(
                    tasks, predicted, subjects, np.flatnonzero(self.is_train), there=there, seed=self.config.seed
                ),
                "skipped": tasks.skipped,
            }
            if order is None:
                for row in record["rows"]:
                    row["position"] = None
            elif self.data.written.pairs:  # closer P-probing has something to show
                attributes = self.data.corpus.attributes
                record["closer"] = p_probing.closer(tasks, predicted, subjects, order[test], attributes, there)
            return record

        record = fit(
            self.folder / name,
            self.model,
            examples,
            tasks,
            getattr(self.config, name),
            train=train,
            test=test,
            accelerator=self.run.accelerator,
            finish=finish,
            label=f"{self.target.name} {name.upper()}-probing",
            seed=self.config.seed,
            minutes_between_checkpoints=self.config.checkpoint_minutes,
            console=self.run.console,
        )
        for k in record.get("failed", ()):
            self.run.say(
                f"{self.target.name}: the loss of {name.upper()}-probing the {tasks.tasks[k].name} became NaN or infinite and "
                f"its training stopped there; lower --{name}.recipe.learning-rate"
            )
        return record
