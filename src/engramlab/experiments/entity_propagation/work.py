"""Entities told by every arm and asked, and the rows that come of it; resumable in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.correlation import spearman
from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import models
from engramlab.core.deltas import Delta
from engramlab.editing import hyper, method
from engramlab.editing.judge import beside, reading
from engramlab.editing.requests import encode_edits
from engramlab.experiments._run import Run
from engramlab.experiments.entity_propagation.config import METHODS, Config
from engramlab.experiments.entity_propagation.told import Told
from engramlab.files import writing
from engramlab.measuring.asking import Evidence
from engramlab.measuring.questions import behind

BEFORE = "before"
POPULAR = "specificity"


def settings(config: Config, arm: str, model: Any) -> Any:
    """The settings of the method that an arm edits with."""
    made = hyper.of(config.hyper, METHODS[arm])
    if arm == "rome":
        return made
    layers = model.config.get_text_config().num_hidden_layers
    where = (layers - 1,) if arm == "ft-last" else tuple(range(layers))
    common = {"steps": config.steps, "learning_rate": config.learning_rate, "layers": where}
    # As in the paper, unless it was said otherwise: the method's own default is for facts.
    paper = {"hard": 0.0} if arm == "distillation" and made.hard == type(made).hard else {}
    return replace(made, **common, **paper)


def edits_of(arm: str, told: Told) -> list[Edit]:
    """What an arm makes of a definition: a text that is read whole, or the first fact that it states."""
    return [told.fact if arm in ("rome", "distillation") else told.passage]


class Work:
    """What a run does.

    Args:
        load: gives the model and its tokenizer.
        popular: what should stay as it is.
    """

    def __init__(self, run: Run, load: Callable[[], tuple[Any, Any]], popular: Sequence[Query]) -> None:
        self.run, self.load, self.popular = run, load, popular
        self.config: Config = run.config

    @cached_property
    def tasks_before(self) -> dict[str, float]:
        """The tasks' scores of the unedited model, once a run."""
        return beside.scored_before(self.run.folder / "tasks.json", self.config, self.load)

    def part(self, arm: str, source: str, told: Sequence[Told]) -> dict[str, Any]:
        """One arm on one source, from where an earlier run left it."""
        folder = self.run.folder / arm / writing.name_of(source)
        empty = {"rows": [], "failed": [], "seconds": 0.0, "editing_seconds": 0.0}
        later: dict[str, Any] = {"beside": [], "tasks": []}
        size, label = self.config.at_once * self.config.together, f"{arm}, {source}"
        return self.run.in_parts(
            folder,
            label,
            len(told),
            size,
            lambda start, _: self._some(*self.load(), arm, source, told, start),
            empty,
            "entities",
            later,
        )

    def _some(
        self, model: Any, tokenizer: Any, arm: str, source: str, told: Sequence[Told], start: int
    ) -> dict[str, Any]:
        began, failed = time.monotonic(), list[dict[str, str]]()
        size = self.config.together if arm in METHODS else 1
        stop = min(len(told), start + self.config.at_once * self.config.together)
        groups = [list(told[at : min(at + size, stop)]) for at in range(start, stop, size)]
        deltas: list[Delta] | None = None
        if arm in METHODS:
            groups, deltas, failed = self._told(model, tokenizer, arm, groups)
        editing = time.monotonic() - began
        asked = [
            [*(query for one in group for query in self._asked(arm, one, told)), *self._popular(arm, group[0], told)]
            for group in groups
        ]
        found = reading.read(model, tokenizer, asked, deltas) if groups else []
        rows = [row for group, evidence in zip(groups, found, strict=True) for row in _rows(group, evidence)]
        took = {"seconds": round(time.monotonic() - began, 3), "editing_seconds": round(editing, 3)}
        more: dict[str, Any] = {"beside": [], "tasks": []}
        if deltas:
            more["beside"] = self._beside(model, tokenizer, source, told, groups, deltas)
            if start == 0 and self.config.together > 1:
                more["tasks"] = beside.scored(self.config, model, tokenizer, deltas[0])
        return {"rows": rows, "failed": failed, **took, **more}

    def _beside(
        self,
        model: Any,
        tokenizer: Any,
        source: str,
        told: Sequence[Told],
        groups: Sequence[Sequence[Told]],
        own: Sequence[Delta],
    ) -> list[dict[str, Any]]:
        """What else is measured of each entity under its group's change; the text is read once a change."""
        path = self.run.folder / BEFORE / writing.name_of(source) / "beyond.json"
        beyond = beside.unedited(path, self.config, self.load, list(map(_case, told)), self.config.seed)
        cases = [list(map(_case, group)) for group in groups]
        found = beyond.under(model, tokenizer, cases, own)
        return [{"entity": case.id, **row} for case, row in zip(chain(*cases), found, strict=True)]

    def _told(
        self, model: Any, tokenizer: Any, arm: str, groups: Sequence[Sequence[Told]]
    ) -> tuple[list[list[Told]], list[Delta], list[dict[str, str]]]:
        """Groups of entities that an arm could tell, a change a group, and who could not be told and why."""
        failed, fit = list[dict[str, str]](), list[list[Told]]()
        for group in groups:
            mine = []
            for one in group:
                try:
                    encode_edits(tokenizer, [edits_of(arm, one)], subjects=method.load(METHODS[arm]).NEEDS_SUBJECT)
                    mine.append(one)
                except UserError as error:  # a definition whose gap stands before the entity's name, say
                    failed.append({"arm": arm, "entity": one.id, "reason": str(error)})
            fit += [mine] if mine else []
        edits = [[edit for one in group for edit in edits_of(arm, one)] for group in fit]
        how = {"method": METHODS[arm], "config": settings(self.config, arm, model)}
        made = method.make_each(model, tokenizer, edits, **how) if fit else []
        kept, deltas = list[list[Told]](), list[Delta]()
        for group, delta in zip(fit, made, strict=True):
            if isinstance(delta, Delta):
                kept.append(group)
                deltas.append(delta)
            else:
                failed += [{"arm": arm, "entity": one.id, "reason": str(delta)} for one in group]
        return kept, deltas, failed

    def _asked(self, arm: str, one: Told, told: Sequence[Told]) -> list[Query]:
        """An entity's probes with each of their options, the right one first."""
        front = _front(arm, one, told)
        return [
            replace(probe.query, prompt=behind(front, probe.query.prompt), target=answer)
            for probe in one.probes
            for answer in (probe.query.target, *probe.options)
        ]

    def _popular(self, arm: str, one: Told, told: Sequence[Told]) -> list[Query]:
        """What should stay, asked once a change."""
        return [replace(query, prompt=behind(_front(arm, one, told), query.prompt)) for query in self.popular]


