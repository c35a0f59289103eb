"""Where knowledge lives: the same facts in weights, by training and by editing, in a memory, in retrieval and in the prompt.

    engramlab run where-knowledge-lives --out runs/where
    engramlab run where-knowledge-lives --facts table.csv --out runs/where
    engramlab run where-knowledge-lives --preset small --model models/SmolLM2-135M.gguf --facts table.csv --out runs/where

One set of facts is put into a model five ways: LoRA on all projections, trained on many wordings of the facts and on
questions about half of the subjects; an editing method; a plug-in memory (PlugLM, arXiv 2305.11564); passages behind which
trained virtual tokens stand (SPRING, arXiv 2405.19670); and plain passages in the prompt. Asked are questions about the other
half of the subjects, in wordings that were never trained with these facts, before and after. Beside that stand what it costs to
add a fact, to change one and to answer, how much of what the model knew before it still answers, and whether the document read
was the fact's own. The comparison is ours. Intervals are 95 % bootstrap intervals over subjects; differences are taken question
by question.

From scratch a network reads of people that it knows, in all wordings, and learns to read answers from passages on others; the
network with a memory is trained on the same people. A model that exists has no plug-in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.where_knowledge_lives.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; stages that are done there are not done again.

    Writes ``ways/<stage>`` with ``answers.parquet``: a row a question, before and after.

    Raises:
        UserError: anything about the options, the model, the facts or the folder, before anything is trained.
    """
    from engramlab.experiments._run import Run
    from engramlab.experiments.where_knowledge_lives.data import made
    from engramlab.experiments.where_knowledge_lives.work import Work

    check(config)
    data = made(config)
    run = Run("where-knowledge-lives", config, out, preset=preset, console=console)
    run.alone()
    work = Work(run, data)
    work.prepare()
    run.stages = work.planned()
    with run:
        run.say(
            f"{len(data.taught)} facts about {len(data.taught.subjects)} subjects are put in; asked about "
            f"{len(data.halves[1])} of them and {len(data.natives.subjects)} that are known"
        )
        found = {name: work.results(name) for name in work.stages}
        left = [] if config.scratch or "memory" not in config.ways else ["memory"]
        return run.finish(
            seconds=sum(record["seconds"] for record in found.values()),
            model=config.model,
            data=data.name,
            facts=len(data.taught),
            subjects=len(data.taught.subjects),
            asked_subjects=len(data.halves[1]),
            edit_method=config.edit_method,
            rows=[record["row"] for record in found.values() if "row" in record],
            left_out=left,
            training=[
                {"dataset": "ways", "stage": name, **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
                for name, record in found.items()
                if "steps" in record
            ],
        )
