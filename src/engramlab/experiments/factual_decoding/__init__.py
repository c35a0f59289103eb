"""Factual decoding: does contrasting layers or contexts make a model say truer things?

    engramlab run factual-decoding --preset tiny --model models/SmolLM2-135M.gguf --out runs/decoded
    engramlab run factual-decoding --model owner/name --truthfulqa TruthfulQA.csv --factor news_factor.csv --out runs/decoded

DoLa (arXiv 2309.03883) among answers to choose from (facts, TruthfulQA, FACTOR): low, high, static and random layers beside
greedy decoding; layers are chosen on one half of the questions and reported on the other. CAD (arXiv 2305.14739) and MICD
(arXiv 2405.02750) behind passages that are true, counterfactual or on something else, over the weight of the contrast. Also:
how far each layer is from the last at answers and at function words, and the time of each decoder beside greedy's. Intervals
are 95 % bootstrap intervals over questions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.experiments.factual_decoding.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; stages that are done there are not done again.

    Writes a folder a stage, with ``answers.parquet``: a row a question and decoder.

    Raises:
        UserError: anything about the options, the model, the files or the folder; checked before the first question is asked.
    """
    from engramlab.core import models
    from engramlab.corpora.facts import FactTable
    from engramlab.editing import cases as editing_cases
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.factual_decoding.choices import ways
    from engramlab.experiments.factual_decoding.work import Work

    check(config)
    if not config.model.strip():
        raise UserError("model: say which model is asked, with --model and a model folder, a .gguf file or a hub id")
    table = config.fact_table() or FactTable.read("countries", relations=config.attributes)
    run = Run("factual-decoding", config, out, preset=preset, console=console)
    if not run.main:
        return {}

    @cache
    def load() -> tuple[Any, Any]:
        model, tokenizer = editing_cases.model(config.model, dtype=config.dtype)
        if models.mask_token(model) is not None:
            raise UserError(f"model {config.model}: is a masked language model, which does not write; ask a causal one")
        ways(config, model)  # layers that it does not have
        return model, tokenizer

    work = Work(run, table, load)
    names = list(work.stages())
    if not names:
        raise UserError(
            f"{table.name}: no relation has four different objects, which passages need; add facts or parts"
        )
    run.stages = [Planned(name, 1) for name in names]
    run.ready()
    if not all((run.folder / name / "done.json").exists() for name in names):
        load()
    with run:
        found = {name: work.results(name) for name in names}
        for name in names:
            for text in found[name].get("left_out", []):
                run.say(f"left out: {text}")
        chosen = [record for name, record in found.items() if name.startswith("choices-")]
        return run.finish(
            seconds=sum(record["seconds"] for record in found.values()),
            model=config.model,
            facts=table.name,
            rows=[row for record in chosen for row in record["rows"]],
            chosen=[record["chosen"] for record in chosen],
            left_out=sum(len(record["left_out"]) for record in chosen),
            spans=found.get("spans", {}).get("rows", []),
            passages=found.get("passages", {}).get("rows", []),
            files=[row for name, record in found.items() if name.startswith("file-") for row in record["rows"]],
            speed=found.get("speed", {}).get("rows", []),
            asked=[{"dataset": name, "stage": "asked", "seconds": record["seconds"]} for name, record in found.items()],
        )
