"""Knowledge extraction: train on texts about subjects, ask about half of them, measure the other half.

    engramlab run knowledge-extraction --preset tiny --out runs/mine
    engramlab run knowledge-extraction --preset tiny --facts countries.csv --out runs/countries

For each variant of the corpus a model is pretrained on the entries and finetuned on questions about P_train (or trained on
both at once, ``--mode mixed``); extraction is its exact match on questions about P_test, whose entries it has read but whose
questions it has never seen. Source: arXiv 2309.14316, sections 2 to 4 and appendix; recipes of ``paper`` are the paper's.

A +CEL variant adds celebrities: they alone are asked about in training, and the minority (the people of the variant's name,
its P_test) is helped or not. A +TEXT variant reads unrelated text in their place (``--text``). ``--model.objective masked``
trains the same network as a masked language model that sees both ways (the paper's GBERT).

    engramlab run knowledge-extraction --preset tiny --variants single single+CEL --minority-share 0.5 --out runs/celebrities
    engramlab run knowledge-extraction --preset tiny --model.objective masked --out runs/gbert
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from engramlab.experiments.knowledge_extraction.config import PRESETS, Config, Finetune, Model, check
from engramlab.experiments.knowledge_extraction.shared import Work
from engramlab.experiments.knowledge_extraction.work import Part
from engramlab.files import runs, writing

__all__ = ["PRESETS", "Config", "Finetune", "Model", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; an unfinished run there goes on.

    Raises:
        UserError: anything about the options, the facts, the tokenizer or the folder that makes the run impossible; all of it
            is checked before the first training step.
    """
    console = console or Console(stderr=True)
    check(config)
    place = runs.Run(out, "knowledge-extraction", config, preset=preset)
    work = Work(config, Path(out), console)
    parts = [Part(work, data) for data in work.datasets]
    for part in parts:
        part.check()
    main = work.accelerator.is_main_process
    if main:
        place.open()
        work.save_tokenizer()
        split = work.datasets[0].split
        work.say(
            f"{out}: {'going on' if place.resumed else 'new run'}; {', '.join(part.data.name for part in parts)}; "
            f"{len(split.train)} subjects to ask about in training and {len(split.test)} held out, "
            f"{len(work.tokenizer):,} tokens in the vocabulary"
        )
    work.accelerator.wait_for_everyone()
    try:
        done = [part.run() for part in parts]
        summary = {
            "experiment": "knowledge-extraction",
            "seed": config.seed,
            "seconds": round(sum(row["seconds"] for result in done for row in result["training"]), 1),
            "rows": [row for result in done for row in result["rows"]],
            "training": [row for result in done for row in result["training"]],
            "best": {part.data.name: result["best"] for part, result in zip(parts, done, strict=True)},
        }
        if main:
            writing.write_json(Path(out) / "summary.json", summary)
        return summary
    finally:
        place.close()
