"""Entities told by every arm and asked, and the rows that come of it; resumable in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.correlation import spearman
from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.core import models
from engramlab.core.deltas import Delta
from engramlab.editing import hyper, method
from engramlab.editing.judge import reading
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
    return replace(made, **common, **({"hard": 0.0} if arm == "distillation" else {}))


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

    def part(self, arm: str, source: str, told: Sequence[Told]) -> dict[str, Any]:
        """One arm on one source, from where an earlier run left it."""
        folder = self.run.folder / arm / writing.name_of(source)
        empty = {"rows": [], "failed": [], "seconds": 0.0, "editing_seconds": 0.0}
        size, label = self.config.at_once, f"{arm}, {source}"
        return self.run.in_parts(
            folder,
            label,
            len(told),
            size,
            lambda start, _: self._some(*self.load(), arm, told, start),
            empty,
            "entities",
        )

    def _some(self, model: Any, tokenizer: Any, arm: str, told: Sequence[Told], start: int) -> dict[str, Any]:
        began, failed, deltas = time.monotonic(), list[dict[str, str]](), list[Delta]()
        some = list(told[start : start + self.config.at_once])
        if arm in METHODS:
            fit = []
            for one in some:
                try:
                    encode_edits(tokenizer, [edits_of(arm, one)], subjects=method.load(METHODS[arm]).NEEDS_SUBJECT)
                    fit.append(one)
                except UserError as error:  # a definition whose gap stands before the entity's name, say
                    failed.append({"arm": arm, "entity": one.id, "reason": str(error)})
            how = {"method": METHODS[arm], "config": settings(self.config, arm, model)}
            made = method.make_each(model, tokenizer, [edits_of(arm, one) for one in fit], **how) if fit else []
            failed += [
                {"arm": arm, "entity": one.id, "reason": str(lost)}
                for one, lost in zip(fit, made, strict=True)
                if not isinstance(lost, Delta)
            ]
            some = [one for one, delta in zip(fit, made, strict=True) if isinstance(delta, Delta)]
            deltas = [delta for delta in made if isinstance(delta, Delta)]
        editing = time.monotonic() - began
        groups = [self._asked(arm, one, told[(told.index(one) + 1) % len(told)]) for one in some]
        found = reading.read(model, tokenizer, groups, deltas if arm in METHODS else None) if some else []
        rows = [row for one, evidence in zip(some, found, strict=True) for row in self._rows(one, evidence)]
        took = {"seconds": round(time.monotonic() - began, 3), "editing_seconds": round(editing, 3)}
        return {"rows": rows, "failed": failed, **took}

    def _asked(self, arm: str, one: Told, other: Told) -> list[Query]:
        front = {"context": one.definition, "random": other.definition}.get(arm, "")
        found = [
            replace(probe.query, target=answer)
            for probe in one.probes
            for answer in (probe.query.target, *probe.options)
        ]
        return [replace(query, prompt=behind(front, query.prompt)) for query in (*found, *self.popular)]

    def _rows(self, one: Told, evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
        """A row a probe: nats a token of its answer, and whether that is the likeliest of the options."""
        rest = iter(evidence)
        rows: list[dict[str, Any]] = []
        for number, probe in enumerate(one.probes):
            own, *others = (next(rest).logprobs for _ in range(1 + len(probe.options)))
            row = {"entity": one.id, "kind": probe.kind, "probe": number, "nats": -float(np.mean(own))}
            for name, of in (("sum", np.sum), ("mean", np.mean)):
                row[name] = float(all(of(own) > of(other) for other in others)) if others else None
            rows.append({**row, "overlap": probe.overlap})
        for number, found in enumerate(rest):
            nats = -float(np.mean(found.logprobs))
            rows.append({"entity": one.id, "kind": POPULAR, "probe": number, "nats": nats, "sum": None, "mean": None})
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