def _case(one: Told) -> Case:
    """An entity, by the first fact of its definition: behind that fact's prompt the model goes on for its fluency."""
    return Case(one.id, (one.fact,))


def _front(arm: str, one: Told, told: Sequence[Told]) -> str:
    """The definition that stands before what an entity is asked; another entity's is a control."""
    if arm == "random":
        return told[(told.index(one) + 1) % len(told)].definition
    return one.definition if arm == "context" else ""


def _rows(group: Sequence[Told], evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
    """A row a probe: nats a token of its answer, and whether that is the likeliest of the options. What should stay is noted
    under the first entity of those told together."""
    rest = iter(evidence)
    rows: list[dict[str, Any]] = []
    for one in group:
        for number, probe in enumerate(one.probes):
            own, *others = (next(rest).logprobs for _ in range(1 + len(probe.options)))
            row = {"entity": one.id, "kind": probe.kind, "probe": number, "nats": -float(np.mean(own))}
            for name, of in (("sum", np.sum), ("mean", np.mean)):
                row[name] = float(all(of(own) > of(other) for other in others)) if others else None
            rows.append({**row, "overlap": probe.overlap})
    for number, found in enumerate(rest):
        nats = -float(np.mean(found.logprobs))
        rows.append({"entity": group[0].id, "kind": POPULAR, "probe": number, "nats": nats, "sum": None, "mean": None})
    return rows


def scored(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """A row a kind of probe: perplexity and choice among options before and after, what was gained, and whether more was where
    the probe shares more words with the definition.

    Perplexity is exp(mean over probes of the mean nats of an answer's tokens). ``gain`` is in nats a token; its interval, as
    all of them, is over entities. ``by_overlap`` is Spearman's rank correlation of gain and overlap, its interval
    over probes.
    """
    was = {(row["entity"], row["kind"], row["probe"]): row for row in before}
    found = []
    for kind in dict.fromkeys(row["kind"] for row in after):
        pairs = [(was[row["entity"], kind, row["probe"]], row) for row in after if row["kind"] == kind]
        gains = [a["nats"] - b["nats"] for a, b in pairs]
        names = [row["entity"] for _, row in pairs]
        made: dict[str, Any] = {"kind": kind, "probes": len(pairs), "entities": len(set(names))}
        made |= _over_entities("gain", names, gains, seed)
        for when, at in (("before", 0), ("after", 1)):
            made[f"perplexity_{when}"] = float(np.exp(np.mean([pair[at]["nats"] for pair in pairs])))
            for name in ("sum", "mean"):
                made |= _over_entities(f"{name}_{when}", names, [pair[at][name] for pair in pairs], seed)
        chosen = [None if a["sum"] is None else b["sum"] - a["sum"] for a, b in pairs]
        made |= _over_entities("sum_more", names, chosen, seed)
        found.append(made | _by_overlap(gains, [row.get("overlap") for _, row in pairs], seed))
    return found


def _over_entities(name: str, names: Sequence[str], values: Sequence[float | None], seed: int) -> dict[str, Any]:
    by: dict[str, list[float]] = {}
    for entity, value in zip(names, values, strict=True):
        if value is not None:
            by.setdefault(entity, []).append(value)
    return bootstrap.mean(name, [float(np.mean(of)) for of in by.values()], seed)


def _by_overlap(gains: Sequence[float], shares: Sequence[float | None], seed: int) -> dict[str, float | None]:
    known = [share for share in shares if share is not None]
    found = spearman(gains, known, replicates=1000, seed=seed) if len(known) == len(gains) else (None, None, None)
    return dict(zip(("by_overlap", "by_overlap_low", "by_overlap_high"), found, strict=True))


def check_room(model: nn.Module, tokenizer: Any, told: Sequence[Told], popular: Sequence[Query]) -> None:
    """Raises UserError for a definition that does not fit the model's context together with a probe."""
    limit = models.context_limit(model)
    for one in told if limit else ():
        queries = [probe.query for probe in one.probes] + list(popular)
        longest = max(queries, key=lambda query: len(query.prompt) + len(query.target))
        text = behind(one.definition, f"{longest.prompt} {longest.target}")
        if (count := len(tokenizer(text)["input_ids"])) > (limit or 0):
            raise UserError(
                f"entity {one.id}: its definition and a probe are {count} tokens; the model reads {limit}: shorten it"
            )
