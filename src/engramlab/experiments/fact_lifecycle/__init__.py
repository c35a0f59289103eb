"""The lifecycle of facts: how long they last under further training, how far an edit reaches, what several wordings are worth.

    engramlab run fact-lifecycle --preset tiny --model models/SmolLM2-135M.gguf --out runs/lifecycle
    engramlab run fact-lifecycle --parts name --run runs/extraction --out runs/name

half-life: facts enter a model as edits or trained in, and the model goes on being trained on unrelated text; retention is what
is left of each fact over a twin that reads the same batches without it, beside facts that the model has by itself. name: does
the subject's name alone tell the edited object to a probe, or only the edited phrase? wordings: one value searched, or weights
trained, over 1 to 16 wordings at once, against copies of one wording and wordings of another relation.
Intervals are 95 % bootstrap intervals over subjects. Sources: arXiv 2511.05852, 2410.21750 (what becomes of edits and of facts
made up), 2309.14316 (probing a name), 2402.11078 (unedited facts as rows of an edit); twin, matching and controls are ours.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.fact_lifecycle.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; what is done there is not done again.

    Raises:
        UserError: anything about the options, the model, the facts or the folder, before anything is trained.
    """
    from engramlab.experiments.fact_lifecycle.half_life import HalfLife
    from engramlab.experiments.fact_lifecycle.reach import Reach
    from engramlab.experiments.fact_lifecycle.reworded import Reworded
    from engramlab.experiments.fact_lifecycle.work import Lifecycle
    from engramlab.files import records

    work = Lifecycle(config, out, preset, console)
    run = work.run
    kinds: dict[str, Any] = {"half-life": HalfLife, "name": Reach, "wordings": Reworded}
    parts = {name: kinds[name](work) for name in config.parts}
    for part in parts.values():
        run.stages += part.planned()
    with run:
        found: dict[str, Any] = {}
        seconds = 0.0
        for name, part in parts.items():
            path = run.folder / name / "results.json"
            if not path.exists():
                began = time.monotonic()
                records.write_record(path, {**part.results(), "seconds": time.monotonic() - began})
            done = records.read_record(path, ("seconds",))
            seconds += done.pop("seconds")
            found |= done
        return run.finish(
            seconds=seconds,
            model=config.model,
            facts=work.table.name if work.table is not None else "",
            parts=list(config.parts),
            **found,
        )
