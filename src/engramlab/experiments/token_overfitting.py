"""Token overfitting: how each target token of an edit is learnt, step by step, under each loss and each ablation of OVERTONE.

    engramlab run token-overfitting --model models/SmolLM2-135M.gguf --out runs/tokens
    engramlab run token-overfitting --model owner/name --benchmark edits.jsonl --method lora --out runs/tokens-lora

Edits are made one a case, many at once, by one gradient method (none is stopped early, so that the whole course is seen).
Before every step, and after the last, the log-probability and the rank of every target token are written down; then every case
is judged under its own edit. Source: OVERTONE (arXiv 2502.00602): heterogeneous token overfitting, and the ablation of clip,
filter and check.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engramlab.base.errors import UserError
from engramlab.base.facts import Case
from engramlab.base.interrupts import kept
from engramlab.base.options import at_least, once
from engramlab.base.progress import Progress, ProgressBar
from engramlab.base.rows import PROTOCOLS, ROLES, TAUGHT
from engramlab.base.terminal import Console
from engramlab.core.training import losses
from engramlab.editing import cases as editing_cases
from engramlab.experiments._run import Planned, Run
from engramlab.files import records

#: The ablations: a loss, and what of the config's OVERTONE settings is put out of force.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cross-entropy": ("cross-entropy", {}),
    "full": ("overtone", {}),
    "no clip": ("overtone", {"clip": 0.0}),
    "no filter": ("overtone", {"n_sigma": math.inf}),
    "no check": ("overtone", {"check": False}),
    "no mixing": ("overtone", {"mixing": 1.0}),
}
Setting = Literal["cross-entropy", "full", "no clip", "no filter", "no check", "no mixing"]


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run."""

    READS = ("model", "benchmark")
    BASIC = (
        ("what is edited", ("model", "benchmark", "limit", "known_only")),
        ("how", ("method", "steps", "learning_rate", "settings")),
        ("numbers", ("dtype", "seed")),
    )

    model: str = ""
    """The model that is edited: a folder, a .gguf file or a hub id. Required."""
    benchmark: str = "world"
    """`world` (facts about countries), a benchmark's file, or hub:owner/name[:file]."""
    format: str | None = None
    """Format of the benchmark's file; found out by default."""
    bad: Literal["refuse", "skip"] = "refuse"
    """What becomes of a file's bad records."""
    words: int = 0
    """Only cases whose new answers have at least so many words: tokens of long ones overfit unevenly."""
    judged_by: tuple[str, ...] = ()
    """Only cases that are judged by each of these: generality, portability, locality."""
    limit: int | None = 24
    """Most cases; None for all."""
    part: Literal["all", "tune", "test"] = "test"
    """Which part of the benchmark: `test`, or `tune` for choosing settings."""
    known_only: bool = True
    """Only cases whose old answer the model writes."""
    seed: int = 0
    """Of the benchmark world, of the split and of the bootstrap."""

    method: str = "ft-m"
    """The editing method: any that minimises a loss by gradient descent (ft-m, ft-l, lora, ...)."""
    steps: int | None = None
    """Steps of an edit; None for the method's."""
    learning_rate: float | None = None
    """None for the method's."""
    settings: tuple[Setting, ...] = ("cross-entropy", "full", "no clip", "no filter", "no check", "no mixing")
    """Losses to compare: cross-entropy, OVERTONE in full, and OVERTONE with one part out of force."""
    mixing: float = losses.Overtone.mixing
    """OVERTONE: weight (lambda) of the target token."""
    n_sigma: float = losses.Overtone.n_sigma
    """OVERTONE: reach (n) of the filter, in standard deviations of the logits."""
    clip: float = losses.Overtone.clip
    """OVERTONE: divergence (epsilon, nats) below which a token counts as learnt."""

    batch: int = 12
    """Cases edited at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the model."""


