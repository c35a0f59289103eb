"""A relation asked for in every way, and its rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.core.models import context_limit
from engramlab.corpora.facts import FactTable
from engramlab.experiments._run import Run
from engramlab.experiments.knowledge_estimation.asking import Asking, Relation, askings, counts, shown_pairs
from engramlab.experiments.knowledge_estimation.config import Config
from engramlab.files import records, writing
from engramlab.measuring.estimators import many_shot

SAMPLES = 1000


def check_room(model: Any, tokenizer: Any, relation: Relation, config: Config) -> None:
    """Raises UserError where the longest list does not fit the model, naming the longest that does."""
    limit = context_limit(model)
    if not limit:
        return
    longest = max(relation.asked, key=lambda fact: len(fact.subject)).subject
    last = max(relation.objects, key=len)

    def fits(count: int) -> bool:
        texts = [
            many_shot.context(shown_pairs(config, relation, drawn, count), longest, form) + " " + last
            for form in config.forms
            for drawn in range(config.draws)
        ]
        return max(map(len, tokenizer(texts)["input_ids"])) <= limit

    there = counts(config, relation)
    if there and not fits(there[-1]):
        most = next((n for n in range(there[-1], -1, -1) if fits(n)), None)
        raise UserError(
            f"counts: a list of {there[-1]} facts of {relation.name!r} does not fit the model's context of {limit} tokens; "
            + (f"the longest that fits has {most}" if most is not None else "not even a bare subject fits")
        )


def results(run: Run, model: Any, tokenizer: Any, table: FactTable, relation: Relation) -> dict[str, Any]:
    """A relation's rows, from its folder or asked for now and written there, whole or not at all."""
    config: Config = run.config
    folder = run.folder / writing.name_of(relation.name)
    if not (folder / "done.json").exists():
        began = time.monotonic()
        ways = list(askings(config, table, relation))
        truth = [fact.object for fact in relation.asked]
        answers: list[dict[str, Any]] = []
        right: list[np.ndarray] = []
        mass: list[np.ndarray] = []
        ties: list[int] = []
        with ProgressBar(relation.name, len(ways), console=run.console) as bar:
            for asking in ways:
                one, probable, found = many_shot.ranked(
                    model, tokenizer, asking.contexts, truth, relation.offered, by=config.by
                )
                right.append(one)
                mass.append(probable)
                ties.append(int((found.ties() > 1).sum()))
                answers += [
                    {
                        **asking.about,
                        "subject": fact.subject,
                        "object": fact.object,
                        "right": float(a),
                        "probability": float(p),
                    }
                    for fact, a, p in zip(relation.asked, one, probable, strict=True)
                ]
                bar.update(len(right))
        about = {
            "rows": _rows(config, relation, ways, right, mass, ties),
            "seconds": round(time.monotonic() - began, 2),
        }

        def write(path: Path) -> None:
            records.write_rows(path / "answers.parquet", answers)
            records.write_record(path / "done.json", about)

        writing.write_folder(folder, write)
    found_there: dict[str, Any] = records.read_record(folder / "done.json", ("rows", "seconds"))
    return found_there


def _rows(
    config: Config,
    relation: Relation,
    ways: Sequence[Asking],
    right: Sequence[np.ndarray],
    mass: Sequence[np.ndarray],
    ties: Sequence[int],
) -> list[dict[str, Any]]:
    """A row a way of asking: means over draws and subjects, with an interval over subjects and the range over draws."""
    truth = [fact.object for fact in relation.asked]
    chance = float(np.mean([1 / len(listed) for listed in relation.offered]))
    common = {
        "dataset": relation.name,
        "relation": relation.name,
        "subjects": len(truth),
        "options": max(map(len, relation.offered)),
        "chance": chance,
        "majority": max(map(truth.count, truth)) / len(truth),
    }
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, asking in enumerate(ways):
        groups.setdefault(
            tuple((k, v) for k, v in asking.about.items() if k not in ("draw", "objects_shown")), []
        ).append(i)
    weights = bootstrap.times(bootstrap.draws(len(truth), SAMPLES, config.seed)) / len(truth)
    rows = []
    for about, members in groups.items():
        by_draw = np.stack([right[i] for i in members])
        low, high = bootstrap.interval(weights @ by_draw.mean(axis=0))
        rows.append(
            {
                **common,
                **dict(about),
                "draws": len(members),
                "accuracy": float(by_draw.mean()),
                "low": low,
                "high": high,
                "draw_low": float(by_draw.mean(axis=1).min()),
                "draw_high": float(by_draw.mean(axis=1).max()),
                "mass": float(np.mean([mass[i] for i in members])),
                "ties": sum(ties[i] for i in members),
            }
        )
    return rows
