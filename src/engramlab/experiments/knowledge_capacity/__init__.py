"""Knowledge capacity: how many bits of what it has read a model stores, for every parameter, over model sizes and people.

    engramlab run knowledge-capacity --preset tiny --out runs/capacity
    engramlab run knowledge-capacity --sizes 1x32 2x64 --people 1000 2000 5000 --exposures 100 --out runs/capacity

A model of every size (and network, mixture, learning rate) is trained from scratch on the biographies of every number of
people, with a fixed number of exposures of each person; the bits it stores are bounded from below by its losses on names and
values (``bits.py`` has the definitions). A preset for each of the paper's comparisons is a tiny one: tiny-1000, tiny-junk, ...
Source: Physics of Language Models, Part 3.3 (arXiv 2404.05405): 2 bits a parameter after 1000 exposures, 1 after 100.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_capacity.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options or the folder that makes the run impossible, before the first training step.
    """
    from engramlab.experiments.knowledge_capacity.work import Run

    check(config)
    run = Run(config, out, preset=preset, console=console)
    run.stages = [run.planned(cell) for cell in run.cells()]
    with run:
        parts = [run.part(cell) for cell in run.cells()]
        training = [stage for _, stage in parts]
        seconds = sum(stage["seconds"] for stage in training)
        return run.finish(seconds=seconds, rows=[row for rows, _ in parts for row in rows], training=training)
