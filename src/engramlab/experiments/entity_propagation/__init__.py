"""Entity propagation: a definition is put into a model; do inferences about the entity get likelier?

    engramlab run entity-propagation --preset tiny --model models/SmolLM2-135M.gguf --out runs/entities
    engramlab run entity-propagation --model owner/name --files entity_inferences.jsonl --out runs/inferences

Each entity by itself, or many in one change (--together 20): fine-tuning on its definition, distillation from the
model that has read it, ROME; beside them the definition in front of each probe (what could be reached) and another
entity's (control). Sources: Onoe et al., arXiv 2305.01651, and Padmanabhan et al., arXiv 2306.09306 (distillation).
Probes of made-up entities ask for a fact in other words (semantic) or with its subject described (compositional);
intervals are 95 % bootstrap intervals over entities.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.entity_propagation.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Writes ``<arm>/<source>/done.json``, a row a probe; the arm "before" is the model as it is.

    Raises:
        UserError: anything about the options, the files, the model or the folder; checked before the first entity is told.
    """
    from engramlab.editing import cases as editing_cases
    from engramlab.editing.judge.beside import means
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.entity_propagation.config import METHODS
    from engramlab.experiments.entity_propagation.told import popular, told_of
    from engramlab.experiments.entity_propagation.work import BEFORE, Work, check_room, scored
    from engramlab.files import writing

    check(config)
    sources, asked = told_of(config), popular(config)
    run = Run("entity-propagation", config, out, preset=preset, console=console)
    if not run.main:
        return {}
    parts = [(arm, source) for arm in (BEFORE, *config.arms) for source in sources]
    run.stages = [
        Planned(f"{arm}, {source}", len(sources[source]), weight=config.steps if arm in METHODS else 1)
        for arm, source in parts
    ]
    run.ready()

    @cache
    def load() -> tuple[Any, Any]:
        used = tuple(dict.fromkeys(METHODS[arm] for arm in config.arms if arm in METHODS))
        model, tokenizer = editing_cases.model(config.model, dtype=config.dtype, device=config.device, methods=used)
        for told in sources.values():
            check_room(model, tokenizer, told, asked)
        return model, tokenizer

    if not all((run.folder / arm / writing.name_of(source) / "done.json").exists() for arm, source in parts):
        load()
    work = Work(run, load, asked)
    with run:
        rows, failed, times, moved, tasks = [], [], [], [], []
        known = work.tasks_before  # first: tasks that cannot be had end the run before anything is told
        for source, told in sources.items():
            before = work.part(BEFORE, source, told)
            for arm in config.arms:
                record = work.part(arm, source, told)
                about = {"source": source, "arm": arm}
                rows += [{**about, **row} for row in scored(before["rows"], record["rows"], config.seed)]
                failed += [{"source": source, **one} for one in record["failed"]]
                tasks += [{**about, "before": known.get(row["task"]), **row} for row in record["tasks"]]
                if arm in METHODS:
                    moved.append({**about, "entities": len(record["beside"]), **means(record["beside"], config.seed)})
                times.append({**about, **{name: record[name] for name in ("seconds", "editing_seconds")}})
        return run.finish(
            seconds=sum(one["seconds"] for one in times),
            model=config.model,
            together=config.together,
            rows=rows,
            failed=failed,
            times=times,
            beside=moved,
            tasks=tasks,
        )
