"""Fact audit: does a model know these facts, and by which way can each be got out?

    engramlab run fact-audit --preset tiny --model models/SmolLM2-135M.gguf --out runs/first-look
    engramlab run fact-audit --preset full --model owner/name --facts my_facts.csv --out runs/audit

Each fact is written in several wordings, ranked among its relation's objects, ranked behind lists of other facts, and asked for
behind a passage that states it. What comes out is its class: *extractable*, *prompt-dependent*, *latent*, *recognised* or
*unknown*, with what chance gives beside it (`measuring/audit`). Where a relation has a hundred subjects in classes large
enough, the hidden states at their names are probed, too. A masked model is ranked and probed only. Sources: arXiv 2405.05904
(SliCK), 2503.15299 (Inside-Out), 2404.12957 (ZP-LKE), 2309.14316 (Q-probing); the classes and their nulls are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.fact_audit.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; relations that are done there are not done again.

    Writes ``facts.csv`` (the facts with their classes) and ``relations/<relation>/facts.parquet`` and ``answers.parquet`` (a
    row a fact and wording: what was written, and how the object fared among the options).

    Raises:
        UserError: anything about the options, the model, the facts or the folder; checked before the first fact is asked for.
    """
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.fact_audit.work import Audited, comparison, facts_csv, stage
    from engramlab.measuring.audit import agreement, by_popularity, usable

    table = check(config)
    relations, left = usable(table)
    run = Run("fact-audit", config, out, preset=preset, console=console)
    if not run.main:
        return {}
    for name, why in left.items():
        run.say(f"{name}: left out, {why}")
    parts = ["", *(["beside"] if config.beside else [])]
    run.stages = [Planned(stage(name, part), len(facts)) for part in parts for name, facts in relations.items()]
    run.ready()
    models = {"": config.model} | ({"beside": config.beside} if config.beside else {})
    asked = {part: Audited(run, part, name, table, relations) for part, name in models.items()}
    if first := next((audited for audited in asked.values() if audited.missing), None):
        first.asker  # noqa: B018  before anything is written
    with run:
        found = {}
        for part, audited in asked.items():
            found[part] = audited.results()
            audited.release()
        rows = [row for part in found.values() for row in part["rows"]]
        facts = {part: part_found["facts"] for part, part_found in found.items()}
        if run.main:
            facts_csv(run.folder / "facts.csv", facts, table)
        tenths = [
            {"part": part, **row} for part, rows_of in facts.items() for row in by_popularity(rows_of, config.seed)
        ]
        more: dict[str, Any] = {"popularity": tenths} if tenths else {}
        more["agreement"] = [
            {"part": part, **row}
            for part, rows_of in facts.items()
            for row in agreement(rows_of, {row["relation"]: row for row in found[part]["rows"]})
        ]
        more |= {"compared": comparison(facts[""], facts["beside"])} if config.beside else {}
        seconds = sum(part["seconds"] for part in found.values())
        return run.finish(
            seconds=seconds,
            model=config.model,
            beside=config.beside,
            facts=table.name,
            rows=rows,
            left_out=left,
            **more,
        )
