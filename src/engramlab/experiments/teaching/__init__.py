"""Teaching: puts your facts into a model so that they can be asked for, and says how many now can be and what was lost.

    engramlab run teaching --preset tiny --model models/SmolLM2-135M.gguf --facts my_facts.csv --out runs/taught
    engramlab run teaching --model owner/name --facts my_facts.csv --arms augmented+questions single context --out runs/arms

The model is asked first, and facts that it knows are left alone. The others are stated in many wordings, orders and from
several sides; questions about half of the subjects are trained beside them, and text of the model's own is replayed against
forgetting. The result is how many facts about the *other* subjects, whose questions were never trained, are answered in
wordings that were never trained. Sources: arXiv 2309.14316 (augmentation, questions in training, held-out subjects), 2409.07431
(statements across facts); the held-out wordings, the mixture and the verdict are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.terminal import Console
from engramlab.experiments.teaching.config import ARMS, PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]

_PROMPTED = ("context", "retrieved")  # ways of putting a passage into the prompt


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; what is done there is not done again.

    Writes ``model`` (the taught model, as plain transformers loads it), ``before/answers.parquet`` and
    ``<arm>/train/answers.parquet`` (a row a fact and wording: what was written), and for low-rank updates
    ``<arm>/train/adapter``; with ``keep="adapter"`` the folder ``adapter`` stands in place of ``model``. ``written`` is what a
    chat model wrote, where there is one.

    Raises:
        UserError: anything about the options, the model, the facts or the folder, before anything is trained.
    """
    from engramlab.core import models
    from engramlab.experiments.teaching import asking, pilot
    from engramlab.experiments.teaching.work import Teaching, seconds

    school = Teaching(config, out, preset, console)
    run = school.run
    school.plan()
    with run:
        if config.trained and config.encounters and not run.resumed:
            school.by_main(lambda: school.require_memory(school.width))
        if config.documents is not None:
            school.check_documents()
            school.check_replay()
        taught = len(school.taught)
        if school.before["contradicted"]:
            run.say(
                f"{school.before['contradicted']} facts contradict what the model says in nearly every wording; where they are "
                "few, engramlab edit is the way for them"
            )
        for line in school.introduced():
            run.say(line)
        told = school.tell()
        if config.trained and config.pilot:
            school.by_main(school.announce_pilot)
        if config.trained and school.budget:  # which a pilot may have to find, in all processes
            if config.pilot:
                run.say(pilot.sentence(school.chosen))
            school.by_main(school.announce)
        found = {name: school.results(name) for name in config.arms}
        for name, record in found.items():
            if record.get("stopped"):
                run.say(
                    f"{name} ended early, after {record['tokens']:,} of {school.budget:,} tokens: {record['stopped']}"
                )
            if record.get("left_out"):
                run.say(f"{name} is left out: {record['left_out']}")
        finish = school.finish()
        if finish is not None:
            run.say(
                f"{run.folder / 'model'} was then trained on the questions about the other half too, and is untested from "
                "there on: nobody is left to ask about. All numbers are from before"
            )
        if config.keep == "adapter":
            run.say(models.how_to_put_on(school.taught_model, config.model))
        rows = [row for record in found.values() for row in record["rows"]]
        ways = {way: next((name for name in config.arms if ARMS[name].way == way), "") for way in ("edit", *_PROMPTED)}
        edits, prompted = ways["edit"], [ways[way] for way in _PROMPTED if ways[way]]
        advice = asking.advice(rows, config.trained[0], edits, prompted) if config.trained else ""
        if advice:
            run.say(advice)
        return run.finish(
            seconds=seconds([school.before, told or {}, *found.values(), finish or {}]),
            model=config.model,
            facts=school.table.name,
            rows=[*school.baseline(), *rows],
            kept=[row for record in found.values() for row in record["kept"]],
            drift=[row for record in found.values() for row in record["drift"]],
            training=[
                {
                    "dataset": name,
                    "stage": "train",
                    **{k: record.get(k) for k in ("steps", "tokens", "loss", "seconds")},
                }
                | {"stopped": record.get("stopped")}
                for name, record in found.items()
            ],
            left_out={name: record["left_out"] for name, record in found.items() if record.get("left_out")},
            known=len(school.table) - taught,
            audited=len(school.audited) if config.audit else 0,
            samples=school.samples,
            taught=taught,
            subjects=len(school.taught.subjects),
            asked_subjects=len(school.halves[0]),
            contradicted=school.before["contradicted"],
            written=told,
            budget=school.budget if config.trained else 0,
            chosen=school.chosen,
            finished=finish is not None,
            advice=advice,
            edited=found[edits].get("edited") if edits else None,
            kept_arm=config.trained[0] if config.trained else None,
        )
