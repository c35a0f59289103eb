"""Knowledge extraction: train on texts about subjects, ask about half of them, measure the other half.

    engramlab run knowledge-extraction --preset tiny --out runs/mine
    engramlab run knowledge-extraction --preset tiny --facts countries.csv --out runs/countries

For each variant of the corpus a model is pretrained on the entries and finetuned on questions about P_train (or trained on
both at once, ``--mode mixed``); extraction is its exact match on questions about P_test, whose entries it has read but whose
questions it has never seen. Source: arXiv 2309.14316, sections 2 to 4 and appendix; recipes of ``paper`` are the paper's.

A +CEL variant adds celebrities: they alone are asked about in training, and the minority (the people of the variant's name,
its P_test) is helped or not. A +TEXT variant reads unrelated text in their place (``--text``). ``--model.objective masked``
trains the same network as a masked language model that sees both ways (the paper's GBERT).

    engramlab run knowledge-extraction --preset tiny --variants single single+CEL --minority-share 0.5 --out runs/celebrities
    engramlab run knowledge-extraction --preset tiny --model.objective masked --out runs/gbert
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_extraction.config import Config, Finetune, Model, check
from engramlab.experiments.knowledge_extraction.presets import PRESETS
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.experiments.knowledge_extraction.work import Part

__all__ = ["PRESETS", "Config", "Finetune", "Model", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the facts, the tokenizer or the folder that makes the run impossible; all of it
            is checked before the first training step.
    """
    check(config)
    run = Run(config, out, preset=preset, console=console)
    parts = [Part(run, data) for data in run.datasets]
    for part in parts:
        part.check()
    run.stages = [stage for part in parts for stage in part.planned()]
    with run:
        split = run.datasets[0].split
        run.say(
            f"{out}: {'going on' if run.resumed else 'new run'}; {', '.join(part.data.name for part in parts)}; "
            f"{len(split.train)} subjects to ask about in training and {len(split.test)} held out, "
            f"{len(run.tokenizer):,} tokens in the vocabulary"
        )
        done = [part.results() for part in parts]
        training = [row for result in done for row in result["training"]]
        return run.finish(
            seconds=sum(row["seconds"] for row in training),
            rows=[row for result in done for row in result["rows"]],
            training=training,
            grid=[row for result in done for row in result["grid"]],
            best={part.data.name: result["best"] for part, result in zip(parts, done, strict=True)},
        )
