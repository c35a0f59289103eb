"""Knowledge estimation: how much a model knows of a relation, shown other facts as a bare list, against questions in words.

    engramlab run knowledge-estimation --model models/SmolLM2-135M.gguf --out runs/estimated
    engramlab run knowledge-estimation --model owner/name --facts my_facts.csv --counts 0 1 5 20 --out runs/my-facts

For every relation, subjects drawn by the seed are asked for behind lists of 0 to 50 other facts ("x1 : y1 , x2 : y2 , x :"),
several lists each, and behind the table's own wordings; scored are the relation's objects. Controls put facts into the longest
list that are unknown (made-up people with an object of the relation) or incorrect (a real subject, another's object), spread
over it or in one block. Source: ZP-LKE (arXiv 2404.12957) and its released code; EIC-LKE, which packs test facts into one list,
is not here. Intervals are 95 % bootstrap intervals over subjects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.experiments.knowledge_estimation.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; relations that are done there are not done again.

    Writes ``<relation>/answers.parquet``, a row a fact and way of asking: is it right, and how probable among the options.

    Raises:
        UserError: anything about the options, the model, the facts or the folder; checked before the first fact is asked for.
    """
    from engramlab.core import models
    from engramlab.corpora.facts import FactTable
    from engramlab.editing import cases as editing_cases
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.knowledge_estimation.asking import askings, relation_of
    from engramlab.experiments.knowledge_estimation.work import check_room, results

    check(config)
    if not config.model.strip():
        raise UserError("model: say which model is asked, with --model and a model folder, a .gguf file or a hub id")
    table = config.fact_table() or FactTable.read("countries", relations=config.attributes)
    table = table.sample(config.limit, config.seed)
    run = Run("knowledge-estimation", config, out, preset=preset, console=console)
    if not run.main:
        return {}
    relations = [found for name in table.relations if (found := relation_of(run, config, table, name)) is not None]
    if not relations:
        raise UserError(
            f"{table.name}: no relation has two objects and a fact to show beside the one that is asked for"
        )
    run.stages = [Planned(relation.name, len(list(askings(config, table, relation)))) for relation in relations]
    run.ready()
    model, tokenizer = editing_cases.model(config.model, dtype=config.dtype)
    if models.mask_token(model) is not None:
        raise UserError(f"model {config.model}: is a masked language model, which does not read a list up to its end")
    for relation in relations:
        check_room(model, tokenizer, relation, config)
    rows: list[dict[str, Any]] = []
    training = []
    with run:
        for relation in relations:
            record = results(run, model, tokenizer, table, relation)
            rows += record["rows"]
            training.append({"dataset": relation.name, "stage": "asked", "seconds": record["seconds"]})
        return run.finish(
            seconds=sum(row["seconds"] for row in training),
            model=config.model,
            facts=table.name,
            rows=rows,
            asked=training,
        )