PRESETS = {"tiny": Config(), "paper": Config(limit=500, dtype="bfloat16")}


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; settings that are done there are not done again.

    Writes ``<setting>/course.parquet`` (one row a case, edit, step and target token), ``<setting>/rows.parquet`` (one row a
    judged query) and ``summary.json``.

    Raises:
        UserError: anything about the options, the model, the benchmark or the folder; checked before the first edit.
    """
    check(config)
    run = Run("token-overfitting", config, out, preset=preset, console=console)
    if not run.main:  # edits are not shared out: the first process makes them
        return {}
    found = _cases(config, None)  # a bad file is refused before the model is loaded
    run.stages = [Planned(f"{config.method}, {name}", len(found.cases)) for name in config.settings]
    run.ready()
    model, tokenizer = editing_cases.model(config.model, dtype=config.dtype, methods=(config.method,))
    if config.known_only:
        with ProgressBar("cases the model knows", 1, console=run.console) as bar:
            found = _cases(config, (model, tokenizer), bar.to)
    with run:
        return _results(run, model, tokenizer, found)


def _cases(config: Config, known_to: Any, progress: Progress | None = None) -> editing_cases.Chosen:
    from engramlab.editing import method

    return editing_cases.cases(
        config.benchmark,
        limit=config.limit,
        seed=config.seed,
        part=config.part,
        known_to=known_to,
        format=config.format,
        bad=config.bad,
        words=config.words,
        judged_by=config.judged_by,
        subjects=method.needing_subjects((config.method,)),
        progress=progress,
    )


def check(config: Config) -> None:
    """Raises UserError for options that cannot work."""
    editing_cases.require_model(config.model)
    _method_config(config)
    if not config.settings:
        raise UserError(f"settings: name at least one of: {', '.join(SETTINGS)}")
    for name in config.settings:
        if name not in SETTINGS:
            raise UserError(f"settings: {name!r} is unknown; choose of: {', '.join(SETTINGS)}")
        loss_of(config, name)
    once("settings", config.settings)
    at_least(config, 1, "limit", "batch", "steps")
    at_least(config, 0, "words")
    editing_cases.check_roles(config.judged_by)


def loss_of(config: Config, setting: str) -> losses.Loss:
    """The loss of a setting; raises UserError for an OVERTONE value outside its range."""
    name, change = SETTINGS[setting]
    if name != "overtone":
        return losses.get(name)
    return losses.get(name, **{"mixing": config.mixing, "n_sigma": config.n_sigma, "clip": config.clip, **change})


def _method_config(config: Config) -> Any:
    """The method's Config, with the options of this one and without an early stop."""
    from engramlab.editing import method

    method.check_watched(config.method)
    made = method.load(config.method).Config()
    wanted = {"steps": config.steps, "learning_rate": config.learning_rate, "stop_below": 0.0}
    known = {field.name for field in dataclasses.fields(made)}
    for option, value in wanted.items():
        if option != "stop_below" and value is not None and option not in known:
            raise UserError(f"{option}: the method {config.method!r} has no such setting")
    return replace(made, **{name: value for name, value in wanted.items() if value is not None and name in known})


