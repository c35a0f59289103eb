"""What several wordings at edit time are worth: K of them, against K copies of one, K of another relation, and unedited facts.

A method that trains weights gets a row a wording; ROME and MEMIT search one value that serves all of them. Unedited facts as
rows of an edit: arXiv 2402.11078. The comparison is ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Case, Edit, Fact, Query
from engramlab.base.random_access import key, permute
from engramlab.base.rows import TAUGHT, Row
from engramlab.core import deltas
from engramlab.core.deltas import Delta
from engramlab.corpora.facts.rewording import said_in
from engramlab.editing import benchmarks, wording
from engramlab.editing.judge import evaluation
from engramlab.editing.judge.evaluation import Before
from engramlab.experiments._run import Planned
from engramlab.experiments.fact_lifecycle import numbers
from engramlab.experiments.fact_lifecycle.asking import wrong_objects
from engramlab.experiments.fact_lifecycle.work import Lifecycle, edited
from engramlab.files import records
from engramlab.measuring.candidates import choose

WORDINGS, COPIES, OTHER, UNEDITED = "wordings", "copies", "another relation", "with unedited facts"


class Reworded:
    """The part."""

    def __init__(self, work: Lifecycle) -> None:
        self.work, self.config, self.run = work, work.config, work.run
        self.folder = work.run.folder / "wordings"
        wording.check(max(self.config.wordings))

    @cached_property
    def cases(self) -> list[Case]:
        """The edits and what judges them. Facts about countries have consequences, which other tables do not tell."""
        config, facts = self.config, self.work.facts
        if facts.name == "countries":
            found = benchmarks.load("world", seed=config.seed).cases
            first: dict[str, Case] = {}
            for case in found:
                if case.edits[0].query.relation in facts.relations:
                    first.setdefault(case.edits[0].query.subject, case)
            if len(first) >= min(config.count, 4):
                return list(first.values())[: config.count]
        return [self._judged(case) for case in self.work.cases]

    def _judged(self, case: Case) -> Case:
        edit = case.edits[0]
        subject, relation = edit.query.subject, edit.query.relation
        held = [
            Query(text, edit.target, edit.aliases, f"{case.id}/held/{k}", subject, relation, "generality", kind)
            for k, (kind, text) in enumerate(self.work.words.prompts(relation, subject, "held-out"))
        ]
        others = [judge for judge in edit.judges if judge.role != "generality"]
        return replace(case, edits=(replace(edit, judges=(*held, *others)),))

    @property
    def units(self) -> list[tuple[str, str, int]]:
        """Every method, kind of rows and number of wordings."""
        found = []
        for name in self.config.methods:
            for kind in (WORDINGS, COPIES, OTHER, UNEDITED):
                if kind == UNEDITED and (not self.config.unedited or name == "rome"):  # a rank-one change has no room
                    continue
                found += [(name, kind, k) for k in self.config.wordings if kind != COPIES or k > 1]
        return found

    def planned(self) -> list[Planned]:
        """The edits, about."""
        return [Planned(f"{name}, {kind}, {k}", self.config.count, k) for name, kind, k in self.units]

    def taught(self, kind: str, count: int) -> tuple[list[list[Edit]], list[str]]:
        """What is edited, case by case, and notes on cases that have fewer wordings."""
        bare = [replace(case, edits=(replace(case.edits[0], wordings=()),)) for case in self.cases]
        if kind == COPIES:
            edits = [case.edits[0] for case in bare]
            return [[replace(e, judges=(), wordings=(e.query.prompt,) * (count - 1))] for e in edits], []
        if kind == OTHER:
            return [[self._elsewhere(case.edits[0], count)] for case in bare], []
        made, notes = wording.worded(bare, count, made=self._ways)
        found = [[replace(case.edits[0], judges=())] for case in made]
        if kind == UNEDITED:
            found = [[*edits, *self._unedited(case)] for edits, case in zip(found, bare, strict=True)]
        return found, notes

    def _called(self, relation: str) -> str:
        called = self.work.facts.wordings.called
        return called.get(relation, relation.replace("_", " "))

    def _ways(self, edit: Edit) -> Sequence[str]:
        relation = edit.query.relation
        return said_in(self._called(relation), edit.query.subject) if relation else wording.templated(edit)

    def _elsewhere(self, edit: Edit, count: int) -> Edit:
        """The target behind wordings of another relation of the table (of "opposite", where there is but one)."""
        others = [relation for relation in self.work.facts.relations if relation != edit.query.relation]
        first, *more = said_in(self._called(others[0]) if others else "opposite", edit.query.subject)
        return replace(
            edit, judges=(), query=replace(edit.query, prompt=first, target=""), wordings=tuple(more[: count - 1])
        )

    def _unedited(self, case: Case) -> list[Edit]:
        """Facts of the same relation as they are, about subjects that judge nothing of this case."""
        facts, edit = self.work.facts, case.edits[0]
        relation, prompts = edit.query.relation, {judge.prompt for judge in edit.judges}
        judged = {judge.subject for judge in edit.judges} | {edit.query.subject}
        free = [fact for fact in facts if fact.relation == relation and fact.subject not in judged]
        order = (
            permute(key(self.config.seed, "unedited", edit.query.id), range(len(free)), len(free)).tolist()
            if free
            else []
        )
        found = []
        for i in order[: self.config.unedited]:
            prompt = self.work.words.trained.prompts(relation, free[i].subject)[0]
            if prompt not in prompts:
                query = Query(prompt, free[i].object, subject=free[i].subject, relation=relation, id=free[i].subject)
                found.append(Edit(query, free[i].object, free[i].aliases))
        return found

    # judging ----------------------------------------------------------------------------------------------------------

    @cached_property
    def model(self) -> nn.Module:
        """The unedited model."""
        return self.work.fresh()

    @cached_property
    def before(self) -> Before:
        """What the unedited model says, asked once."""
        path = self.folder / "before.parquet"
        if not path.exists():
            found = evaluation.before(self.model, self.work.tokenizer, self.cases)
            records.write_rows(path, found.rows())
        return Before.of(records.read_rows(path, ("prompt", "asked", "written", "new_tokens")))

    def results(self) -> dict[str, list[Row]]:
        """Everything of the part: ``wordings``, a row a method, kind of rows, number of wordings and protocol."""
        self.folder.mkdir(parents=True, exist_ok=True)
        old = self._old(None)
        rows: list[Row] = []
        for name, kind, count in self.units:
            path = self.folder / f"{name} {kind} {count}.json"
            if not path.exists():
                records.write_record(path, self._unit(name, kind, count, old))
            rows += records.read_record(path, ("rows",))["rows"]
        return {"wordings": rows}

    def _unit(self, name: str, kind: str, count: int, old: list[float | None]) -> Row:
        edits, notes = self.taught(kind, count)
        for line in notes[:3]:
            self.run.say(f"{name}, {kind}: {line}")
        began = time.monotonic()
        made = edited(self.model, self.work.tokenizer, edits, name, f"{name}, {kind}, {count}", self.run.console)
        seconds = time.monotonic() - began
        good = [i for i, delta in enumerate(made) if isinstance(delta, Delta)]
        found = [made[i] for i in good]
        cases = [self.cases[i] for i in good]
        rows: list[Row] = []
        if good:
            usable = [delta for delta in found if isinstance(delta, Delta)]
            judged = evaluation.judge(self.model, self.work.tokenizer, cases, self.before, deltas=usable)
            after = self._old(dict(zip(good, usable, strict=True)))
            about = {
                "method": name,
                "kind": kind,
                "wordings": count,
                "taught": float(np.mean([1 + len(edits[i][0].wordings) for i in good])),
                "cases": len(good),
                "failed": len(made) - len(good),
                "old_before": _mean([old[i] for i in good]),
                "old": _mean([after[i] for i in good]),
                "seconds_per_edit": seconds / max(1, len(made)),
            }
            subjects = {case.id: case.edits[0].query.subject for case in cases}
            for protocol in _PROTOCOLS:
                now, was = (
                    shares(some, protocol, subjects, self.config.seed) for some in (judged, evaluation.unedited(judged))
                )
                control = {f"{role}_unedited": was[role] for role in TAUGHT}
                rows.append({**about, "protocol": protocol, **now, **control})
        return {"rows": rows}

    def _old(self, made: dict[int, Delta] | None) -> list[float | None]:
        """Of each case the K of its old object: the share of the relation's wrong objects, the new one not among them, that are
        less likely, on average over its held-out wordings; under its own delta, or before any."""
        found: list[float | None] = [None] * len(self.cases)
        choices = self.work.facts.choices()
        for i, case in enumerate(self.cases):
            edit = case.edits[0]
            relation, target = edit.query.relation, edit.query.target
            held = [judge.prompt for judge in edit.judges if judge.role == "generality"][:2]
            if (made is not None and i not in made) or relation not in choices or not target or not held:
                continue
            own = Fact(edit.query.subject, relation, target, (*edit.query.aliases, edit.target, *edit.aliases))
            options = (target, *wrong_objects(own, choices, self.config.options, self.config.seed))
            if len(options) < 2:
                continue
            with contextlib.nullcontext() if made is None else deltas.active(self.model, made[i]):
                scores = choose(self.model, self.work.tokenizer, held, [options] * len(held))
            each = [scores.of(k) for k in range(len(held))]
            found[i] = float(np.mean([np.mean((s[1:] < s[0]) + 0.5 * (s[1:] == s[0])) for s in each]))
        return found


_PROTOCOLS = ("generated", "teacher_forced")


def shares(judged: Sequence[Row], protocol: str, subjects: dict[str, str], seed: int) -> Row:
    """Reliability, generality, portability (all of it, and by kind) and locality: means over cases, with 95 % intervals over
    subjects (``NAME_low``, ``NAME_high``)."""
    wanted: dict[str, Any] = {role: lambda row, role=role: row["role"] == role for role in _ROLES}
    for kind in dict.fromkeys(row["group"] for row in judged if row["role"] == "portability"):
        wanted[f"portability {kind}"] = lambda row, kind=kind: row["role"] == "portability" and row["group"] == kind
    found: Row = {}
    for name, fits in wanted.items():
        of: dict[str, list[float]] = {}
        for row in judged:
            if fits(row) and row[protocol] is not None:
                of.setdefault(row["case"], []).append(row[protocol])
        means = np.array([np.mean(values) for values in of.values()])
        found[name] = float(means.mean()) if len(means) else None
        drawn = numbers.draws_of([subjects[case] for case in of], seed) if of else []
        found |= {f"{name}_{end}": at for end, at in numbers.spread([means[some].mean() for some in drawn]).items()}
    return found


_ROLES = ("reliability", "generality", "portability", "locality")


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
