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

from engramlab.base.terminal import Console
from engramlab.experiments.hidden_state_probing.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the models, their texts or the folder that makes the run impossible.
    """
    from engramlab.experiments._run import Run
    from engramlab.experiments.hidden_state_probing.summary import correlations
    from engramlab.experiments.hidden_state_probing.targets import targets
    from engramlab.experiments.hidden_state_probing.work import Part

    check(config)
    run = Run("hidden-state-probing", config, out, preset=preset, console=console)
    run.alone()
    parts = [Part(run, target) for target in targets(config)]
    run.stages = [stage for part in parts for stage in part.planned()]
    with run:
        done = [part.results() for part in parts]
        found = {
            name: [row for result in done for row in result[name]] for name in ("rows", "closer", "skipped", "training")
        }
        seconds = sum(row["seconds"] for row in found["training"])
        return run.finish(seconds=seconds, spearman=correlations(found["rows"]), **found)
