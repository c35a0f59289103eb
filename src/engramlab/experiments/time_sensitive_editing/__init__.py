"""Time-sensitive editing: many facts updated at once, by tuning few parameters or by locate-and-edit; what follows?

    engramlab run time-sensitive-editing --preset tiny --model models/SmolLM2-135M.gguf --out runs/timed
    engramlab run time-sensitive-editing --model owner/name --benchmarks dated my_dates.csv --out runs/dates

Fine-tuning, LoRA on attention, MLP or both, P-tuning, ROME and MEMIT make 1, 10 and 100 edits jointly; then LoRA in a window of
layers that slides over the model. Source: Ge et al., arXiv 2406.04496. Every answer is written freely, and any alias is right;
locality is the share of answers that stayed. Intervals are 95 % bootstrap intervals over edited cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.time_sensitive_editing.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Writes ``<source>/<arm>/<edits>/done.json``: of every case what was asked and whether it was answered right.

    Raises:
        UserError: anything about the options, the files, the model or the folder; checked before the first edit.
    """
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.time_sensitive_editing.work import Work, arms, check_windows, sources_of, summarise

    check(config)
    depth, sources = check_windows(config), sources_of(config)
    run = Run("time-sensitive-editing", config, out, preset=preset, console=console)
    if not run.main:
        return {}
    work = Work(run, sources)
    parts = [(name, arm, count) for name in sources for arm in arms(config, depth) for count in work.counts(arm, name)]
    run.stages = [
        Planned(f"{arm.label}, {count} at once, {name}", len(work.groups(name, count)) * count)
        for name, arm, count in parts
    ]
    run.ready()
    if not all((work.folder(*part) / "done.json").exists() for part in parts):
        work.load()
    with run:
        return run.finish(model=config.model, **summarise(work, parts))
