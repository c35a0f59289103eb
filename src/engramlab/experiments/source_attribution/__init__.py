"""Source attribution: documents are read with identifiers, and the model names the one that an answer was read in.

    engramlab run source-attribution --preset tiny --out runs/sources
    engramlab run source-attribution --model models/SmolLM2-135M.gguf --sources my_documents.jsonl --out runs/mine

Documents are read with their identifier nowhere, before the text, behind it, or behind every sentence, alone or with copies
whose sentences are shuffled; then questions about half of the documents are trained, "answer ## identifier". Asked are the
questions held out: of the documents with trained ones (in-domain) and of the others (out-of-document). Every identifier is
scored, exactly, behind the model's own answer; printed with it are what guessing from the question alone gets, and what the
identifiers cost in nats a token of text. ``engramlab cite --model runs/sources "question"`` asks the best of the models.
Source: arXiv 2404.01019 and its released code; random identifiers, unconditional and told-answer Hits are ours. Intervals are
95 % bootstrap intervals over documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.source_attribution.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; arms that are done there are not done again.

    Writes ``documents.jsonl`` (in the form of BioCite), ``<arm>/answers.parquet`` (a row a question: what was answered, which
    source was named, its rank) and ``model``, the best arm's, which ``engramlab cite`` asks.

    Raises:
        UserError: anything about the options, the documents, the model or the folder, before anything is trained.
    """
    from engramlab.experiments.source_attribution.work import Attribution

    work = Attribution(config, out, preset, console)
    work.run.stages = work.planned()
    work.run.ready()
    with work.run:
        work.write_documents()
        work.run.say(work.said())
        found = {arm.name: work.results(arm) for arm in config.arms()}
        best = work.finish(found)
        training = [row for record in found.values() for row in record["training"]]
        return work.run.finish(
            seconds=sum(row["seconds"] for row in training),
            model=config.model,
            documents=len(work.documents),
            best=best,
            rows=[row for record in found.values() for row in record["rows"]],
            texts=[record["texts"] for record in found.values()],
            training=training,
        )
