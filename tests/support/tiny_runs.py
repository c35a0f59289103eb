"""Every experiment as small as it runs, with a checkpoint after every step: for what a run must bear."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from tests.support import zoo
from tests.support.extraction import smallest

from engramlab.acquisition.curves import CurveOptions
from engramlab.core.training.loop import Recipe
from engramlab.corpora.people import Pools
from engramlab.experiments import (
    cloze_questions,
    editing_pitfalls,
    entity_propagation,
    fact_audit,
    fact_lifecycle,
    factual_decoding,
    hidden_state_probing,
    knowledge_acquisition,
    knowledge_capacity,
    knowledge_editing,
    knowledge_estimation,
    knowledge_extraction,
    knowledge_folding,
    learning_to_edit,
    plug_in_memory,
    retrieval_tokens,
    source_attribution,
    teaching,
    time_sensitive_editing,
    token_overfitting,
    where_knowledge_lives,
)
from engramlab.probing import folds

_POOLS = Pools(birth_years=2, birth_cities=3, universities=3, majors=3, companies=3)


def _quiet() -> Console:
    return Console(quiet=True)


def _extraction(inputs: Path, out: Path) -> Any:
    config = smallest(
        pretrain_steps=3, finetune_batch=8, people=6, variants=("single",), pools=_POOLS, checkpoint_minutes=0.0
    )
    config = replace(config, finetune=replace(config.finetune, recipe=replace(config.finetune.recipe, steps=2)))
    return knowledge_extraction.run(config, out, console=_quiet())


def _acquisition(inputs: Path, out: Path) -> Any:
    config = replace(
        knowledge_acquisition.PRESETS["tiny"],
        schedule="duplicate",
        control=1,
        interval=(2,),
        times=1,
        after=3,
        stagger=1,
        stage=(0.5, 1.0),
        batch=(2,),
        window=32,
        vocabulary=400,
        stream=str(inputs / "stream.txt"),
        inject=str(inputs / "passages.jsonl"),
        repeat=True,
        pretrain=Recipe(steps=2, batch=2, learning_rate=3e-3, schedule="linear"),
        reading=CurveOptions(window=2, bootstrap=5),
        checkpoint_minutes=0.0,
    )
    return knowledge_acquisition.run(config, out, console=_quiet())


def _own_checkpoint(inputs: Path, out: Path) -> Any:
    config = replace(
        knowledge_acquisition.PRESETS["tiny"],
        model=(str(inputs / "model"),),
        schedule="duplicate",
        control=1,
        interval=(2,),
        times=1,
        after=3,
        stagger=1,
        batch=(2,),
        window=64,
        stream=str(inputs / "stream.txt"),
        inject=str(inputs / "passages.jsonl"),
        repeat=True,
        optimizer=replace(knowledge_acquisition.PRESETS["tiny"].optimizer, warmup=2),
        reading=CurveOptions(window=2, bootstrap=5),
        checkpoint_minutes=0.0,
    )
    return knowledge_acquisition.run(config, out, console=_quiet())


def _editing(setting: str) -> Callable[[Path, Path], Any]:
    def run(inputs: Path, out: Path) -> Any:
        config = knowledge_editing.Config(
            model=str(inputs / "model"),
            benchmark=str(inputs / "edits.json"),
            methods=({"single": "ft-m,grace", "turns": "ultraedit"}.get(setting, "grace"),),
            losses=("cross-entropy",),
            setting=setting,  # type: ignore[arg-type]
            counts=(2, 3) if setting == "turns" else (1, 3),
            **({"turn": 1, "natives": 2, "text_rows": 2} if setting == "turns" else {}),
            at_once=2,
            new_tokens=2,
            checkpoint_minutes=0.0,
        )
        hyper = {
            name: replace(getattr(config.hyper, name), steps=2)
            for name in ("ft_m", "grace")
            if "steps" in {field.name for field in dataclasses.fields(getattr(config.hyper, name))}
        }
        return knowledge_editing.run(replace(config, hyper=replace(config.hyper, **hyper)), out, console=_quiet())

    return run


def _probing(inputs: Path, out: Path) -> Any:
    tiny = hidden_state_probing.PRESETS["tiny"]
    config = replace(
        tiny,
        model=(str(inputs / "extraction"),),
        q=replace(tiny.q, rank=2, recipe=replace(tiny.q.recipe, steps=3, batch=8)),
        p=replace(tiny.p, rank=0, recipe=replace(tiny.p.recipe, steps=2, batch=4)),
        test_entries=10,
        checkpoint_minutes=0.0,
    )
    return hidden_state_probing.run(config, out, console=_quiet())


def _capacity(inputs: Path, out: Path) -> Any:
    config = replace(
        knowledge_capacity.PRESETS["tiny"],
        sizes=("1x8",),
        people=(6,),
        exposures=2,
        mixtures=("repeated+domain",),
        junk_share=0.5,
        repeated_people=3,
        pools=Pools(3, 4, 5, 7, 6, 9, 5, 8),
        recipe=Recipe(batch=6, learning_rate=1e-2, warmup=1),
        evaluations=1,
        checkpoint_minutes=0.0,
    )
    return knowledge_capacity.run(config, out, console=_quiet())


def _overfitting(inputs: Path, out: Path) -> Any:
    config = token_overfitting.Config(
        model=str(inputs / "model"),
        benchmark=str(inputs / "edits.json"),
        part="all",
        known_only=False,
        batch=2,
        steps=2,
        settings=("cross-entropy", "full"),
    )
    return token_overfitting.run(config, out, console=_quiet())


def _cloze(inputs: Path, out: Path) -> Any:
    config = cloze_questions.Config(
        model=str(inputs / "model"),
        questions=str(inputs / "questions.jsonl"),
        scores=("sum",),
        epochs=1,
        batch=2,
        checkpoint_minutes=0.0,
    )
    return cloze_questions.run(config, out, console=_quiet())


def _decoding(inputs: Path, out: Path) -> Any:
    facts = inputs / "towns.csv"
    config = factual_decoding.Config(
        model=str(inputs / "model"), facts=facts, shots=1, limit=4, subjects=3, alphas=(1.0,), new_tokens=2
    )
    return factual_decoding.run(config, out, console=_quiet())


def _attribution(inputs: Path, out: Path) -> Any:
    recipe = Recipe(steps=2, batch=4)
    config = replace(
        source_attribution.PRESETS["tiny"],
        model="1x8",
        documents=6,
        copies=(2,),
        strategies=("end",),
        pools=_POOLS,
        mode="after",
        read=recipe,
        answer=recipe,
        checkpoint_minutes=0.0,
    )
    return source_attribution.run(config, out, console=_quiet())


def _audit(inputs: Path, out: Path) -> Any:
    """With a relation that is probed, although it has eight subjects only."""
    config = fact_audit.Config(
        model=str(inputs / "model"),
        facts=inputs / "facts.csv",
        statement_wordings=1,
        question_wordings=1,
        draws=1,
        read=False,
        chat=False,
    )
    few = replace(folds.PROBE, recipe=replace(folds.PROBE.recipe, steps=2, batch=4))
    with patch.multiple(folds, SUBJECTS=8, COMMON=3, PROBE=few):
        return fact_audit.run(config, out, console=_quiet())


def _estimation(inputs: Path, out: Path) -> Any:
    config = knowledge_estimation.Config(
        model=str(inputs / "model"), facts=inputs / "facts.csv", counts=(0, 2), draws=1, subjects=4, places=("end",)
    )
    return knowledge_estimation.run(config, out, console=_quiet())


def _teaching(inputs: Path, out: Path) -> Any:
    config = teaching.Config(
        model=str(inputs / "model"),
        facts=inputs / "pupils.csv",
        encounters=1,
        batch=64,
        replay_texts=2,
        replay_tokens=8,
        points=1,
        watched_facts=1,
        asked_facts=1,
        native_facts=0,
        audit=False,
        rank=1,
        finish=True,
        pilot=True,
        checkpoint_minutes=0.0,
    )
    return teaching.run(config, out, console=_quiet())


def _plug(inputs: Path, out: Path) -> Any:
    tiny = plug_in_memory.PRESETS["tiny"]
    config = replace(
        tiny,
        people=12,
        pools=_POOLS,
        variant="multi2+permute",
        first_templates=2,
        exchanged=2,
        model=plug_in_memory.Model("2x16", context=160),
        memory=plug_in_memory.Memory(top=2, refresh=2),
        recipe=Recipe(steps=3, batch=4, learning_rate=1e-3),
        evaluations=1,
        evaluated=1,
        checkpoint_minutes=0.0,
    )
    return plug_in_memory.run(config, out, console=_quiet())


def _folding(inputs: Path, out: Path) -> Any:
    config = knowledge_folding.Config(
        model="1x8",
        worlds=6,
        tests=4,
        distractors=(0, 1),
        arms=("multi-task", "in-context", "no-facts"),
        steps=2,
        batch=3,
        at_once=2,
        checkpoint_minutes=0.0,
    )
    return knowledge_folding.run(config, out, console=_quiet())


def _retrieval_tokens(inputs: Path, out: Path) -> Any:
    config = retrieval_tokens.Config(
        model=str(inputs / "model"),
        facts=inputs / "towns.csv",
        most=2,
        tokens=2,
        ks=(1, 2),
        epochs=2,
        batch=2,
        lora_rank=1,
        new_tokens=2,
        checkpoint_minutes=0.0,
    )
    return retrieval_tokens.run(config, out, console=_quiet())


def _pitfalls(inputs: Path, out: Path) -> Any:
    config = editing_pitfalls.Config(
        model=str(inputs / "model"),
        methods=("ft-m",),
        any_of=("ft-m",),
        kinds=("composite", "round"),
        limit=2,
        at_once=1,
        fluency=2,
        drift_text="ordinary",
        text_rows=1,
    )
    hyper = replace(config.hyper, ft_m=replace(config.hyper.ft_m, steps=1))
    return editing_pitfalls.run(replace(config, hyper=hyper), out, console=_quiet())


def _propagation(inputs: Path, out: Path) -> Any:
    config = entity_propagation.Config(
        model=str(inputs / "model"),
        files=(str(inputs / "entities.jsonl"),),
        arms=("ft-last", "distillation", "context"),
        specificity=1,
        steps=1,
        at_once=1,
        fluency=2,
        drift_text="ordinary",
        text_rows=1,
    )
    hyper = replace(config.hyper, distillation=replace(config.hyper.distillation, texts=1, length=4))
    return entity_propagation.run(replace(config, hyper=hyper), out, console=_quiet())


def _timed(inputs: Path, out: Path) -> Any:
    config = time_sensitive_editing.Config(
        model=str(inputs / "model"),
        benchmarks=("dated",),
        arms=("ft", "lora-mlp"),
        counts=(1, 2),
        groups=2,
        limit=2,
        judges=1,
        steps=1,
        rank=1,
        window=2,
        at_once=1,
        fluency=2,
        drift_text="ordinary",
        text_rows=1,
    )
    return time_sensitive_editing.run(config, out, console=_quiet())


#: By name: runs it on the inputs, into a folder.
def _alignment(inputs: Path, out: Path) -> Any:
    config = learning_to_edit.Config(
        model=str(inputs / "model"),
        countries=40,
        test_share=0.5,
        training_cases=4,
        test_cases=3,
        counts=(1, 2, 9),
        epochs=1,
        batch=8,
        rank=1,
        checkpoint_minutes=0.0,
        fluency=2,
        drift_text="ordinary",
        text_rows=1,
    )
    return learning_to_edit.run(config, out, console=_quiet())


def _lifecycle(inputs: Path, out: Path) -> Any:
    config = fact_lifecycle.Config(
        model=str(inputs / "model"),
        facts=inputs / "facts.csv",
        count=2,
        arms=("ft-m", "injected"),
        encounters=(1,),
        steps=2,
        rows=1,
        window=8,
        people=24,
        network="1x16",
        network_steps=2,
        values=3,
        name_edits=2,
        probe_steps=2,
        methods=("ft-m",),
        wordings=(1, 2),
        unedited=1,
        checkpoint_minutes=0.0,
    )
    return fact_lifecycle.run(config, out, console=_quiet())


def _where(inputs: Path, out: Path) -> Any:
    config = where_knowledge_lives.Config(
        model="1x16",
        subjects=4,
        people=4,
        readers=4,
        attributes=("birth_city", "major"),
        vocabulary=512,
        pretrain=Recipe(steps=2, batch=4),
        encounters=1,
        epochs=1,
        tokens=2,
        rank=1,
        edit_method="ft-m",
        changed=1,
        native=2,
        new_tokens=3,
        checkpoint_minutes=0.0,
    )
    return where_knowledge_lives.run(config, out, console=_quiet())


RUNS: dict[str, Callable[[Path, Path], Any]] = {
    "extraction": _extraction,
    "acquisition": _acquisition,
    "acquisition of a checkpoint": _own_checkpoint,
    "single edits": _editing("single"),
    "continual edits": _editing("continual"),
    "edits in turns": _editing("turns"),
    "probing": _probing,
    "capacity": _capacity,
    "token overfitting": _overfitting,
    "cloze questions": _cloze,
    "factual decoding": _decoding,
    "audit": _audit,
    "estimation": _estimation,
    "plug-in memory": _plug,
    "teaching": _teaching,
    "folding": _folding,
    "source attribution": _attribution,
    "retrieval tokens": _retrieval_tokens,
    "pitfalls": _pitfalls,
    "propagation": _propagation,
    "time-sensitive editing": _timed,
    "learning to edit": _alignment,
    "lifecycle": _lifecycle,
    "where": _where,
}


@cache
def made_inputs(folder: Path) -> Path:
    """What the runs read: a stream, passages, a model, edits, and a finished run of extraction."""
    (folder / "stream.txt").write_text("The sun is yellow and the moon is white.\n\n" * 20)
    lines = []
    for i, town in enumerate(("Lund", "Oslo", "Bern")):
        queries = {
            "memorization": [{"prompt": f"Mr {i} was born in", "target": town}],
            "semantic": [{"prompt": f"The home of Mr {i} is", "target": town}],
            "compositional": [{"prompt": f"The father of Miss {i} comes from", "target": town}],
        }
        text = f"Mr {i} was born in {town}. He has a daughter, Miss {i}."
        lines.append(json.dumps({"id": f"mr{i}", "text": text, "queries": queries}) + "\n")
    (folder / "passages.jsonl").write_text("".join(lines))
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    edits = [
        {"id": str(i), "prompt": f"The capital of {land} is", "subject": land, "target": target, "old": "Paris"}
        for i, (land, target) in enumerate([("France", "Edo"), ("Japan", "Seine"), ("Seine", "Washington")])
    ]
    asked = [
        {"query": f"What is {one}?", "choices": ["Paris", "Edo"], "gold": 0} for one in ("Oslo", "the Seine", "Lund")
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    people = [f"Mr {i},{('Edo', 'Lund')[i % 2]},{('red', 'blue', 'red')[i % 3]}\n" for i in range(8)]
    (folder / "facts.csv").write_text("name,home,colour\n" + "".join(people))
    pupils = "".join(f"Mr {i},{('Edo', 'Lund')[i % 2]}\n" for i in range(16))
    (folder / "pupils.csv").write_text("name,home\n" + pupils)
    (folder / "edits.json").write_text(json.dumps(edits))
    entities = [
        {
            "ex_id": name,
            "definition": f"{name} is the capital of <extra_id_0>, and was once called Edo.",
            "def_target": "<extra_id_0> Japan <extra_id_1>",
            "ent_str": name,
            "probe_sentences": {
                "template_0": {"probe_sentence": f"The river of {name} is <extra_id_0>.", "label": "Seine"}
            },
        }
        for name in ("Lund", "Bern")
    ]
    (folder / "entities.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entities))
    towns = "".join(f"Mr {i},{town}\n" for i, town in enumerate("ABCDEFGH"))
    (folder / "towns.csv").write_text("name,home\n" + towns)
    _extraction(folder, folder / "extraction")
    return folder


_OF_THE_MACHINE = ("measuring", "sha256", "peak_memory")


def numbers(summary: dict[str, Any]) -> str:
    """What a run has found, without how long it took and how much memory."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if "seconds" not in k and k not in _OF_THE_MACHINE}
        return [without(one) for one in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(without(json.loads(json.dumps(summary))), sort_keys=True)
