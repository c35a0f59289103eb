"""The questions asked, the model trained, and the rows that come of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.progress import ProgressBar
from engramlab.base.random_access import key
from engramlab.core.text.batches import Order
from engramlab.core.training.loop import Recipe, TrainState
from engramlab.core.training.stage import Stage, finished
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.experiments._run import Run
from engramlab.experiments.cloze_questions.config import Config
from engramlab.experiments.cloze_questions.consistency import Unlabelled, objective
from engramlab.experiments.cloze_questions.translating import Translations
from engramlab.files import records, writing
from engramlab.measuring.candidates import Choices
from engramlab.measuring.cloze import score_options

SAMPLES = 1000
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Asked:
    """What is asked and how: all that the parts of a run share."""

    run: Run
    questions: Sequence[ChoiceQuestion]
    translations: Sequence[Translations]
    scores: Sequence[str]
    train_by: str

    @property
    def options(self) -> list[tuple[str, ...]]:
        return [question.options for question in self.questions]

    def steps(self) -> int:
        """Optimizer steps of a training."""
        config: Config = self.run.config
        return -(-len(self.questions) * config.epochs // config.batch)


def asked(asked: Asked, model: nn.Module, tokenizer: Any) -> dict[str, Any]:
    """The answers before any training, from the run's folder or asked for now and written there, whole or not at all."""
    folder = asked.run.folder / "before"
    if not (folder / "done.json").exists():
        began = time.monotonic()
        rows, answers = answered(asked, model, tokenizer, "before", asked.translations, asked.scores)
        config: Config = asked.run.config
        if config.control:
            others = [one.of_others(config.seed) for one in asked.translations if one.name != "bare"]
            more = answered(asked, model, tokenizer, "others", others, [asked.train_by]) if others else ([], [])
            rows, answers = rows + more[0], answers + more[1]
        about = {"rows": rows, "seconds": round(time.monotonic() - began, 2)}

        def write(path: Path) -> None:
            records.write_rows(path / "answers.parquet", answers)
            records.write_record(path / "done.json", about)

        writing.write_folder(folder, write)
    return records.read_record(folder / "done.json", ("rows", "seconds"))


def trained(asked: Asked, model: nn.Module, tokenizer: Any, seen: Unlabelled, name: str) -> dict[str, Any]:
    """The record of a training, with the rows of the model's answers behind it (to the questions' own translations)."""
    run, config = asked.run, asked.run.config
    folder = run.folder / name
    if (record := finished(folder)) is not None:
        return record
    recipe = Recipe(
        steps=asked.steps(),
        batch=config.batch,
        learning_rate=config.learning_rate,
        weight_decay=0.01,
        eps=1e-8,
        schedule="constant",
    )
    order = Order(len(asked.questions), key(config.seed, "consistency"))
    state = TrainState(model, recipe, accelerator=run.accelerator)
    with Stage(
        folder,
        state,
        order,
        label=name,
        objective=objective(model, seen, order, config.batch, asked.train_by, config.tokens_at_once),
        minutes=config.checkpoint_minutes,
        seed=key(config.seed, name),
        console=run.console,
    ) as stage:
        for _ in stage:
            pass
        rows, answers = answered(asked, model, tokenizer, name, asked.translations, asked.scores)
        records.write_rows(folder / "answers.parquet", answers)
        stage.record["rows"] = rows
    return stage.record


def answered(
    asked: Asked,
    model: nn.Module,
    tokenizer: Any,
    when: str,
    translations: Sequence[Translations],
    scores: Sequence[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows, one a score and translator and one for all translators together; and answers, one a question of each."""
    found: dict[str, list[tuple[Choices, int]]] = {score: [] for score in scores}
    with ProgressBar(f"{when}, asked", len(translations), console=asked.run.console) as bar:
        for done, one in enumerate(translations, 1):
            by_score = score_options(model, tokenizer, one.clozes, asked.options, scores)
            for score in scores:
                found[score].append(by_score[score])
            bar.update(done)
    rows: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for score, each in found.items():
        several = [*((t.name, t.fallbacks, made, read) for t, (made, read) in zip(translations, each, strict=True))]
        if len(several) > 1:
            together = np.sum([made.probabilities() for made, _ in each], axis=0)
            first = each[0][0]
            all_of_them = Choices(together, first.offsets, first.tokens)
            several.append((ENSEMBLE, float(np.mean([t.fallbacks for t in translations])), all_of_them, 0))
        picked = {name: picks(made) for name, _, made, _ in several}
        for name, fallbacks, made, read in several:
            about = {"when": when, "score": score, "translator": name}
            row = _row(asked, made, _agreement(name, picked))
            rows.append({**about, **row, "fallbacks": fallbacks, "rows_read": read})
            right = made.right([q.truth for q in asked.questions])
            answers += [
                {**about, "id": q.id, "chosen": int(pick), "right": float(r), "scores": made.of(i).tolist()}
                for i, (q, pick, r) in enumerate(zip(asked.questions, picked[name], right, strict=True))
            ]
    return rows, answers


def picks(made: Choices) -> np.ndarray:
    """int64 ``[contexts]``: the number of the (first) best option of each."""
    return np.array([int(made.of(i).argmax()) for i in range(len(made))])


def _agreement(name: str, picked: dict[str, np.ndarray]) -> float | None:
    """How often two translators choose alike: this one and each other, or any two; None for a lone one."""
    singles = {one: of for one, of in picked.items() if one != ENSEMBLE}
    pairs = [(a, b) for a, b in combinations(singles, 2) if name in (a, b, ENSEMBLE)]
    return float(np.mean([np.mean(singles[a] == singles[b]) for a, b in pairs])) if pairs else None


def _row(asked: Asked, made: Choices, agreement: float | None) -> dict[str, Any]:
    count = len(asked.questions)
    right = made.right([question.truth for question in asked.questions])
    weights = bootstrap.times(bootstrap.draws(count, SAMPLES, asked.run.config.seed)) / count
    low, high = bootstrap.interval(weights @ right)
    positions = np.bincount(picks(made), minlength=max(map(len, asked.options))) / count
    return {
        "questions": count,
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "ties": int((made.ties() > 1).sum()),
        "chance": float(np.mean([1 / len(options) for options in asked.options])),
        "agreement": agreement,
        "positions": positions.tolist(),
    }


def said(rows: Sequence[dict[str, Any]]) -> str:
    """What asking cost, and how often the options at each position were chosen, of a part's rows."""
    read: dict[str, int] = {}
    for row in rows:
        read[row["score"]] = read.get(row["score"], 0) + row["rows_read"]
    last = next((row for row in rows if row["translator"] == ENSEMBLE), rows[0])
    shares = " ".join(f"{share:.0%}" for share in last["positions"])
    return (
        f"rows read by {', '.join(f'{score} {count:,}' for score, count in read.items())}; chosen by position: {shares}"
    )
