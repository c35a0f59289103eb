"""Plug-in memory: a network that looks facts up in documents, which are added, exchanged and taken away without training.

    engramlab run plug-in-memory --preset tiny --out runs/plug
    engramlab run plug-in-memory --preset tiny --facts countries.csv --out runs/plug-countries

A masked network is trained on entries about subjects and on questions about half of them, with one entry a subject in its
memory; and the same network on the same rows without a memory. Both are then asked about everybody. Then some subjects'
documents are exchanged for ones with another value, the documents of subjects that nothing was read about are added, and at
last the memory is emptied. Reported beside the answers: how often a question's document was among those read. An entry that is
read in training does not find itself in the memory (`--memory.own in` lets it). Source: PlugLM, arXiv 2305.11564; the people,
their questions and `--model.objective causal` are ours. Intervals are 95 % bootstrap intervals over subjects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.plug_in_memory.config import PRESETS, Config, Memory, Model, check

__all__ = ["PRESETS", "Config", "Memory", "Model", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the facts or the folder that makes the run impossible; all of it is checked
            before the first training step.
    """
    from engramlab.experiments._run import Planned
    from engramlab.experiments.plug_in_memory.shared import Run
    from engramlab.experiments.plug_in_memory.work import Part, Texts

    check(config)
    run = Run(config, out, preset=preset, console=console)
    run.alone()
    texts = Texts(run, run.data)
    names = ["memory", *(["bare"] if config.bare else [])]
    parts = [Part(run, texts, name) for name in names]
    parts[0].checked()
    recipe = config.recipe
    run.stages = [Planned(name, recipe.steps, recipe.batch, texts.longest(), run.first_model) for name in names]
    with run:
        run.say(
            f"{out}: {'going on' if run.resumed else 'new run'}; {len(texts.known)} documents in the memory, "
            f"{len(texts.groups['unseen'])} to be added"
        )
        done = {part.name: part.results() for part in parts}
        return run.finish(
            seconds=sum(record["seconds"] for record in done.values()),
            variant=run.data.name,
            objective=config.model.objective,
            top=config.memory.top,
            documents=len(texts.known),
            rows=[row for record in done.values() for row in record["rows"]],
            changes=done["memory"]["changes"],
            beta=done["memory"]["beta"],
            training=[
                {"dataset": name, "stage": "training", **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
                for name, record in done.items()
            ],
        )
