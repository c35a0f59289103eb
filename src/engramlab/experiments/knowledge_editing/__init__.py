"""Editing knowledge in a model: methods x losses on a benchmark, judged by reliability, generality, portability and locality.

Reproduces the comparison of OVERTONE (arXiv 2502.00602) and the methods around it, under two protocols that are never mixed:
teacher-forced and generated. `--setting single` makes each edit on a fresh model, `continual` one after another (judged after
1, 10, 100), `batch` all at once. Run the same command again to go on after an interruption.

    engramlab run knowledge-editing --model MODEL --methods ft-m,lora,rome --benchmark world --known-only --out runs/editing
    engramlab run knowledge-editing --model MODEL --facts my_facts.csv --out runs/mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_editing.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the benchmark, the model or the folder that makes the run impossible; all of it
            is checked before the first edit.
    """
    from engramlab.experiments.knowledge_editing.work import Run

    check(config)
    run = Run(config, out, preset=preset, console=console)
    if not run.main:  # edits are not shared out: the first process makes them
        return {}
    run.load()
    with run:
        return run.results()
