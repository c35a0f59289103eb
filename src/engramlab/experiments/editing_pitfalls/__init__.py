"""Editing pitfalls: two edits that touch, or an answer edited away and back, and the damage that single scores hide.

    engramlab run editing-pitfalls --preset tiny --model models/SmolLM2-135M.gguf --out runs/pitfalls
    engramlab run editing-pitfalls --model owner/name --files easy.json --round-wordings round_prompts.json --out runs/easy

Knowledge conflict: a fact and its inverse, a fact and one that follows from it, one fact twice (control); each two edits in a
row, of which the second overrules the first. Knowledge distortion: one of several right answers edited away and back; the way
back is also made as one edit to all right answers (MLE). Source: Li et al., arXiv 2310.02129. A probability is the mean over a
prompt and its wordings of exp(mean log-probability); intervals are 95 % bootstrap intervals over cases.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.editing_pitfalls.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Writes ``<method>/<source>/done.json``: of every case, how likely each of its facts was before, between and after.

    Raises:
        UserError: anything about the options, the files, the model or the folder; checked before the first edit.
    """
    from engramlab.base.options import comma_separated
    from engramlab.editing import cases as editing_cases
    from engramlab.editing import hyper, method
    from engramlab.editing.requests import encode_edits
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.editing_pitfalls.asked import items_of
    from engramlab.experiments.editing_pitfalls.work import part, scored
    from engramlab.files import writing

    check(config)
    sources = items_of(config)
    names = comma_separated(config.methods)

    def recorded(plain: dict[str, Any]) -> dict[str, Any]:
        """``any_of`` in full, as it was recorded when it had no None."""
        return plain | ({"any_of": list(config.joint)} if plain["any_of"] is None else {})

    run = Run("editing-pitfalls", config, out, preset=preset, console=console, recorded=recorded)
    if not run.main:
        return {}
    run.stages = [
        Planned(f"{name}, {source}", len(items), weight=getattr(hyper.of(config.hyper, name), "steps", 1))
        for name in names
        for source, items in sources.items()
    ]
    run.ready()

    @cache
    def load() -> tuple[Any, Any]:
        made = editing_cases.model(config.model, dtype=config.dtype, device=config.device, methods=names)
        edits = [[edit] for items in sources.values() for item in items for edit in (*item.edits, *item.back)]
        encode_edits(made[1], edits, subjects=any(method.load(name).NEEDS_SUBJECT for name in names))
        return made

    parts = [(name, source) for name in names for source in sources]
    if not all((run.folder / name / writing.name_of(source) / "done.json").exists() for name, source in parts):
        load()
    with run:
        rows, failed, times = [], [], []
        for name, source in parts:
            record = part(run, load, name, source, sources[source])
            rows += scored(record, source, sources[source], config.seed)
            failed += [{"source": source, **one} for one in record["failed"]]
            times.append({"method": name, "source": source, "seconds": record["seconds"]})
        return run.finish(
            seconds=sum(one["seconds"] for one in times), model=config.model, rows=rows, failed=failed, times=times
        )
