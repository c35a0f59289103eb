"""Groups of cases edited jointly by every arm and judged under all of a group's edits; resumable in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.facts import Case
from engramlab.base.progress import ProgressBar
from engramlab.core import deltas, models
from engramlab.core.deltas import Delta
from engramlab.core.models.geometry import depth as depth_of
from engramlab.core.models.paths import projection
from engramlab.editing import benchmarks, hyper, method
from engramlab.editing import cases as editing_cases
from engramlab.editing.folders.opening import in_weights
from engramlab.editing.judge import beside, evaluation
from engramlab.editing.judge.beyond import Beyond
from engramlab.editing.judge.evaluation import Before
from engramlab.editing.methods import lora
from engramlab.editing.requests import encode_edits
from engramlab.experiments._run import Run
from engramlab.experiments.time_sensitive_editing.config import METHODS, Config
from engramlab.files import records, writing
from engramlab.measuring.answers import is_answer

PROJECTIONS = {"lora-attention": ("query", "key", "value", "output"), "lora-mlp": ("gate", "up", "mlp_down")}
#: What of a case is scored: multi-hop are the questions of portability that need another fact, not another name.
SCORES = ("reliability", "generality", "multi_hop", "locality")
#: What is kept of a part; of parameters those of each edit. And what older runs did not keep: nats a token of the text under
#: each group's edit, and the tasks' scores under the first group's.
_EMPTY: dict[str, Any] = {
    "rows": [],
    "fluent": [],
    "failed": [],
    "seconds": 0.0,
    "edits": 0,
    "parameters": [],
    "left_out": 0,
}
_LATER: dict[str, Any] = {"nats": [], "tasks": []}


@dataclass(frozen=True)
class Arm:
    """A way to edit; ``window`` are the first and last of the layers that may change, None for where the arm changes them."""

    name: str
    window: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """Its name, with its window."""
        return self.name if self.window is None else f"{self.name}, layers {self.window[0]} to {self.window[1]}"


@dataclass(frozen=True)
class Source:
    """A benchmark's cases that can be made together, and how many were left out because they contradict earlier ones."""

    cases: list[Case]
    contradictions: int
    skipped: int

    @property
    def new(self) -> set[str]:
        """The cases of which the model is given no old answer: injections."""
        return {case.id for case in self.cases if not any(edit.query.target for edit in case.edits)}


def sources_of(config: Config) -> dict[str, Source]:
    """The cases of every benchmark by name: contradictions are out before anything is edited."""
    found = {}
    needed = method.needing_subjects([METHODS[arm] for arm in config.arms])
    for name in config.benchmarks:
        chosen = editing_cases.cases(name, limit=config.limit, seed=config.seed, bad=config.bad, subjects=needed)
        cases, left = benchmarks.agreeing(chosen.cases, [f"case {case.id}" for case in chosen.cases], name, "skip")
        found[name] = Source(editing_cases.fewer_judges(cases, config.judges), len(left), len(chosen.skipped))
    return found


def check_windows(config: Config) -> int:
    """How many layers the model has, which is not loaded for that; 0 where no window needs it.

    Raises:
        UserError: a window that ends behind the last layer.
    """
    if not config.window:
        return 0
    if not in_weights(config.model):
        raise UserError(f"model: {config.model} has edits beside its weights; use --window 0, or a model without them")
    layers = depth_of(models.skeleton(config.model, models.load_config(config.model)))
    if config.window > layers:
        last = layers - 1
        raise UserError(
            f"window: {config.window} layers end past the model's, which are 0 to {last}; use {layers} or fewer"
        )
    return layers


def windows(layers: int, width: int, stride: int) -> list[tuple[int, int]]:
    """First and last layers of a window that slides from the first layer to the last one, where it ends in any case."""
    starts = [*range(0, layers - width, stride), layers - width]
    return [(start, start + width - 1) for start in starts]


