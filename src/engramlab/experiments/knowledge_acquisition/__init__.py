"""Knowledge acquisition: facts injected into a stream of pretraining text, measured at every step.

Goes on training a checkpoint on a text stream, puts passages about things it cannot know into some rows at planned steps, and
measures the log-probability of their targets at three depths: how far each encounter lifts it (effectivity), how much of that
is left t steps later (retainability), and how long an interval between encounters may be (learnability threshold).
Source: arXiv 2406.11813. Run the same command again to go on after an interruption.

    engramlab run knowledge-acquisition --preset tiny --out runs/acquisition
    engramlab run knowledge-acquisition --model MODEL --stream texts/ --inject passages.jsonl --schedule all --out runs/mine
    engramlab run knowledge-acquisition --model MODEL --stream texts/ --facts my_facts.csv --out runs/facts
    engramlab run knowledge-acquisition --batch 8 32 --interval 80 --out runs/batches   (several values: a part of the run each)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.acquisition.curves import CurveOptions
from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_acquisition.config import Config, Fiction, Optimizer, check
from engramlab.experiments.knowledge_acquisition.presets import PRESETS

__all__ = ["PRESETS", "Config", "CurveOptions", "Fiction", "Optimizer", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the passages, the stream, the model or the folder that makes the run impossible,
            all of it before the first training step; a loss that is not finite or has exploded, with the last checkpoint kept.
    """
    from engramlab.experiments.knowledge_acquisition.part import Part
    from engramlab.experiments.knowledge_acquisition.setup import Run
    from engramlab.experiments.knowledge_acquisition.summary import summarise

    check(config)
    run = Run(config, out, preset=preset, console=console)
    run.read_stream()
    parts = [Part(run, part) for part in run.parts]
    run.stages = list({stage.label: stage for part in parts for stage in part.planned()}.values())
    with run:
        run.begin()
        training = [row for part in parts for row in part.results()]
        unique = {(row["dataset"], row["stage"]): row for row in training}
        return summarise(run.folder, config, run.parts, list(unique.values()), run.groups, run.readings)
