"""A run of teaching: what the model knows before, each way of putting the facts in, and what came of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Fact
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key as random_key
from engramlab.base.random_access import permute
from engramlab.base.rows import Row
from engramlab.core import models
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.cost import like
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import divide, only
from engramlab.editing.folders import precision
from engramlab.editing.folders.opening import load_model, require_in_weights
from engramlab.editing.keys.running_text import TextSource, source_texts
from engramlab.experiments._run import Planned, Run
from engramlab.experiments.teaching import asking
from engramlab.experiments.teaching.config import ARMS, FEWEST, Arm, Config, check
from engramlab.experiments.teaching.text import Lesson, lesson, texts_as_rows
from engramlab.files import records, writing
from engramlab.files.documents import documents

SLACK = 1.05  # steps that a lesson may take beyond those reckoned, as rows come by chance
FINISH = 0.25  # of the steps, for the questions that were held back
STILL, ROSE = 3, 0.01  # measurements over which the share must rise so much
TEXT_ROWS = 256  # of another text, that drift is measured on


class School:
    """What all arms of a run share: the facts in their groups, the replayed text, what the model said before.

    Raises:
        UserError: whatever can be found wrong before the model is loaded.
    """

    def __init__(self, config: Config, out: Path, preset: str, console: Any) -> None:
        self.config, self.table = config, check(config)
        require_in_weights("model", config.model)
        self.words = divide(self.table.wordings)
        self.run = Run("teaching", config, out, preset=preset, console=console)
        self.about = models.about(config.model)
        if self.about.from_scratch:
            raise UserError(
                f"model: {config.model!r} is a size; name a model that exists: facts are taught to what reads already"
            )
        if self.about.objective != "causal":
            raise UserError(f"model: {config.model} is a masked language model; name a causal one")
        self.tokenizer = models.load_tokenizer(config.model)
        self.length = self.about.context(4096)
        self.other = self._other_text()
        self.replayed_file = self._replay_file()

    # before anything is trained ---------------------------------------------------------------------------------------

    def _other_text(self) -> Sequences | None:
        if self.config.text is None:
            return None
        return self._rows(
            documents(str(self.config.text), self.config.text_column, by_line=True), TEXT_ROWS, "text", self.config.text
        )

    def _replay_file(self) -> Sequences | None:
        if self.config.replay in ("self", "none"):
            return None
        found = documents(self.config.replay, self.config.text_column, by_line=True)
        return self._rows(found, self._replay_count, "replay", self.config.replay)

    def _rows(self, texts: Any, count: int, option: str, name: Any) -> Sequences:
        some: list[str] = []
        for text in texts:
            some.append(text)
            if len(some) >= count:
                break
        rows = texts_as_rows(some, self.tokenizer, self.config.replay_tokens)
        if not len(rows):
            raise UserError(f"{option}: {name} holds no text of two tokens or more")
        return rows

    @property
    def _replay_count(self) -> int:
        return self.config.replay_texts + -(-self.config.replay_texts // 4)

    def plan(self) -> None:
        """Says what will be done, as far as it is known before the model is asked."""
        config, subjects = self.config, len(self.table.subjects)
        for name in config.trained:
            arm = ARMS[name]
            about = 1 - (config.question_share if arm.questions else 0) - config.replay_share
            steps = math.ceil(config.encounters * subjects / (config.batch * about))
            self.run.stages.append(Planned(name, steps, config.batch, 30.0 * len(self.table.relations), self._outline))

    def _outline(self) -> nn.Module:
        return like(self.config.model)

    @cached_property
    def before(self) -> dict[str, Any]:
        """What the model said of everything before, the facts that it knew, and the replayed text; made once, then read."""
        folder = self.run.folder / "before"
        if not (folder / "done.json").exists() and self.run.main:
            writing.write_folder(folder, self._look)
        self.run.accelerator.wait_for_everyone()
        again = f"remove {folder} to ask again"
        needs = ("known", "contradicted", "replay", "precision", "drift", "seconds")
        answers = records.read_rows(
            folder / "answers.parquet", ("group", "subject", "relation", "prompt", "right"), again
        )
        return {**records.read_record(folder / "done.json", needs, again), "answers": answers}

    def _look(self, path: Path) -> None:
        began, model = time.monotonic(), self.fresh()
        if self.config.audit:
            groups = {"table": asking.Group(list(self.table), self.words)} | self._native()
        else:
            groups = self._groups([])
        answers = self._asked(model, asking.Examiner(groups, self.tokenizer), "as it is")
        known, contradicted = asking.known(answers, self.table.choices())
        replay = self._sampled(model) if self.config.replay == "self" else []
        found = {
            "known": known if self.config.audit else [],
            "contradicted": contradicted,
            "replay": replay,
            "precision": precision.chosen(model, self.config.model),
            "drift": self.drift(model, self._replayed(replay)[1]),
            "seconds": round(time.monotonic() - began, 2),
        }
        records.write_rows(path / "answers.parquet", answers)
        records.write_record(path / "done.json", found)

    def _sampled(self, model: nn.Module) -> list[str]:
        wanted, found = self._replay_count, []
        with ProgressBar("replayed text", wanted, console=self.run.console) as bar:
            for text in source_texts(
                model, self.tokenizer, TextSource(seed=random_key(self.config.seed, "replay") >> 1)
            ):
                found.append(text)
                bar.update(len(found))
                if len(found) >= wanted:
                    return found
        return found

    # what is known then -----------------------------------------------------------------------------------------------

    @cached_property
    def taught(self) -> FactTable:
        """The facts to be taught, in the wordings that are trained. Raises UserError where too few are left."""
        return self._left(self.before["known"])

    def _left(self, known: Sequence[Sequence[str]]) -> FactTable:
        there = set(map(tuple, known))
        left = [fact for fact in self.table if (fact.subject, fact.relation) not in there]
        table = only(self.table, left, self.words.trained) if left else None
        if table is None or len(table.subjects) < 2 * FEWEST:
            count = 0 if table is None else len(table.subjects)
            raise UserError(
                f"facts: of {len(self.table.subjects)} subjects {count} have a fact that {self.config.model} does not know "
                f"already; at least {2 * FEWEST} are needed: use engramlab edit for so few, or --no-audit to teach all of them"
            )
        return table

    @cached_property
    def halves(self) -> tuple[set[str], set[str]]:
        """Subjects whose questions are trained, and the others."""
        return self._halves(self.taught)

    def _halves(self, taught: FactTable) -> tuple[set[str], set[str]]:
        subjects, config = list(taught.subjects), self.config
        order = permute(random_key(config.seed, "halves"), range(len(subjects)), len(subjects)).tolist()
        asked = min(max(round(config.asked_share * len(subjects)), FEWEST), len(subjects) - FEWEST)
        return {subjects[i] for i in order[:asked]}, {subjects[i] for i in order[asked:]}

    def facts_of(self, half: set[str], taught: FactTable | None = None) -> list[Fact]:
        """The taught facts about these subjects, in an order of the seed."""
        found = [fact for fact in taught or self.taught if fact.subject in half]
        order = permute(random_key(self.config.seed, "asked", len(found)), range(len(found)), len(found)).tolist()
        return [found[i] for i in order]

    @cached_property
    def examiner(self) -> asking.Examiner:
        """Who asks."""
        return asking.Examiner(self._groups(self.before["known"]), self.tokenizer)

    def _groups(self, known: Sequence[Sequence[str]]) -> dict[str, asking.Group]:
        """The facts that are asked for in the end, where these are known."""
        there, taught = set(map(tuple, known)), self._left(known)
        a, b = self._halves(taught)
        groups = {name: self.facts_of(half, taught) for name, half in (("asked", a), ("unasked", b))}
        groups["known"] = [fact for fact in self.table if (fact.subject, fact.relation) in there]
        most = self.config.asked_facts
        return {n: asking.Group(facts[:most], self.words) for n, facts in groups.items() if facts} | self._native()

    def _native(self) -> dict[str, asking.Group]:
        if self.table.name == "countries" or not self.config.native_facts:
            return {}
        world = FactTable.read("countries", relations=("capital",))
        own = set(self.table.subjects)
        facts = [fact for fact in world if fact.subject not in own]
        order = permute(random_key(self.config.seed, "native"), range(len(facts)), len(facts)).tolist()
        return {"native": asking.Group([facts[i] for i in order[: self.config.native_facts]], divide(world.wordings))}

    @cached_property
    def untouched(self) -> list[Row]:
        """What the model said before of what is asked in the end."""
        groups = self.examiner.groups
        of = {(f.subject, f.relation): name for name, group in groups.items() if name != "native" for f in group.facts}
        found = []
        for row in self.before["answers"]:
            name = "native" if row["group"] == "native" else of.get((row["subject"], row["relation"]))
            found += [{**row, "group": name}] if name else []
        return found

    @cached_property
    def replay(self) -> tuple[Sequences | None, Sequences | None]:
        """Rows that are replayed, and rows of the same kind that are not."""
        return self._replayed(self.before["replay"])

    def _replayed(self, sampled: Sequence[str]) -> tuple[Sequences | None, Sequences | None]:
        if self.config.replay == "none":
            return None, None
        rows = self.replayed_file
        if rows is None:
            rows = texts_as_rows(sampled, self.tokenizer, self.config.replay_tokens)
        cut = max(1, len(rows) - -(-len(rows) // 5))
        parts = [[rows.row(i).tolist() for i in some] for some in (range(cut), range(cut, len(rows)))]
        return Sequences.of(parts[0]), Sequences.of(parts[1]) if parts[1] else None

    def drift(self, model: nn.Module, unseen: Sequences | None) -> dict[str, float]:
        """Nats a token of text that was never trained on, by kind; ``unseen``: of the kind that is replayed."""
        kinds = {"replayed kind": unseen, "other text": self.other}
        return {name: asking.nats(model, rows, self.tokenizer) for name, rows in kinds.items() if rows is not None}

    def fresh(self) -> nn.Module:
        """The model as it was."""
        return load_model(self.config.model)[0].to(self.run.accelerator.device)

    # the arms ---------------------------------------------------------------------------------------------------------

    def lesson(self, arm: Arm, everybody: bool = False) -> Lesson:
        """The rows of an arm; ``everybody``: with the questions about all subjects."""
        a, b = self.halves
        asked = self.facts_of(a | b if everybody else a)
        return lesson(arm, self.config, self.taught, self.words, asked, self.replay[0], self.tokenizer, self.length)

    @cached_property
    def budget(self) -> int:
        """Tokens that every arm trains on."""
        config = self.config
        first = self.lesson(ARMS[config.trained[0]])
        about = sum(source.share for source in first.sources if source.name in ("entries", "crossing"))
        rows = config.encounters * len(self.taught.subjects) / about
        return round(math.ceil(rows / config.batch) * config.batch * first.mean())

    def folder(self, name: str) -> Path:
        """Where an arm's stage is kept."""
        return self.run.folder / name / "train"

    def results(self, name: str) -> dict[str, Any]:
        """An arm's record, made or read."""
        arm, folder = ARMS[name], self.folder(name)
        if (record := finished(folder)) is not None:
            return record
        if arm.way == "train":
            kept = self.taught_model if name == self.config.trained[0] else None
            return self._train(name, folder, arm, self.budget, self.fresh, kept=kept)
        began, model = time.monotonic(), self.fresh()
        passages = self._passages() if arm.way == "context" else None
        if arm.way == "edit":
            self._edit(model)
        record = {"steps": 0, "tokens": 0, "loss": None, **self._judged(model, name, passages)}
        record["seconds"] = round(time.monotonic() - began, 2)
        records.write_record(folder / "done.json", {**record, "metrics": 0})
        return record

    @property
    def taught_model(self) -> Path:
        """Where the model that is judged is kept: for the user, unless its training goes on."""
        return (self.folder(self.config.trained[0]) if self.config.finish else self.run.folder) / "model"

    def _passages(self) -> dict[str, str]:
        corpus = self.taught.entries("single", self.config.seed)
        return {subject: corpus.passage(n).text for n, subject in enumerate(self.taught.subjects)}

    def _edit(self, model: nn.Module) -> None:
        from engramlab.editing.changing import change

        cases = self.taught.edits("own", locality=0, seed=self.config.seed)
        bare = [Case(c.id, tuple(_unjudged(edit) for edit in c.edits)) for c in cases]
        change(model, self.tokenizer, bare, method=self.config.edit_method)

    def _train(
        self, name: str, folder: Path, arm: Arm, budget: int, make: Any, *, kept: Path | None, everybody: bool = False
    ) -> dict[str, Any]:
        config, run = self.config, self.run
        rows = self.lesson(arm, everybody)
        steps = max(1, math.ceil(budget / (config.batch * rows.mean())))
        model = make()
        if config.weights == "lora":
            seed = random_key(config.seed, "lora") >> 1
            model = models.add_lora(model, rank=config.rank, alpha=2 * config.rank, projections="all", seed=seed)
        recipe = Recipe(
            steps=math.ceil(SLACK * steps) + 1,
            schedule_steps=steps,
            batch=config.batch,
            learning_rate=config.rate,
            weight_decay=config.weight_decay,
            eps=1e-8,
            warmup=max(1, steps // 20),
            schedule="linear",
            final=0.0,
        )
        world = run.accelerator.num_processes
        with Stage(
            folder,
            TrainState(model, recipe, accelerator=run.accelerator),
            rows.stream(random_key(config.seed, "rows"), run.accelerator.process_index, world),
            label=name,
            minutes=config.checkpoint_minutes,
            seed=random_key(config.seed, "dropout", run.accelerator.process_index),
            console=run.console,
        ) as stage:
            stage.totals.setdefault("points", 0)
            stage.totals.setdefault("course", [])
            for step in stage:
                done = stage.totals["tokens"] / budget
                if done >= (stage.totals["points"] + 1) / config.points and stage.totals["points"] < config.points:
                    stage.totals["points"] += 1
                    if stage.main:
                        stage.add(self._along(model, step.tokens, stage.totals))
                    if self._enough(stage.totals, everybody, world):
                        break
                if done >= 1:
                    break
            if stage.main:
                stage.record |= {"stopped": stage.totals.get("stopped")}
                whole = self._whole(model, folder)
                judged = self._judged(whole, name, None)
                if kept is not None:
                    self._save(whole, kept)
                stage.record |= judged
        return stage.record

    def _along(self, model: nn.Module, tokens: int, totals: dict[str, Any]) -> list[Row]:
        """What is asked along the way; the share that decides and the drift are kept in the totals."""
        answers = self.examiner.ask(model, groups=("asked", "unasked"), most=self.config.watched_facts)
        rows = [
            {k: row[k] for k in ("group", "wordings", "share", "low", "high")}
            for row in asking.shares(answers, self.config.seed)
            if row["kind"] == "any"
        ]
        drift = self.drift(model, self.replay[1])
        gains = self.examiner.gain(model, self.config.watched_facts)
        held = next(row["share"] for row in rows if (row["group"], row["wordings"]) == ("unasked", "held-out"))
        totals["course"].append([held, drift.get("replayed kind")])
        seen = totals["tokens"]
        more = [{"group": group, "logprob": value} for group, value in gains.items()]
        more += [{"text": kind, "nats": value} for kind, value in drift.items()]
        return [{**row, "trained_tokens": seen} for row in [*rows, *more]]

    def _enough(self, totals: dict[str, Any], everybody: bool, world: int) -> bool:
        """Does the result no longer rise, or has the model drifted too far? Only where one arm is trained, in one process."""
        config = self.config
        if not config.stop or everybody or world > 1 or len(config.trained) > 1:
            return False
        course = totals["course"]
        shares, drifts = [c[0] for c in course], [c[1] for c in course if c[1] is not None]
        if len(shares) > STILL and max(shares[-STILL:]) < max(shares[:-STILL]) + ROSE and max(shares) > 0:
            totals["stopped"] = "the share of questions that are answered no longer rose"
        elif drifts and drifts[-1] - self.before["drift"]["replayed kind"] > config.drift_limit:
            totals["stopped"] = f"unseen text had become more than {config.drift_limit} nats less likely"
        return "stopped" in totals

    def _whole(self, model: nn.Module, folder: Path) -> nn.Module:
        """The trained model as one that plain transformers loads, in the number type it came in."""
        if self.config.weights == "lora":
            records.write_sealed(folder / "adapter", lambda path: model.save_pretrained(path))  # type: ignore[operator]
            model = model.merge_and_unload()  # type: ignore[operator]
        return precision.rounded(model, self.before["precision"])

    def _save(self, model: nn.Module, folder: Path) -> None:
        kind = getattr(torch, self.before["precision"])

        def write(path: Path) -> None:
            with models.quiet():
                model.to(kind).save_pretrained(path)  # type: ignore[operator]
                self.tokenizer.save_pretrained(path)

        records.write_sealed(folder, write)

    # what came of it --------------------------------------------------------------------------------------------------

    def baseline(self) -> list[Row]:
        """The rows of the model as it is, unless an arm of the run is that."""
        if "untouched" in self.config.arms:
            return []
        return asking.shares(self.untouched, self.config.seed, arm="untouched")

    def _asked(
        self, model: nn.Module, examiner: asking.Examiner, label: str, passages: dict[str, str] | None = None
    ) -> list[Row]:
        with ProgressBar(f"asking, {label}", 100, console=self.run.console) as bar:
            return examiner.ask(
                model, passages=passages, progress=lambda done, total: bar.update(100 * done // max(total, 1))
            )

    def _judged(self, model: nn.Module, name: str, passages: dict[str, str] | None) -> dict[str, Any]:
        """An arm's rows: shares, what was lost of what it said before, drift; all answers go beside them."""
        seed = self.config.seed
        answers = self._asked(model, self.examiner, name, passages)
        records.write_rows(self.folder(name) / "answers.parquet", answers)
        rows = asking.shares(answers, seed, arm=name)
        lost = []
        for group in ("known", "native"):
            if group in self.examiner.groups:
                some = [[row for row in of if row["group"] == group] for of in (self.untouched, answers)]
                lost.append({"arm": name, "group": group, **asking.kept(*some)})
        drift = self.drift(model, self.replay[1])
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
        """Trains the questions that were held back too, from the taught model on; never judged."""
        if not self.config.finish or not self.config.trained:
            return None
        name = self.config.trained[0]
        folder = self.folder("finish")
        if (record := finished(folder)) is not None:
            return record
        taught = self.taught_model
        records.check_sealed(taught)
        arm = Arm(ARMS[name].variant, crossing=ARMS[name].crossing, questions=True)

        def make() -> nn.Module:
            return load_model(str(taught), dtype="float32")[0].to(self.run.accelerator.device)

        budget = max(1, round(FINISH * self.budget))
        record = self._train("finish", folder, arm, budget, make, kept=self.run.folder / "model", everybody=True)
        if self.run.main:
            writing.clear(taught)
        return record


def _unjudged(edit: Edit) -> Edit:
    return replace(edit, judges=())


def seconds(parts: Sequence[dict[str, Any]]) -> float:
    """Of all parts together."""
    return sum(float(part.get("seconds") or 0) for part in parts)