def arms(config: Config, layers: int) -> list[Arm]:
    """Everything that edits: the arms, then LoRA on both in each window."""
    swept = windows(layers, config.window, config.stride or config.window) if config.window else []
    return [*map(Arm, config.arms), *(Arm("lora-both", window) for window in swept)]


def settings(config: Config, arm: Arm, model: nn.Module) -> Any:
    """The settings of the method that an arm edits with."""
    made = hyper.of(config.hyper, METHODS[arm.name])
    common = {"steps": config.steps, "learning_rate": config.learning_rate}
    if arm.name == "ft":
        return replace(made, layers=made.layers or tuple(range(depth_of(model))), **common)
    if METHODS[arm.name] != "lora":
        return made
    parts = ["all"] if arm.name == "lora-both" else list(_there(model, PROJECTIONS[arm.name]))
    if not parts:
        raise UserError(f"arms: {arm.name} finds none of its projections in this architecture; leave it out")
    where = {} if arm.window is None else {"window": arm.window, "layers": None}
    return replace(made, projections=tuple(parts), rank=config.rank, **common, **where)


def _there(model: nn.Module, names: Sequence[str]) -> Iterator[str]:
    """Those of the projections that an architecture has (many have no gate)."""
    for name in names:
        with contextlib.suppress(UserError):
            if projection(model, name):
                yield name


