"""Learning to edit: trains a model once to go by new facts that stand before a question, where they bear on it and only there.

    engramlab run learning-to-edit --preset tiny --model models/SmolLM2-135M.gguf --out runs/aligned
    engramlab edit --model runs/aligned/model --method lte ...

Every example is trained twice, with the block of new facts and without: questions in its scope (the new answer, and the
old one), questions out of its scope and other instructions (the same answer twice). Facts are those of `world` about
countries that no test speaks of. Judged is what the block then does on the others, one edit at a time and many in one
memory, beside the untouched model under the same block and under IKE. Source: arXiv 2402.11905; the data, the wording of
the block and the instructions are ours, and much smaller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.learning_to_edit.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; what is done there is not done again.

    Writes ``model`` (the aligned model of the first arm that trains, as plain transformers loads it) and, for each arm,
    ``rows.parquet`` (a row a query).

    Raises:
        UserError: anything about the options, the model or the folder, before anything is trained.
    """
    from engramlab.experiments.learning_to_edit.work import Alignment

    work = Alignment(config, out, preset, console)
    with work.run as run:
        found = {name: work.results(name) for name in config.arms}
        return run.finish(
            seconds=sum(float(record["seconds"]) for record in (work.before, *found.values())),
            model=config.model,
            rows=[row for record in found.values() for row in record["scores"]],
            beside=[row for record in found.values() for row in record.get("beside", ())],  # none of older runs
            tasks=[row for record in found.values() for row in record.get("tasks", ())],
            kept=[record["kept"] for record in found.values() if record.get("kept")],
            training=[
                {
                    "dataset": name,
                    "stage": "train",
                    **{k: record.get(k) for k in ("steps", "tokens", "loss", "seconds")},
                }
                for name, record in found.items()
                if record["steps"]
            ],
            examples=len(work.rows("aligned").examples),
            training_cases=len(work.training),
            test_cases=len(work.tested),
            kept_arm=next(iter(config.trained), None),
        )
