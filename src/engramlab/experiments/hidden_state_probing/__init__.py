"""Hidden-state probing: how well a nearly linear probe reads each attribute at the name (Q) and before each attribute (P).

    engramlab run hidden-state-probing --preset tiny --model runs/demo --out runs/demo-probed
    engramlab run hidden-state-probing --preset pretrained --model MODEL --facts countries.csv --out runs/countries-probed

The model stays frozen. Each task (the first token of an attribute, or its whole value) trains an update of the token embedding
of low rank, a norm and a linear classifier on P_train, and is judged on P_test. A knowledge-extraction run is probed on its own
texts, every variant's pretrained model, and its P_test extraction stands beside each number; several runs make one picture.
Source: arXiv 2309.14316, section 5; recipes of `paper` are the paper's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from engramlab.base.errors import UserError
from engramlab.experiments.hidden_state_probing.config import PRESETS, Config, check
from engramlab.files import runs, writing

__all__ = ["PRESETS", "Config", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the models, their texts or the folder that makes the run impossible.
    """
    from accelerate import Accelerator

    from engramlab.experiments.hidden_state_probing.summary import correlations
    from engramlab.experiments.hidden_state_probing.targets import targets
    from engramlab.experiments.hidden_state_probing.work import Part

    console = console or Console(stderr=True)
    check(config)
    place = runs.Run(out, "hidden-state-probing", config, preset=preset)
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise UserError("probes are small and train in one process: start it without a launcher")
    parts = [Part(config, target, Path(out), accelerator, console) for target in targets(config)]
    place.open()
    try:
        done = [part.run() for part in parts]
        rows = [row for result in done for row in result["rows"]]
        training = [row for result in done for row in result["training"]]
        summary = {
            "experiment": "hidden-state-probing",
            "seed": config.seed,
            "seconds": round(sum(row["seconds"] for row in training), 1),
            "spearman": correlations(rows),
            "rows": rows,
            "closer": [row for result in done for row in result["closer"]],
            "skipped": [row for result in done for row in result["skipped"]],
            "training": training,
        }
        writing.write_json(Path(out) / "summary.json", summary)
        return summary
    finally:
        place.close()