class Work:
    """What a run does."""

    def __init__(self, run: Run, sources: Mapping[str, Source]) -> None:
        self.run, self.sources = run, sources
        self.config: Config = run.config
        self._before: dict[str, Before] = {}
        self._beyond: dict[str, Beyond] = {}
        self._loaded: tuple[Any, Any] | None = None

    def load(self) -> tuple[Any, Any]:
        """The model and its tokenizer, once.

        Raises:
            UserError: a model, edits or settings that do not fit each other.
        """
        if self._loaded is None:
            config, used = self.config, tuple(dict.fromkeys(METHODS[arm] for arm in self.config.arms))
            made = editing_cases.model(config.model, dtype=config.dtype, device=config.device, methods=used)
            edits = [[edit] for source in self.sources.values() for case in source.cases for edit in case.edits]
            encode_edits(made[1], edits, subjects=any(method.load(name).NEEDS_SUBJECT for name in used))
            for name in config.arms:
                if METHODS[name] == "lora":
                    lora.changed_matrices(made[0], settings(config, Arm(name), made[0]))
            self._loaded = made
        return self._loaded

    def counts(self, arm: Arm, source: str) -> list[int]:
        """How many cases an arm edits jointly: each of the counts, as far as there are so many; a window the largest alone."""
        most = len(self.sources[source].cases)
        found = sorted({min(count, most) for count in self.config.counts})
        return found if arm.window is None else found[-1:]

    def groups(self, source: str, count: int) -> list[list[Case]]:
        """The cases dealt out, without questions that do not hold under all of their group's edits."""
        cases = self.sources[source].cases
        starts = range(0, len(cases) - count + 1, count)[: self.config.groups]
        return [editing_cases.judged_together(cases[start : start + count]) for start in starts]

    def folder(self, source: str, arm: Arm, count: int) -> Path:
        """Where what an arm made of a source is kept."""
        name = arm.name if arm.window is None else f"{arm.name}-{arm.window[0]}-{arm.window[1]}"
        return self.run.folder / writing.name_of(source) / name / str(count)

    def before(self, source: str) -> Before:
        """What the unedited model says to everything that is asked, once a run."""
        if source not in self._before:
            path = self.run.folder / writing.name_of(source) / "before.parquet"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with ProgressBar(f"answers before, {source}", 1, console=self.run.console) as bar:
                    made = evaluation.before(*self.load(), self.sources[source].cases, progress=bar.to)
                records.write_rows(path, made.rows())
            self._before[source] = Before.of(records.read_rows(path, ("prompt", "asked", "written", "new_tokens")))
        return self._before[source]

    def beyond(self, source: str) -> Beyond:
        """What is measured beside answers, of the unedited model, once a run."""
        if source not in self._beyond:
            path, config = self.run.folder / writing.name_of(source) / "beyond.json", self.config
            self._beyond[source] = beside.unedited(path, config, self.load, self.sources[source].cases, config.seed)
        return self._beyond[source]

    @cached_property
    def tasks_before(self) -> dict[str, float]:
        """The tasks' scores of the unedited model, once a run."""
        return beside.scored_before(self.run.folder / "tasks.json", self.config, self.load)

    def part(self, source: str, arm: Arm, count: int) -> dict[str, Any]:
        """One arm on one source, so many cases at once, from where an earlier run left it."""
        folder, groups = self.folder(source, arm, count), self.groups(source, count)
        if not (folder / "done.json").exists():
            self._prepare(arm)
        size, label = self.config.at_once if count == 1 else 1, f"{arm.label}, {count} at once, {source}"
        return self.run.in_parts(
            folder,
            label,
            len(groups),
            size,
            lambda a, b: self._some(source, arm, groups[a:b], first=a == 0),
            _EMPTY,
            "groups",
            _LATER,
        )

    def _prepare(self, arm: Arm) -> None:
        """Statistics and the like, so that they are on nobody's clock."""
        module = method.load(METHODS[arm.name])
        if hasattr(module, "prepare"):
            model, tokenizer = self.load()
            module.prepare(model, tokenizer, settings(self.config, arm, model))

    def _some(self, source: str, arm: Arm, groups: Sequence[Sequence[Case]], first: bool) -> dict[str, Any]:
        """Some groups edited and judged; under the edits of the first one, if they are several, the tasks are scored too."""
        model, tokenizer = self.load()
        before, beyond = self.before(source), self.beyond(source)
        how = {"method": METHODS[arm.name], "config": settings(self.config, arm, model)}
        edits = [[edit for case in group for edit in case.edits] for group in groups]
        began = time.monotonic()
        made = method.make_each(model, tokenizer, edits, **how)
        seconds = time.monotonic() - began
        failed = [
            {"case": case.id, "reason": str(lost)}
            for group, lost in zip(groups, made, strict=True)
            for case in group
            if not isinstance(lost, Delta)
        ]
        good = [(group, delta) for group, delta in zip(groups, made, strict=True) if isinstance(delta, Delta)]
        rows: list[dict[str, Any]] = []
        fluent: list[float | None] = []
        nats: list[float | None] = []
        alone = bool(good) and all(len(group) == 1 for group, _ in good)
        parts: list[tuple[Sequence[Case], list[Delta]]]
        parts = (
            [([c for group, _ in good for c in group], [d for _, d in good])] if alone else [(g, [d]) for g, d in good]
        )
        for cases, own in parts:
            with contextlib.nullcontext() if alone else deltas.active(model, own[0]):
                rows += evaluation.judge(model, tokenizer, cases, before, deltas=own if alone else None)
                found = beyond.measured(model, tokenizer, cases, own if alone else None)
            fluent += [row["fluency"] for row in found if "fluency" in row]
            nats += [row["nats"] for row in found[: len(own)] if "nats" in row]
        many = first and good and len(good[0][0]) > 1
        asked = {case.id: len(evaluation.queries_of(case)) for case in self.sources[source].cases}
        return {
            "rows": [
                {name: row[name] for name in ("case", "role", "group", "generated", "teacher_forced")} for row in rows
            ],
            "fluent": fluent,
            "nats": nats,
            "tasks": beside.scored(self.config, model, tokenizer, good[0][1]) if many else [],
            "failed": failed,
            "seconds": round(seconds, 3),
            "edits": sum(map(len, edits)),
            "parameters": [numbers(delta) for _, delta in good],
            "left_out": sum(asked[case.id] - len(evaluation.queries_of(case)) for group in groups for case in group),
        }


def numbers(delta: Delta) -> int:
    """How many numbers an edit is: of LoRA the sum of r (in + out), of virtual tokens their vectors."""
    return sum(t.numel() for name, t in delta.tensors().items() if not name.startswith("extra:"))


