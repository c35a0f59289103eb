"""Knowledge folding: facts are put into the weights by a few steps, and questions answered with no fact in view.

    engramlab run knowledge-folding --out runs/folding
    engramlab run knowledge-folding --model owner/name --data prontoqa.json --inner adam --inner-rate 5e-5 --out runs/prontoqa

The model is trained so that it answers behind such steps: an outer loop goes back through them, to the weights that they start
from and to the rates of the steps. Beside it: facts in the prompt, no facts, facts of another world, plain steps without an
outer loop, rates that are not learnt, and steps that are not differentiated through. Source: RECKONING (arXiv 2305.06349,
NeurIPS 2023) and its released code; the worlds, all wordings, and that only the layers' matrices are changed are ours.
Intervals are 95 % bootstrap intervals over questions.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_folding.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]

CHECKED = 200
"""Worlds whose texts are tried for length; they are all alike."""


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; arms that are done there are not done again.

    Writes ``<arm>/answers.parquet`` (a row a question and way of asking: what was written), and ``<arm>/model``: the model with
    ``rates.json``.

    Raises:
        UserError: anything about the options, the model, the questions or the folder; a text longer than the window.
    """
    from engramlab.core import models
    from engramlab.editing import cases as editing_cases
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.knowledge_folding.config import ARMS
    from engramlab.experiments.knowledge_folding.text import Writer, episodes_of, vocabulary_texts
    from engramlab.experiments.knowledge_folding.work import School

    check(config)
    train, test = episodes_of(config)
    run = Run("knowledge-folding", config, out, preset=preset, console=console)
    run.alone()
    arms = [ARMS[name] for name in config.arms]
    run.stages = [
        Planned(name, config.steps, config.batch, 1 + (3 * config.inner_steps if arm.folds else 0))
        for name, arm in zip(config.arms, arms, strict=True)
    ]
    seen = [*test, *(train[:CHECKED] if config.data == "worlds" else train)]
    scratch = models.is_size(config.model)
    if scratch:
        tokenizer = run.scratch_tokenizer(
            lambda: vocabulary_texts(config, seen), 32_000, chosen=config.tokenizer, closed=config.data == "worlds"
        )

        def make() -> nn.Module:
            return run.fresh_model(config.model, tokenizer, context=config.context)

        new_tokens = Writer(tokenizer, config, config.context).checked(arms, seen)
        run.ready()
        window: int | None = config.context
    else:
        run.ready()
        first, tokenizer = editing_cases.model(config.model)
        window = models.context_limit(first)
        new_tokens = Writer(tokenizer, config, window).checked(arms, seen)
        held = [first]

        def make() -> nn.Module:
            return held.pop() if held else editing_cases.model(config.model)[0]

    with run:
        school = School(run, make, Writer(tokenizer, config, window), train, test, new_tokens)
        found = {name: school.results(name) for name in config.arms}
        majority = Counter(episode.answer for episode in train).most_common(1)[0][0]
        rows = [row for record in found.values() for row in record["rows"]]
        return run.finish(
            seconds=sum(record["seconds"] for record in found.values()),
            model=config.model,
            data=config.data,
            majority=sum(episode.answer == majority for episode in test) / len(test),
            rows=rows,
            rates=[{"arm": n, "groups": r["groups"], "rates": r["rates"]} for n, r in found.items() if r["rates"]],
            training=[
                {"dataset": config.data, "stage": n, **{k: r.get(k) for k in ("steps", "loss", "seconds")}}
                for n, r in found.items()
            ],
        )
