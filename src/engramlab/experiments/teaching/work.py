"""Each way of putting the facts in: what it trains, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.facts import Edit, Fact
from engramlab.base.likeness import WordIndex
from engramlab.base.progress import clock, progress_bars, size
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.core import models
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.cost import cost
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.editing.folders import precision
from engramlab.editing.folders.opening import load_model
from engramlab.editing.method import EditFailed
from engramlab.experiments.teaching import asking, pilot, replaying
from engramlab.experiments.teaching.config import ARMS, FINISH, Arm
from engramlab.experiments.teaching.documents import DocumentTable, some_of
from engramlab.experiments.teaching.school import School
from engramlab.experiments.teaching.text import Lesson, lesson
from engramlab.files import records, writing
from engramlab.measuring.audit.classes import kept, kept_facts

SLACK = 1.05  # steps that a lesson may take beyond those reckoned, as rows come by chance
_UNTESTED = """# {model}, taught by engramlab

`{arm}` taught it {facts}. What the run says of it was measured before its last training, which was on the questions
about the other half of the subjects too (`--finish`).

**What that training gave or took is untested**: nobody is left whose questions were never trained. The same run without
`--finish` keeps the model that was measured.
"""


class Teaching(School):
    """Each way of putting the facts in, and what came of it."""

    _last: tuple[tuple[Arm, bool], Lesson] | None = None

    def lesson(self, arm: Arm, everybody: bool = False) -> Lesson:
        """The rows of an arm; ``everybody``: with the questions about all subjects. The last ones made are kept: of millions of
        facts they take minutes, and one training asks for them several times."""
        if self._last is None or self._last[0] != (arm, everybody):
            self._last = None  # first, so that two are never held
            a, b = self.halves
            made = self._rows_of(arm, self.taught, self.facts_of(a | b if everybody else a), self.replayed)
            self._last = (arm, everybody), made
        return self._last[1]

    def _rows_of(self, arm: Arm, table: Any, asked: Sequence[Fact], replay: Sequences | None) -> Lesson:
        """The rows of an arm about the facts of a table, with the questions about those asked."""
        texts = self.texts if arm.varied else None
        return lesson(arm, self.config, table, self.words, asked, replay, self.tokenizer, self.length, texts)

    @cached_property
    def replayed(self) -> Sequences | None:
        """Rows that the arms replay: where a pilot says that more is read than was reckoned, with further texts by the model,
        so that none is read again and again. All processes of a launch ask for it, or none."""
        rows, config = self.replay[0], self.config
        if rows is None or not config.pilot or config.replay != "self" or config.replay_texts is not None:
            return rows
        read = self.planned_rows(config.trained[0], self.chosen["encounters"], len(self.taught.subjects))
        wanted = replaying.wanted(read * config.replay_share)
        if wanted <= len(rows):
            return rows
        path = self.run.folder / "pilot" / "replay.json"
        self.by_main(lambda: self._write_more(path, wanted - len(rows)), unless=path)
        more = self.replaying.as_rows(records.read_record(path, ("texts",))["texts"])
        return Sequences.of([some.row(i).tolist() for some in (rows, more) for i in range(len(some))])

    def _write_more(self, path: Path, texts: int) -> None:
        sampled, left_out = self.replaying.sampled(self.fresh(), self.stated, self.run, texts, "behind the pilot")
        records.write_record(path, {"texts": sampled, "left_out": left_out})

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The learning rate and the texts a subject, as given or as the pilot finds, and what it found."""
        config = self.config
        given = {"rate": config.rate, "encounters": config.encounters}
        if not config.pilot or not config.trained:
            return given
        tried = [self._try(config.rate * factor, pilot.LOOKS) for factor in pilot.FASTER]
        best = pilot.best_rate(tried, config.drift_limit)
        rate = config.rate if best is None else best["rate"]
        longer = self._try(rate, pilot.LONGER)
        gains, written = np.array(longer["gains"]), np.array(longer["written"], dtype=bool)
        found = pilot.encounters(longer["looks"], gains, written, longer["subjects"], config.seed)
        rows = [{name: row[name] for name in ("rate", "gain", "drift", "share")} for row in tried]
        texts = found.pop("encounters") or config.encounters
        return {"rate": rate, "encounters": texts, "tried": rows, "drifted": best is None, **found}

    def _try(self, rate: float, looks: Sequence[int]) -> dict[str, Any]:
        """One try of the pilot: ``gains`` and ``written`` of answers about subjects whose questions are not trained, at
        each look. One at each of three rates then lets the rate fall, and its ``gain``, ``share`` and ``drift`` are of the
        end."""
        config = self.config
        folder = self._tried(rate, looks)
        if (record := finished(folder)) is not None:
            return record
        some = [sorted(half)[: -(-pilot.size(len(self.taught.subjects)) // 2)] for half in self.halves]
        table = some_of(self.taught, [fact for fact in self.taught if fact.subject in {*some[0], *some[1]}])
        arm, asked = ARMS[config.trained[0]], [fact for fact in table if fact.subject in some[0]]
        rows = self._rows_of(arm, table, asked, self.replay[0])
        unasked = [fact for fact in table if fact.subject in some[1]][: config.watched_facts]
        examiner = asking.Examiner({"unasked": asking.Group(unasked, self.words)}, self.tokenizer)
        at = {look: max(1, math.ceil(look * len(table.subjects) / rows.about() / config.batch)) for look in looks}
        model = self.prepared(self.fresh())
        steps, schedule = at[looks[-1]], "constant"
        if looks == pilot.LOOKS:
            steps, schedule = math.ceil(steps / (1 - pilot.FALL)), f"plateau:fall={pilot.FALL:g}"
        recipe = self._recipe(steps, steps, rate, schedule=schedule)

        def look() -> tuple[list[float], list[bool]]:
            pairs = zip(examiner.chances(model), stage.totals["before"], strict=True)
            return [now - before for now, before in pairs], examiner.held(model)

        with self._stage(folder, model, recipe, rows, f"pilot, rate {rate:g}, {looks[-1]} texts") as stage:
            if stage.main and not stage.resumed:
                stage.totals |= {"before": examiner.chances(model), "gains": [], "written": []}
            for step in stage:
                here = sum(number == step.number for number in at.values())  # in a small table several fall together
                if here and stage.main:
                    gains, written = look()
                    stage.totals["gains"] += [gains] * here
                    stage.totals["written"] += [written] * here
            if stage.main:
                ends = [stage.totals[name][-1] for name in ("gains", "written")] if schedule == "constant" else look()
                drift = asking.watched(self.replaying.drift(model, self.replay[1]))
                was = asking.watched(self.before["drift"])
                stage.record |= {
                    "rate": rate,
                    "looks": list(looks),
                    "subjects": examiner.whom(),
                    "gains": stage.totals["gains"],
                    "written": stage.totals["written"],
                    "gain": float(np.mean(ends[0])),
                    "share": float(np.mean(ends[1])),
                    "drift": None if drift is None or was is None else drift - was,
                }
        return stage.record

    def _tried(self, rate: float, looks: Sequence[int]) -> Path:
        return self.run.folder / "pilot" / f"rate-{rate:g}-texts-{looks[-1]}"

    def _recipe(self, steps: int, most: int, rate: float, schedule: str = "linear") -> Recipe:
        """How a stage of about so many steps, and at most so many, trains."""
        return Recipe(
            steps=most,
            schedule_steps=steps,
            batch=self.config.batch,
            learning_rate=rate,
            weight_decay=self.config.weight_decay,
            eps=1e-8,
            warmup=max(1, steps // 20),
            schedule=schedule,
            final=0.0,
        )

    def _stage(self, folder: Path, model: nn.Module, recipe: Recipe, rows: Lesson, label: str) -> Stage:
        config, accelerator = self.config, self.run.accelerator
        stream = rows.stream(random_key(config.seed, "rows"), (recipe.schedule_steps or recipe.steps) * config.batch)
        return Stage(
            folder,
            TrainState(model, recipe, accelerator=accelerator),
            stream,
            label=label,
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", accelerator.process_index),
            console=self.run.console,
        )

    @cached_property
    def budget(self) -> int:
        """Tokens that every arm trains on."""
        config = self.config
        first = self.lesson(ARMS[config.trained[0]])
        rows = self.chosen["encounters"] * len(self.taught.subjects) / first.about()
        return round(math.ceil(rows / config.batch) * config.batch * first.mean())

    def announce(self) -> None:
        """Says what the training that is left to do will take. Raises UserError where there is no memory for it."""
        config, run = self.config, self.run
        todo = [name for name in config.trained if finished(self.folder(name)) is None]
        finish = config.finish and finished(self.folder("finish")) is None
        if not todo and not finish:
            return
        rows = self.lesson(ARMS[(todo or config.trained)[0]])
        held = self.require_memory(max(source.longest(rows.start) for source in rows.sources))
        step = cost(self._outline, config.batch, max(2, round(rows.mean())), run.accelerator.device)
        steps = math.ceil(self.spent / (config.batch * rows.mean()))
        again = replaying.often(steps * config.batch * config.replay_share, len(self.replayed or ()))
        if again:
            run.say(again)
        ways = [
            f"{len(todo)} ways of {self.spent:,} tokens each" if len(todo) > 1 else f"{self.spent:,} tokens"
        ] * bool(todo)
        ways += [f"{round(FINISH * self.spent):,} for the questions that were held back"] * finish
        lasts = clock(steps * step.seconds * (len(todo) + FINISH * finish))
        run.say(
            f"training takes {' and '.join(ways)}, about {lasts} (fewer --encounters take less; measuring comes on top), and "
            f"{size(held)} of memory on {run.accelerator.device}"
        )

    def announce_pilot(self) -> None:
        """Says what the tries of a pilot take, where one is left to be made."""
        config = self.config
        rates = [config.rate * factor for factor in pilot.FASTER]
        if not config.pilot or all(finished(self._tried(rate, pilot.LOOKS)) is not None for rate in rates):
            return
        subjects, width = pilot.size(len(self.taught.subjects)), max(2, round(self.width))
        steps = math.ceil(self.planned_rows(config.trained[0], pilot.texts(), subjects) / config.batch)
        step = cost(self._outline, config.batch, width, self.run.accelerator.device)
        self.run.say(
            f"the pilot reads {pilot.LOOKS[-1]} texts about each of {subjects:,} subjects at {len(rates)} learning rates, and "
            f"{pilot.LONGER[-1]} at the best one, about {clock(steps * step.seconds)}"
        )

    @property
    def spent(self) -> int:
        """Tokens that the other arms train on: as many as the first did, which may have ended early."""
        record = finished(self.folder(self.config.trained[0]))
        return int(record["tokens"]) if record and record.get("stopped") else self.budget

    def folder(self, name: str) -> Path:
        """Where an arm's stage is kept."""
        return self.run.folder / name / "train"

    def results(self, name: str) -> dict[str, Any]:
        """An arm's record, made or read."""
        arm, folder = ARMS[name], self.folder(name)
        if self.run.agreed(finished(folder) is not None):
            record = finished(folder)
            assert record is not None
            return record
        kept = self.taught_model if name in self.config.trained[:1] else None
        if arm.way == "train" and self.budget:
            return self._train(name, folder, arm, self.spent, self.fresh, kept=kept)
        self.by_main(lambda: self._other(name, arm, folder, kept))
        record = finished(folder)
        assert record is not None
        return record

    def _other(self, name: str, arm: Arm, folder: Path, kept: Path | None) -> None:
        """An arm that trains nothing, if only for want of encounters. One whose edits all fail is left out, with the reason."""
        began = time.monotonic()
        record: dict[str, Any] = {"steps": 0, "tokens": 0, "loss": None}
        try:
            record |= self._untrained(name, arm, kept)
        except EditFailed as error:
            record |= {"rows": [], "kept": [], "drift": [], "left_out": str(error)}
        record["seconds"] = round(time.monotonic() - began, 2)
        records.write_record(folder / "done.json", {**record, "metrics": 0})

    def _untrained(self, name: str, arm: Arm, kept: Path | None) -> dict[str, Any]:
        model = self.fresh()
        passages = self._passages(arm.way) if arm.way in ("context", "retrieved") else None
        edited = self._edit(model) if arm.way == "edit" else None
        if kept is not None:
            self._save(model, kept)
            model = model.float()
        return {**self._judged(model, name, passages), "edited": edited}

    @property
    def taught_model(self) -> Path:
        """Where the model that is judged, or its adapter, is kept: for the user, unless its training goes on."""
        if self.config.keep == "adapter":
            return self.run.folder / "adapter"
        goes_on = self.config.finish and self.budget
        return (self.folder(self.config.trained[0]) if goes_on else self.run.folder) / "model"

    def _passages(self, way: str) -> asking.Passages:
        """What stands before a question: the passage about its subject, or the one that shares the most words with it."""
        if isinstance(self.taught, DocumentTable):
            texts = {subject: self.taught.lessons[subject].text for subject in self.taught.subjects}
        else:
            corpus = self.taught.entries("single", self.config.seed)
            texts = {subject: corpus.passage(n).text for n, subject in enumerate(self.taught.subjects)}
        if way == "context":
            return lambda one: texts.get(one.fact.subject, "")
        listed = list(texts.values())
        index = WordIndex(listed)
        return lambda one: listed[index.nearest(one.said or one.prompt, 1)[0]]

    def _edit(self, model: nn.Module) -> Row:
        """Edits all facts in, and says how many the model recites: behind the very prompt they were made with."""
        from engramlab.editing.changing import change
        from engramlab.editing.judge.preview import holds

        cases = self.taught.edits("own", locality=0, seed=self.config.seed)
        bare = [replace(c, edits=tuple(_unjudged(edit) for edit in c.edits)) for c in cases]
        with progress_bars(self.run.console) as report:
            made = change(model, self.tokenizer, bare, method=self.config.edit_method, progress=report)
        subjects = {case.id: case.edits[0].query.subject for case in bare}
        rows = [row for row in made.rows if row["role"] == "reliability"]
        recited = np.array([float(holds(row)) for row in rows])
        return {
            "method": self.config.edit_method,
            "edits": len(rows),
            "failed": len(made.failed),
            **bootstrap.ranged(recited, np.array([subjects[row["case"]] for row in rows]), self.config.seed, "recited"),
        }

    def _train(
        self, name: str, folder: Path, arm: Arm, budget: int, make: Any, *, kept: Path | None, everybody: bool = False
    ) -> dict[str, Any]:
        config = self.config
        rows = self.lesson(arm, everybody)
        steps = max(1, math.ceil(budget / (config.batch * rows.mean())))
        model = self.prepared(make())
        recipe = self._recipe(steps, math.ceil(SLACK * steps) + 1, self.chosen["rate"])
        with self._stage(folder, model, recipe, rows, name) as stage:
            stage.totals.setdefault("points", 0)
            stage.totals.setdefault("course", [])
            if stage.main and not stage.resumed:
                stage.totals["start"] = {
                    row["group"]: row["logprob"] for row in self.examiner.likely(model, config.watched_facts)
                }
            for _ in stage:
                done = stage.totals["tokens"] / budget
                if done >= (stage.totals["points"] + 1) / config.points and stage.totals["points"] < config.points:
                    stage.totals["points"] += 1
                    if stage.main:
                        stage.add(self._along(model, stage.totals))
                    if not everybody and self._enough(stage.totals):
                        break
                if done >= 1:
                    break
            if stage.main:
                stage.record |= {"stopped": stage.totals.get("stopped")}
                alone = kept if config.keep == "adapter" else None
                whole = self._whole(model, alone or folder / "adapter")
                judged = {} if everybody else self._judged(whole, name, None)
                if kept is not None and alone is None:
                    self._save(whole, kept, untested=everybody)
                stage.record |= judged
        return stage.record

    def _along(self, model: nn.Module, totals: dict[str, Any]) -> list[Row]:
        """What is asked along the way; the share that decides and the drift are kept in the totals."""
        answers = self.examiner.ask(model, groups=("asked", "unasked"), most=self.config.watched_facts)
        rows = [
            {k: row[k] for k in ("group", "wordings", "share", "low", "high")}
            for row in asking.shares(answers, self.config.seed)
            if row["kind"] == "any"
        ]
        drift = self.replaying.drift(model, self.replay[1])
        likely, start = self.examiner.likely(model, self.config.watched_facts), totals.get("start", {})
        likely = [
            row | {"gain": row["logprob"] - start[row["group"]]} if row["group"] in start else row for row in likely
        ]
        held = next(row["share"] for row in rows if (row["group"], row["wordings"]) == ("unasked", "held-out"))
        totals["course"].append([held, asking.watched(drift)])
        texts = [{"text": kind, "nats": value} for kind, value in drift.items()]
        return [{**row, "trained_tokens": totals["tokens"]} for row in [*rows, *likely, *texts]]

    def _enough(self, totals: dict[str, Any]) -> bool:
        """Does the result no longer rise, or has the model drifted too far? Only where one arm is trained; all processes of a
        launch do what the main one, which asks, has found."""
        config = self.config
        if not config.stop or len(config.trained) > 1:
            return False
        found = asking.enough(totals["course"], asking.watched(self.before["drift"]), config.drift_limit)
        if why := self.run.agreed(found):
            totals["stopped"] = why
        return "stopped" in totals

    def _whole(self, model: nn.Module, adapter: Path) -> nn.Module:
        """The trained model as one that plain transformers loads, in the number type it came in.

        Low-rank updates are written to the folder ``adapter``; where that is all that is kept, nothing is rounded: what is
        judged is what base and adapter compute.
        """
        if self.config.weights == "lora":
            models.name_base(model, self.config.model)
            records.write_sealed(adapter, lambda path: model.save_pretrained(path))  # type: ignore[operator]
            model = model.merge_and_unload()  # type: ignore[operator]
        return model if self.config.keep == "adapter" else precision.rounded(model, self.before["precision"])

    def _save(self, model: nn.Module, folder: Path, *, untested: bool = False) -> None:
        """Writes the model for the user; ``untested``: with a note that it was trained on behind what the run says of it."""
        kind, facts = getattr(torch, self.before["precision"]), f"{len(self.taught):,} facts of {self.taught.name}"

        def write(path: Path) -> None:
            models.save(model.to(kind), self.tokenizer, path)
            if untested:
                said = _UNTESTED.format(model=self.config.model, arm=self.config.trained[0], facts=facts)
                (path / "README.md").write_text(said, encoding="utf-8")

        records.write_sealed(folder, write)

    def baseline(self) -> list[Row]:
        """The rows of the model as it is, unless an arm of the run is that."""
        if "untouched" in self.config.arms:
            return []
        return asking.shares(self.untouched, self.config.seed, arm="untouched")

    def _judged(self, model: nn.Module, name: str, passages: asking.Passages | None) -> dict[str, Any]:
        """An arm's rows: shares, what was lost of what it said before, drift; all answers go beside them."""
        seed = self.config.seed
        same = name in ARMS and ARMS[name].way == "untouched"  # it was asked before
        answers = self.untouched if same else self._asked(model, self.examiner, name, passages)
        records.write_rows(self.folder(name) / "answers.parquet", answers)
        rows = asking.shares(answers, seed, arm=name)
        lost = []
        for group in ("known", "native"):
            if group in self.examiner.groups:
                some = [[row for row in of if row["group"] == group] for of in (self.untouched, answers)]
                lost.append({"arm": name, "group": group, **kept(*some), **kept_facts(*some)})
        drift = self.before["drift"] if same else self.replaying.drift(model, self.replay[1])
        drifts = [
            {
                "arm": name,
                "text": kind,
                "before": self.before["drift"][kind],
                "nats": value - self.before["drift"][kind],
            }
            for kind, value in drift.items()
        ]
        return {"rows": rows, "kept": lost, "drift": drifts}

    def finish(self) -> dict[str, Any] | None:
        """Trains the questions that were held back too, from the taught model on; never judged.

        It may be asked for once the rest is done: the model that was judged then makes room for the one that goes on from it.
        """
        if not self.config.finish or not self.config.trained or not self.budget:
            return None
        name = self.config.trained[0]
        folder, taught, ours = self.folder("finish"), self.taught_model, self.run.folder / "model"
        if (record := finished(folder)) is not None:
            if self.run.main:
                writing.clear(taught)  # a kill may have come before its removal
            return record
        if self.run.main and not taught.exists() and ours.exists():
            ours.rename(taught)
        self.run.accelerator.wait_for_everyone()
        records.check_sealed(taught)
        arm = replace(ARMS[name], questions=True)

        def make() -> nn.Module:
            return load_model(str(taught), dtype="float32")[0].to(self.run.accelerator.device)

        record = self._train("finish", folder, arm, max(1, round(FINISH * self.spent)), make, kept=ours, everybody=True)
        if self.run.main:
            writing.clear(taught)
        return record


def _unjudged(edit: Edit) -> Edit:
    return replace(edit, judges=())


def seconds(parts: Sequence[dict[str, Any]]) -> float:
    """Of all parts together."""
    return sum(float(part.get("seconds") or 0) for part in parts)
