"""Cloze questions: multiple-choice questions as statements with a gap, and a model trained without labels until they agree.

    engramlab run cloze-questions --model models/SmolLM2-135M.gguf --out runs/countries
    engramlab run cloze-questions --model owner/name --questions commonsenseqa_dev.jsonl --limit 200 --out runs/csqa

Every question becomes several statements with a gap: by rules for English, by statements that came with it or are a user's, by
a chat model, and, to compare, the question itself with a gap behind it. Scored are the options in the gap; the ensemble adds up
the translations' probabilities. Then the model is trained, on the same questions and without labels, to prefer in every
translation what all of them together prefer, and asked again; a control is trained on the statements of other questions.
Source: Dou and Peng, arXiv 2201.00136, and its released code; three of its four translators are trained networks, and are not
here. Intervals are 95 % bootstrap intervals over questions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.base.terminal import Console
from engramlab.experiments.cloze_questions.config import PRESETS, Config, check

__all__ = ["PRESETS", "Config", "check", "run"]


def run(config: Config, out: Path, *, preset: str = "", console: Console | None = None) -> dict[str, Any]:
    """Runs the experiment into the folder ``out`` and returns the summary; parts that are done there are not done again.

    Writes ``translations.parquet``, and ``answers.parquet`` before and behind each training: a row a question, score and
    translator, with the score of every option.

    Raises:
        UserError: anything about the options, the model, the questions or the folder; consistency of a single translation.
    """
    from engramlab.editing import cases as editing_cases
    from engramlab.experiments._run import Planned, Run
    from engramlab.experiments.cloze_questions.consistency import unlabelled
    from engramlab.experiments.cloze_questions.translating import offline, questions_of, translated
    from engramlab.experiments.cloze_questions.work import Asked, asked, said, trained
    from engramlab.measuring.cloze import TRAINED, fitting

    check(config)
    if not config.model.strip():
        raise UserError("model: say which model is asked, with --model and a model folder, a .gguf file or a hub id")
    questions = questions_of(config)
    plain = offline(config, questions)
    run = Run("cloze-questions", config, out, preset=preset, console=console)
    run.alone()
    if "own" in config.translators and not any(one.name.startswith("own") for one in plain):
        run.say("own: left out, as the questions come without statements of their own (--translations gives some)")
    count = len(plain) + ("model" in config.translators)
    if not count:
        raise UserError("translators: none is left; name rules or bare too")
    if config.consistency and count < 2:
        raise UserError("consistency: one translation has nothing to agree with; name another, or say --no-consistency")
    options = [question.options for question in questions]
    trainings = ["consistency", *(["control"] if config.control else [])] if config.consistency else []
    steps = Asked(run, questions, plain, (), "").steps()
    run.stages = [Planned("before", count, len(questions))]
    run.stages += [Planned(name, steps, config.batch * count * len(options[0]), 20) for name in trainings]
    run.ready()
    model, tokenizer = editing_cases.model(config.model)
    there = fitting(model)
    wanted: list[str] = [*config.scores, *([config.train_by] if config.train_by else [])]
    if wrong := [one for one in wanted if one not in there]:
        raise UserError(f"score {wrong[0]!r} is not for the model {config.model}; choose of {', '.join(there)}")
    train_by: str = config.train_by or next(one for one in there if one in TRAINED)
    unlabelled(model, tokenizer, [one.clozes for one in plain], options, train_by)  # do all texts fit?
    with run:
        translations = translated(run, questions, plain)
        run.say("not translated: " + ", ".join(f"{one.name} {one.fallbacks:.1%}" for one in translations))
        work = Asked(run, questions, translations, config.scores or there, train_by)
        record = asked(work, model, tokenizer)
        parts = {"before": record}
        for name in trainings:
            if name == "control":
                model, tokenizer = editing_cases.model(config.model)
            ways = [one.of_others(config.seed) if name == "control" else one for one in translations]
            seen = unlabelled(model, tokenizer, [one.clozes for one in ways], options, train_by)
            parts[name] = trained(work, model, tokenizer, seen, name)
        for name, part in parts.items():
            run.say(f"{name}: {said(part['rows'])}")
        training = [
            {"dataset": "questions", "stage": name, **{k: part.get(k) for k in ("steps", "loss", "seconds")}}
            for name, part in parts.items()
        ]
        return run.finish(
            seconds=sum(part["seconds"] for part in parts.values()),
            model=config.model,
            questions=config.questions,
            train_by=train_by,
            translators=[{"translator": one.name, "fallbacks": one.fallbacks} for one in translations],
            rows=[row for part in parts.values() for row in part["rows"]],
            training=training,
        )