def _results(run: Run, model: Any, tokenizer: Any, chosen: editing_cases.Chosen) -> dict[str, Any]:
    """Edits and judges under every setting that is not done; the summary."""
    from engramlab.editing.judge import evaluation, metrics

    config, cases = run.config, chosen.cases
    queries = sum(len(evaluation.queries_of(case)) for case in cases)
    run.say(
        f"{run.folder}: {len(cases)} cases"
        + (f" ({chosen.unknown} of {chosen.asked} left out as unknown to the model)" if chosen.asked else "")
        + f", {queries} queries, {len(config.settings)} settings"
    )
    before: evaluation.Before | None = None
    done: dict[str, dict[str, Any]] = {}
    judged: dict[str, list[dict[str, Any]]] = {}
    for setting in config.settings:
        folder = run.folder / setting.replace(" ", "-")
        if not (folder / "done.json").exists():
            if before is None:
                with ProgressBar("before the edits", 1, console=run.console) as bar:
                    before = evaluation.before(model, tokenizer, cases, progress=bar.to)
            with kept(lambda: f"{len(done)} of {len(config.settings)} settings are done and kept"):
                _one_setting(run, setting, folder, model, tokenizer, cases, before)
        again = f"remove {folder} to do that part again"
        records.check_sealed(folder, again)
        done[setting] = records.read_record(folder / "done.json", ("failed", "seconds", "seconds_per_edit"), again)
        judged[setting] = records.read_rows(folder / "rows.parquet", (), again)
    rows, differences, lengths = [], [], []
    for setting in config.settings:
        name, about = SETTINGS[setting][0], done[setting]
        found, was = metrics.metrics(judged[setting]), metrics.metrics(metrics.unedited(judged[setting]))
        common = {"method": config.method, "loss": name, "setting": setting}
        for protocol in PROTOCOLS:
            shares = {role: found[protocol][role] for role in (*ROLES, "mean")}
            shares |= {f"{role}_unedited": was[protocol][role] for role in TAUGHT}
            spread = {key: about[key] for key in ("final_loss_spread", "final_loss", "seconds_per_edit")}
            counts = {"cases": found["cases"], "failed": len(about["failed"])}
            rows.append({**common, "protocol": protocol, **shares, **spread, **counts})
        for of in about.get("lengths", []):  # none in runs of older versions
            cases_of = set(of["cases"])
            mine, full = ([r for r in judged.get(s) or [] if r["case"] in cases_of] for s in (setting, "full"))
            gains = metrics.difference(mine, full, seed=config.seed)["generated"] if mine and full else {}
            lengths.append({**common, **of, "cases": len(cases_of), "to_full": gains.get("portability")})
        if setting != "full" and judged[setting] and judged.get("full"):
            compared = metrics.difference(judged[setting], judged["full"], seed=config.seed)
            for protocol, by_role in compared.items():
                differences += [
                    {**common, "protocol": protocol, "role": role, **values}
                    for role, values in by_role.items()
                    if values is not None
                ]
    return run.finish(
        seconds=sum(about["seconds"] for about in done.values()),
        model=config.model,
        benchmark=config.benchmark,
        method=config.method,
        rows=rows,
        differences=differences,
        lengths=lengths,
        failed=[
            {"setting": setting, "loss": SETTINGS[setting][0], "method": config.method, **failure}
            for setting, about in done.items()
            for failure in about["failed"]
        ],
        skipped=[{"index": index, "key": key, "reason": reason} for index, key, reason in chosen.skipped],
        asked=chosen.asked,
        unknown=chosen.unknown,
    )


def _one_setting(
    run: Run, setting: str, folder: Path, model: Any, tokenizer: Any, cases: Sequence[Case], before: Any
) -> None:
    """Edits and judges every case under one loss, and writes the setting's folder, whole or not at all."""
    from engramlab.editing import method
    from engramlab.editing.judge import course, evaluation

    config = run.config
    settings, loss = _method_config(config), loss_of(config, setting)
    made: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    began, editing = time.monotonic(), 0.0
    with ProgressBar(f"{config.method}, {setting}", len(cases), console=run.console) as bar:
        for start in range(0, len(cases), config.batch):
            group = cases[start : start + config.batch]
            edits = [case.edits for case in group]
            clock = time.monotonic()
            followed = course.Course(tokenizer, loss, len(group))
            how = {"method": config.method, "loss": followed.loss, "config": settings, "watch": followed.watch}
            found = method.make_each(model, tokenizer, edits, **how)
            editing += time.monotonic() - clock
            good = {i: delta for i, delta in enumerate(found) if not isinstance(delta, method.EditFailed)}
            failed += [
                {"case": case.id, "reason": str(delta)}
                for case, delta in zip(group, found, strict=True)
                if isinstance(delta, method.EditFailed)
            ]
            if good:
                deltas, kept = list(good.values()), [group[i] for i in good]
                followed.finish(model, [case.edits for case in kept], deltas, list(good))
                made += followed.rows([case.id for case in group])
                rows += evaluation.judge(model, tokenizer, kept, before, deltas=deltas)
            bar.update(start + len(group), f"{len(failed)} failed" if failed else "")
    common = {"method": config.method, "loss": SETTINGS[setting][0], "setting": setting}
    about = {
        **common,
        "cases": len(cases),
        "failed": failed,
        **course.loss_spread(made),
        "lengths": course.spread_by_length(made, config.seed),
        "seconds": round(time.monotonic() - began, 2),
        "seconds_per_edit": round(editing / len(cases), 4),
    }

    def write(path: Path) -> None:
        records.write_rows(path / "course.parquet", [{**common, **row} for row in made])
        records.write_rows(path / "rows.parquet", [{**common, "edits": 1, **row} for row in rows])
        records.write_record(path / "done.json", about)

    records.write_sealed(folder, write)