def score_of(row: Mapping[str, Any]) -> str:
    """What a question counts for; "" for nothing."""
    if row["role"] == "portability":
        return "" if "alias" in str(row["group"]).lower() else "multi_hop"
    return row["role"] if row["role"] in SCORES else ""


def scored(rows: Sequence[Mapping[str, Any]], seed: int, new: Collection[str] = ()) -> dict[str, Any]:
    """The mean over cases of each score with its 95 % interval: written freely, and under ``{score}_forced`` teacher-forced.

    ``multi_hop_changed`` and ``multi_hop_new`` are of modifications alone, and of injections (the cases ``new``).
    """
    found: dict[str, Any] = {"cases": len({row["case"] for row in rows})}
    for score in SCORES:
        for name, protocol in ((score, "generated"), (f"{score}_forced", "teacher_forced")):
            by: dict[str, list[float]] = {}
            for row in rows:
                if score_of(row) == score and row.get(protocol) is not None:
                    by.setdefault(row["case"], []).append(row[protocol])
            found |= bootstrap.mean(name, [float(np.mean(of)) for of in by.values()], seed)
            if name == "multi_hop":
                for kind, is_new in (("changed", False), ("new", True)):
                    some = [float(np.mean(of)) for case, of in by.items() if (case in new) == is_new]
                    found |= bootstrap.mean(f"{name}_{kind}", some, seed)
        found[f"{score}_cases"] = len({row["case"] for row in rows if score_of(row) == score})
    return found


def unedited(cases: Sequence[Case], before: Before) -> list[dict[str, Any]]:
    """The same questions, answered by the model as it is: how many are right by chance, or because it was so before?"""
    return [
        {"case": case.id, "role": query.role, "group": query.group}
        | {"generated": float(is_answer(before.written[query.prompt], (query.target, *query.aliases), query.said))}
        for case in cases
        for query in evaluation.queries_of(case)
        if query.role != "locality"
    ]


def summarise(work: Work, parts: Sequence[tuple[str, Arm, int]]) -> dict[str, Any]:
    """The run's summary: a row a source, arm and number of edits, "before" among them; does every part that is not done."""
    rows, failed, tasks, total = [], [], [], 0.0
    known = work.tasks_before  # first: tasks that cannot be had end the run before anything is edited
    for name, source in work.sources.items():
        control, beyond = (
            scored(unedited(source.cases, work.before(name)), work.config.seed, source.new),
            work.beyond(name),
        )
        control |= bootstrap.mean("fluency", list(beyond.fluent.values()), work.config.seed) | {"nats": beyond.nats}
        about = {"source": name, "arm": "before", "edits": 0, "window": None, "parameters": 0}
        rows.append({**about, **control, "seconds_per_edit": None, "failed": 0, "left_out": 0})
    for name, arm, count in parts:
        record = work.part(name, arm, count)
        window = None if arm.window is None else list(arm.window)
        total += record["seconds"]
        rows.append(
            {"source": name, "arm": arm.name, "edits": count, "window": window}
            | {"parameters": max(record["parameters"], default=0)}
            | scored(record["rows"], work.config.seed, work.sources[name].new)
            | bootstrap.mean("fluency", record["fluent"], work.config.seed)
            | bootstrap.mean("nats", record["nats"], work.config.seed)
            | {"seconds_per_edit": round(record["seconds"] / max(1, record["edits"]), 4)}
            | {"failed": len(record["failed"]), "left_out": record["left_out"]}
        )
        about = {"source": name, "arm": arm.label, "edits": count}
        tasks += [about | {"before": known.get(row["task"])} | row for row in record["tasks"]]
        failed += [about | one for one in record["failed"]]
    said = [
        {"source": name, "cases": len(one.cases), "contradictions": one.contradictions, "skipped": one.skipped}
        for name, one in work.sources.items()
    ]
    return {"rows": rows, "failed": failed, "sources": said, "tasks": tasks, "seconds": total}
