"""Knowledge capacity: how many bits of what it has read a model stores, for every parameter, over model sizes and people.

    engramlab run knowledge-capacity --preset tiny --out runs/capacity
    engramlab run knowledge-capacity --sizes 1x32 2x64 --people 1000 2000 5000 --exposures 100 --out runs/capacity

A model of every size is trained from scratch on the biographies of every number of people, with a fixed number of exposures
of each person; the bits it stores are bounded from below by its losses on names and values (``bits.py`` has the definitions).
Source: Physics of Language Models, Part 3.3 (arXiv 2404.05405): 2 bits a parameter after 1000 exposures, 1 after 100.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from engramlab.experiments.knowledge_capacity.config import PRESETS, Config, check
from engramlab.files import runs, writing

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options or the folder that makes the run impossible, before the first training step.
    """
    from engramlab.experiments.knowledge_capacity.work import Work

    console = console or Console(stderr=True)
    check(config)
    place = runs.Run(out, "knowledge-capacity", config, preset=preset)
    work = Work(config, Path(out), console)
    main = work.accelerator.is_main_process
    if main:
        place.open()
        work.save_tokenizer()
    work.accelerator.wait_for_everyone()
    try:
        rows, training = [], []
        for size in config.sizes:
            for people in config.people:
                row, stage = work.cell(size, people)
                rows.append(row)
                training.append(stage)
        summary = {
            "experiment": "knowledge-capacity",
            "seed": config.seed,
            "seconds": round(sum(stage["seconds"] for stage in training), 1),
            "rows": rows,
            "training": training,
        }
        if main:
            writing.write_json(Path(out) / "summary.json", summary)
        return summary
    finally:
        place.close()
