"""The work of a run: examples, the alignment of each arm, and what the block then does on edits that nobody trained."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.facts import Case
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import PROTOCOLS, ROLES, Row
from engramlab.core import models
from engramlab.core.deltas import Delta
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.editing import method
from engramlab.editing.benchmarks.world import apart
from engramlab.editing.cases import judged_together
from engramlab.editing.folders import precision
from engramlab.editing.folders.opening import load_model, require_in_weights
from engramlab.editing.judge import beside, evaluation
from engramlab.editing.judge.beyond import Beyond
from engramlab.editing.judge.evaluation import Before
from engramlab.editing.methods import lte
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.learning_to_edit.config import METHODS, TRAINED, Config, check
from engramlab.experiments.learning_to_edit.examples import INSTRUCTIONS, Rows, examples
from engramlab.files import records, writing
from engramlab.measuring.asking import MOST_NEW_TOKENS, Room, write

_DRAWS = 2000


class Alignment:
    """A run: what its arms share, and each arm.

    Raises:
        UserError: whatever can be found wrong before the model is loaded.
    """

    def __init__(self, config: Config, out: Path, preset: str, console: Any) -> None:
        check(config)
        self.config = config
        require_in_weights("model", config.model)
        self.run = Run("learning-to-edit", config, out, preset=preset, console=console)
        about = models.about(config.model)
        if about.from_scratch:
            raise UserError(
                f"model: {config.model!r} is a size; name a model that exists: it is to read what it is told"
            )
        if about.objective != "causal":
            raise UserError(f"model: {config.model} is a masked language model; name a causal one")
        training, tested = apart(config.seed, config.countries, config.test_share)
        self.training, self.tested = training[: config.training_cases], tested[: config.test_cases]
        self.tokenizer, self.length = models.load_tokenizer(config.model), about.context(4096)
        steps = self._steps(6 * len(self.training))
        self.run.stages = [Planned(name, steps, config.batch, 60.0) for name in config.trained]

    def _steps(self, rows: int) -> int:
        return max(1, math.ceil(self.config.epochs * rows / self.config.batch))

    def fresh(self) -> nn.Module:
        """The model as it was."""
        return load_model(self.config.model)[0].to(self.run.accelerator.device)

    @cached_property
    def before(self) -> dict[str, Any]:
        """What the untouched model says to instructions and to what the tests ask; made once, then read."""
        folder = self.run.folder / "before"
        if not (folder / "done.json").exists() and self.run.main:
            writing.write_folder(folder, self._look)
        self.run.accelerator.wait_for_everyone()
        again = f"remove {folder} to ask again"
        found = records.read_record(folder / "done.json", ("answers", "precision", "seconds"), again)
        rows = records.read_rows(folder / "rows.parquet", ("prompt", "asked", "written", "new_tokens"), again)
        return {**found, "said": Before.of(rows)}

    def _look(self, path: Path) -> None:
        began, model = time.monotonic(), self.fresh()
        written = write(model, self.tokenizer, INSTRUCTIONS, Room(MOST_NEW_TOKENS))
        with ProgressBar("answers before", 1, console=self.run.console) as bar:
            said = evaluation.before(model, self.tokenizer, self.tested, progress=bar.to)
        records.write_rows(path / "rows.parquet", said.rows())
        self._beside(path, lambda: (model, self.tokenizer))
        found: dict[str, Any] = {"answers": dict(zip(INSTRUCTIONS, written, strict=True))}
        found |= {"precision": precision.chosen(model, self.config.model)}
        records.write_record(path / "done.json", found | {"seconds": round(time.monotonic() - began, 2)})

    def _beside(self, path: Path, load: Callable[[], tuple[nn.Module, Any]]) -> tuple[Beyond, dict[str, float]]:
        """What is measured beside answers, and the tasks' scores, of the untouched model; found once, then read."""
        config = self.config
        beyond = beside.unedited(path / "beyond.json", config, load, self.tested, config.seed)
        return beyond, beside.scored_before(path / "tasks.json", config, load)

    def rows(self, arm: str) -> Rows:
        """What an arm trains on.

        Raises:
            UserError: a row that does not fit the model's context.
        """
        found = examples(self.training, self.before["answers"], self.config.seed)
        if arm == "no-out-of-scope":
            found = [example for example in found if example.kind == "in-scope"]
        made = Rows.of(found, self.tokenizer, twins=arm != "no-twins")
        if made.longest > self.length:
            raise UserError(f"model: an example of {made.longest} tokens does not fit its context of {self.length}")
        return made

    def results(self, name: str) -> dict[str, Any]:
        """An arm's record, made or read."""
        folder = self.run.folder / name / "train"
        if (record := finished(folder)) is not None:
            return record
        if name in TRAINED:
            return self._train(name, folder)
        if self.run.main:
            began = time.monotonic()
            found: dict[str, Any] = {"steps": 0, "tokens": 0, "loss": None, **self._judged(self.fresh(), name)}
            found["seconds"] = round(time.monotonic() - began, 2)
            records.write_record(folder / "done.json", {**found, "metrics": 0})
        self.run.accelerator.wait_for_everyone()
        record = finished(folder)
        assert record is not None
        return record

    def _train(self, name: str, folder: Path) -> dict[str, Any]:
        config, run, rows = self.config, self.run, self.rows(name)
        steps = self._steps(len(rows.entries))
        seed, rank = random_key(config.seed, "lora") >> 1, config.rank
        model = models.add_lora(self.fresh(), rank=rank, alpha=2 * rank, projections=config.projections, seed=seed)
        recipe = Recipe(
            steps=steps,
            batch=config.batch,
            learning_rate=config.learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            warmup=max(1, round(0.03 * steps)),
            schedule="cosine",
            final=0.0,
        )
        place = run.accelerator
        with Stage(
            folder,
            TrainState(model, recipe, accelerator=place),
            rows.stream(random_key(config.seed, "rows"), self.length),
            label=name,
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", place.process_index),
            console=run.console,
        ) as stage:
            for _ in stage:
                pass
            if stage.main:
                whole = precision.rounded(model.merge_and_unload(), self.before["precision"])  # type: ignore[operator]
                setattr(whole.config, lte.ALIGNED, "lte")
                judged = self._judged(whole, name)
                if name == config.trained[0]:
                    self._save(whole, run.folder / "model")
                stage.record |= judged
        return stage.record

    def _save(self, model: nn.Module, folder: Path) -> None:
        def put(path: Path) -> None:
            models.save(model.to(getattr(torch, self.before["precision"])), self.tokenizer, path)

        records.write_sealed(folder, put)

    def _judged(self, model: nn.Module, name: str) -> dict[str, Any]:
        """Scores of an arm at every count, what was measured beside them (at count 0 of a trained model without edits), and how
        many unedited answers its training has left as they were."""
        untouched: Before = self.before["said"]
        mine = untouched
        if name in TRAINED:  # what an edit changes is told from the aligned model without a block
            with ProgressBar(f"answers, {name}, no edit", 1, console=self.run.console) as bar:
                least = untouched.new_tokens
                mine = evaluation.before(model, self.tokenizer, self.tested, least=least, progress=bar.to)
        scores, every, moved, tasks = [], [], list[Row](), list[Row]()
        beyond, known = self._beside(self.run.folder / "before", lambda: (self.fresh(), self.tokenizer))

        def note(count: int, measured: Sequence[Row], scored: Sequence[Row]) -> None:
            about = {"arm": name, "count": count}
            moved.append({**about, "cases": len(measured), **beside.means(measured, self.config.seed)})
            tasks.extend({**about, **row, "before": known.get(row["task"])} for row in scored)

        if name in TRAINED:
            measured = beyond.measured(model, self.tokenizer, self.tested)
            note(0, measured, beside.scored(self.config, model, self.tokenizer))
        for count in self._counts:
            groups, made = self._edited(model, name, count)
            own = [delta for group, delta in zip(groups, made, strict=True) for _ in group]
            cases = [case for group in groups for case in group]
            with ProgressBar(f"answers, {name}, {count} edits in a memory", 1, console=self.run.console) as bar:
                rows = evaluation.judge(model, self.tokenizer, cases, mine, deltas=own, progress=bar.to)
            under = beside.scored(self.config, model, self.tokenizer, made[0]) if count > 1 else []
            note(count, beyond.under(model, self.tokenizer, groups, made), under)
            every += [{"count": count, **row} for row in rows]
            scores += self._scores(rows, name, count)
        records.write_rows(self.run.folder / name / "rows.parquet", every)
        found: dict[str, Any] = {"scores": scores, "beside": moved, "tasks": tasks}
        if name in TRAINED:
            alike = [float(untouched.written[prompt] == text) for prompt, text in mine.written.items()]
            found["kept"] = {"arm": name, "prompts": len(alike), **self._share(np.array(alike))}
        return found

    @cached_property
    def _counts(self) -> list[int]:
        """How many edits stand in a memory; more than there are test cases cannot, which is said."""
        counts = sorted(set(self.config.counts))
        if over := [str(count) for count in counts if count > len(self.tested)]:
            self.run.say(f"counts: {', '.join(over)} left out, for there are {len(self.tested)} test cases")
        return [count for count in counts if count <= len(self.tested)]

    def _edited(self, model: nn.Module, name: str, count: int) -> tuple[list[list[Case]], list[Delta]]:
        """All test cases, so many edits in a memory at a time, and each memory's edit: the last one is filled up with the first
        cases, which are not judged again."""
        how = METHODS.get(name, "lte")
        config = lte.Config(facts=self.config.facts) if how == "lte" else None
        starts = range(0, len(self.tested), count)
        groups = [(self.tested * 2)[start : start + count] for start in starts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the untouched model was not trained on blocks is known here
            joint = [[edit for case in group for edit in case.edits] for group in groups]
            made = method.make_each(model, self.tokenizer, joint, method=how, config=config)
        deltas: list[Delta] = []
        for delta in made:
            if isinstance(delta, method.EditFailed):
                raise delta
            deltas.append(delta)
        judged = [
            judged_together(group)[: len(self.tested) - start] for start, group in zip(starts, groups, strict=True)
        ]
        return judged, deltas

    def _scores(self, rows: Sequence[Row], name: str, count: int) -> list[Row]:
        """By protocol and role: the mean over cases with its interval, and the share of queries behind their own edit."""
        found = []
        for protocol in PROTOCOLS:
            for role in ROLES:
                some = [row for row in rows if row["role"] == role]
                values = _by_case(some, protocol)
                if len(values):
                    recall = _by_case(some, "recalled")
                    about = {"arm": name, "count": count, "protocol": protocol, "role": role, "cases": len(values)}
                    found.append(
                        about | self._share(values) | {"recall": float(recall.mean()) if len(recall) else None}
                    )
        return found

    def _share(self, values: np.ndarray) -> dict[str, float]:
        cloud = bootstrap.times(bootstrap.draws(len(values), _DRAWS, self.config.seed)) @ values / len(values)
        low, high = bootstrap.interval(cloud)
        return {"share": float(values.mean()), "low": low, "high": high}


def _by_case(rows: Sequence[Row], name: str) -> np.ndarray:
    """Means over each case's queries, of those that were measured."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(name) is not None:
            values.setdefault(str(row["case"]), []).append(float(row[name]))
    return np.array([np.mean(of) for of in values.values()])
