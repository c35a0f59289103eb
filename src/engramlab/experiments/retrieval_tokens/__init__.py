"""Retrieval tokens: do a few trained vectors between passages and question make a frozen model read better?

    engramlab run retrieval-tokens --out runs/tokens
    engramlab run retrieval-tokens --preset small --model models/SmolLM2-135M.gguf --out runs/tokens
    engramlab run retrieval-tokens --preset small --model owner/name --records nq_train.jsonl --out runs/tokens
    engramlab run retrieval-tokens --preset small --model owner/name --facts facts.csv --documents notes/ --retrieval words

A question stands behind passages: the one that states the answer and up to four on something else, or those that were
retrieved. Only the vectors are trained; each step reads the first k of them, so any number works later. Asked are questions
about subjects that training never saw: plainly, with the untrained vectors, with the first k trained ones, and by LoRA, trained
on the same rows. Without passages the model is itself, to the last bit, which is measured; LoRA's model is not.

Source: SPRING, arXiv 2405.19670. Its twelve question sets, its retriever and its mixture are not here; the rows made of facts,
the controls and the model from scratch are ours: that reads entries of people in pairs, never a question, and the vectors must
teach it what a question is. Intervals are 95 % bootstrap intervals over subjects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.retrieval_tokens.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; stages that are done there are not done again.

    Writes ``reading/<stage>`` with ``answers.parquet`` (a row a question and way), ``reading/tokens/vectors`` (for
    ``eg.VirtualTokens.load``), and for a model from scratch ``reading/pretrain/model``.

    Raises:
        UserError: anything about the options, the model, the files or the folder, before anything is trained.
    """
    from engramlab.experiments._run import Run
    from engramlab.experiments.retrieval_tokens.data import made
    from engramlab.experiments.retrieval_tokens.work import Work

    check(config)
    data = made(config)
    run = Run("retrieval-tokens", config, out, preset=preset, console=console)
    run.alone()
    work = Work(run, data)
    run.stages = work.planned()
    run.ready()
    work.prepare()
    with run:
        found = {name: work.results(name) for name in work.stages}
        if left := found["plain"]["left_out"]:
            run.say(f"{left} passages were left out, whole, as they do not fit the model beside their questions")
        return run.finish(
            seconds=sum(record["seconds"] for record in found.values()),
            model=config.model,
            data=data.name,
            tokens=config.tokens,
            passages_left_out=found["plain"]["left_out"],
            answer_in_passages=found["plain"]["answer_in_passages"],
            trained_subjects=len(data.subjects[0]),
            rows=[row for record in found.values() for row in record.get("rows", [])],
            without=[row for record in found.values() for row in record.get("without", [])],
            training=[
                {"dataset": "reading", "stage": name, **{k: record[k] for k in ("steps", "tokens", "loss", "seconds")}}
                for name, record in found.items()
                if "steps" in record
            ],
        )
