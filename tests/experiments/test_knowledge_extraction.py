"""The whole experiment, small: corpora, training, questions, resume, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.forward import generation
from engramlab.core.training.loop import Recipe
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.config import Finetune
from engramlab.files import records, writing
from engramlab.files.journal import read_rows
from engramlab.report.page import write_report

TINY = extraction.PRESETS["tiny"]
SMALLEST = replace(
    TINY,
    variants=("multi2+permute",),
    people=12,
    pretrain=replace(TINY.pretrain, steps=12, batch=8, warmup=2),
    finetune=Finetune(replace(TINY.finetune.recipe, steps=8, batch=8)),
    evaluations=2,
)


def losses(folder: Path) -> dict[str, list[float]]:
    """Losses of every stage of a run, by stage."""
    found = {}
    for path in sorted(folder.glob("*/*/metrics.jsonl")):
        found[str(path.parent.relative_to(folder))] = [r["loss"] for r in read_rows(path) if "loss" in r]
    return found


def test_every_group_and_attribute_is_asked_and_reported(tmp_path: Path) -> None:
    config = replace(SMALLEST, variants=("single", "multi2+permute"))
    summary = extraction.run(config, tmp_path / "run", preset="tiny")
    rows = summary["rows"]
    assert {r["dataset"] for r in rows} == {"single", "multi2+permute"}
    for dataset in ("single", "multi2+permute"):
        for group in ("train", "test"):
            of = [r for r in rows if (r["dataset"], r["group"]) == (dataset, group)]
            assert len(of) == 7
            assert {r["questions"] for r in of} == {6, 36}
            assert all(0 <= r["commonest"] <= 1 for r in of)
            assert of[-1]["commonest"] == pytest.approx(np.mean([r["commonest"] for r in of[:-1]]))
            assert of[-1]["exact_match"] == pytest.approx(np.mean([r["exact_match"] for r in of[:-1]]))
    assert records.read_record(tmp_path / "run" / "summary.json") == summary
    along = [r for r in read_rows(tmp_path / "run/single/finetune/metrics.jsonl") if "corpus" in r]
    assert {(r["corpus"], r["group"]) for r in along} == {(c, g) for c in ("bio", "qa") for g in ("train", "test")}
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "multi2+permute" in page
    # The same command again does no work and changes nothing.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*/*/*")}
    assert extraction.run(config, tmp_path / "run", preset="tiny")["rows"] == rows
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*/*/*")} == before


def test_the_reported_answers_are_the_saved_model_s(tmp_path: Path) -> None:
    """transformers loads the model, writes the example answers again, and they agree with exact match."""
    config = replace(
        SMALLEST,
        people=6,
        pretrain=replace(SMALLEST.pretrain, steps=40),
        finetune=Finetune(replace(SMALLEST.finetune.recipe, steps=80, learning_rate=3e-3)),
    )
    summary = extraction.run(config, tmp_path / "run")
    folder = tmp_path / "run" / "multi2+permute"
    model, tokenizer = models.load(str(folder / "finetune" / "model"))
    answers = json.loads((folder / "examples.json").read_text())["answers"]
    longest = max(len(tokenizer(" " + a["gold"], add_special_tokens=False)["input_ids"]) for a in answers) + 1
    written = generation.generate(model, tokenizer, [a["prompt"] for a in answers], max_new_tokens=longest)
    assert written == [a["answer"] for a in answers]
    for group in ("train", "test"):
        mean = next(r for r in summary["rows"] if (r["group"], r["attribute"]) == (group, "mean"))
        right = [a["correct"] for a in answers if a["group"] == group]  # three people a group: all are examples
        assert mean["exact_match"] == pytest.approx(np.mean(right))
    assert any(a["correct"] for a in answers), "the test wants some right answers"


@pytest.mark.parametrize("mode", ["mixed", "lora"])
def test_mixed_training_and_the_best_of_a_grid_with_lora(tmp_path: Path, mode: str) -> None:
    if mode == "mixed":
        config = replace(SMALLEST, mode="mixed", layout="packed", model=extraction.Model(context=96))
    else:
        grid = Finetune(SMALLEST.finetune.recipe, weight_decays=(0.1,), ranks=(0, 4), embedding_ranks=(8, 0, "full"))
        config = replace(SMALLEST, finetune=grid)
    summary = extraction.run(config, tmp_path / "run")
    stages = [r["stage"] for r in summary["training"]]
    if mode == "mixed":
        assert stages == ["mixed"]
        assert all(r["mode"] == "mixed" for r in summary["rows"])
        return
    assert stages == ["pretrain", *(f"finetune-{k}" for k in (1, 2, 3, 4))]
    done = {s: writing.read_json(tmp_path / f"run/multi2+permute/{s}/done.json") for s in stages[1:]}

    def test_accuracy(record: dict) -> float:
        return next(r["exact_match"] for r in record["rows"] if (r["group"], r["attribute"]) == ("test", "mean"))

    best = max(test_accuracy(record) for record in done.values())
    reported = next(r for r in summary["rows"] if (r["group"], r["attribute"]) == ("test", "mean"))
    assert reported["exact_match"] == best
    kept = [s for s in stages[1:] if (tmp_path / f"run/multi2+permute/{s}/model").exists()]
    assert len(kept) == 1


def test_own_facts_go_down_the_same_road(tmp_path: Path) -> None:
    facts = tmp_path / "facts.csv"
    lines = [f"Land {i},City {i % 7},{'North' if i % 2 else 'South'}" for i in range(16)]
    facts.write_text("country,capital,side\n" + "\n".join(lines) + "\n")
    summary = extraction.run(replace(SMALLEST, facts=facts), tmp_path / "run")
    assert {r["attribute"] for r in summary["rows"]} == {"capital", "side", "mean"}
    examples = json.loads((tmp_path / "run/multi2+permute/examples.json").read_text())
    assert examples["answers"][0]["prompt"].startswith("What is the capital of Land ")


def test_long_answers_are_written_to_their_end(tmp_path: Path) -> None:
    """An answer of more tokens than any fixed limit is still right when the model writes it, also by beam search."""
    facts = tmp_path / "facts.csv"
    motto = " ".join(f"word{i}" for i in range(40))
    facts.write_text("country,motto\n" + "".join(f"Land {i},{motto}\n" for i in range(4)))
    finetune = Finetune(replace(SMALLEST.finetune.recipe, steps=220, learning_rate=3e-3))
    config = replace(
        SMALLEST, facts=facts, finetune=finetune, beams=2, pretrain=replace(TINY.pretrain, steps=30, batch=4)
    )
    rows = extraction.run(config, tmp_path / "run")["rows"]
    mean = next(r for r in rows if (r["group"], r["attribute"]) == ("test", "mean"))
    assert mean["exact_match"] == mean["generated"] == 1.0
    answers = json.loads((tmp_path / "run/multi2+permute/examples.json").read_text())["answers"]
    assert all(a["answer"] == motto for a in answers)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_numbers(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from engramlab.experiments import knowledge_extraction as x\n"
        "from engramlab.experiments.knowledge_extraction.config import Finetune\n"
        "t = x.PRESETS['tiny']\n"
        "c = replace(t, variants=('multi2+permute',), people=12, evaluations=2, checkpoint_minutes=0.0,\n"
        "            model=x.Model(dropout=0.1), pretrain=replace(t.pretrain, steps=25, batch=8, warmup=2),\n"
        "            finetune=Finetune(replace(t.finetune.recipe, steps=12, batch=8)))\n"
        "x.run(c, Path(sys.argv[1]))\n"
    )

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(out)], stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    assert whole.wait(1200) == 0, whole.stderr and whole.stderr.read().decode()
    broken = tmp_path / "broken"
    rng, kills = np.random.default_rng(0), 0
    for _ in range(4):
        job = start(broken)
        # Kill somewhere behind the first written file of this life, so that each life gets a little further.
        seen = len(list(broken.rglob("*"))) if broken.exists() else 0
        while job.poll() is None and not (broken.exists() and len(list(broken.rglob("*"))) > seen):
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0.0, 1.5)))
        if job.poll() is None:
            job.send_signal(signal.SIGKILL)
            kills += 1
        job.wait()
    assert kills, "every life ended by itself: the test wants some killed"
    last = start(broken)
    assert last.wait(1200) == 0, last.stderr and last.stderr.read().decode()
    assert losses(broken) == losses(tmp_path / "whole")
    first, second = (json.loads((p / "summary.json").read_text()) for p in (tmp_path / "whole", broken))
    assert first["rows"] == second["rows"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": ("multi+permuet",)}, "multi5+permute"),
        ({"variants": ("single", "single")}, "twice"),
        ({"people": 10**9}, "unique names"),
        ({"people": 1}, "at least 2"),
        ({"model": extraction.Model(context=20)}, "model.context"),
        ({"model": extraction.Model(name="./nowhere")}, "nowhere"),
        ({"model": extraction.Model(family="gpt-neox", name="tiny"), "tokenizer": "./nowhere"}, "nowhere"),
        ({"vocabulary": 10}, "vocabulary"),
        ({"mode": "mixed"}, "packed"),
        ({"facts": Path("nowhere.csv")}, "nowhere.csv"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("+", r"\+")):
        extraction.run(replace(SMALLEST, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["learning_rates", "weight_decays", "ranks", "embedding_ranks"])
def test_a_grid_of_finetunings_has_nothing_twice(name: str) -> None:
    with pytest.raises(UserError, match=rf"^finetune\.{name}: 8 is there twice"):
        replace(SMALLEST.finetune, **{name: (8, 8)})


def test_a_folder_of_another_config_is_left_alone(tmp_path: Path) -> None:
    extraction.run(SMALLEST, tmp_path / "run")
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(UserError, match="people: 12 there, 13 now"):
        extraction.run(replace(SMALLEST, people=13), tmp_path / "run")
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "run").rglob("*")) == before


def test_presets_state_the_paper_s_recipe() -> None:
    """arXiv 2309.14316: pretraining and QA finetuning of bioS."""
    paper = extraction.PRESETS["paper"]
    assert (paper.people, paper.model.name, paper.model.context) == (100_000, "gpt2-small", 512)
    want = Recipe(80_000, 96, 1e-3, weight_decay=0.1, eps=1e-6, warmup=1000, schedule="cosine", final=0.1)
    assert paper.pretrain == want
    attempts = {(r.learning_rate, r.weight_decay, r.steps, r.batch, r.warmup) for r, *_ in paper.finetune.attempts()}
    assert attempts == {(lr, wd, 50_000, 48, 0) for lr in (1e-3, 3e-4, 1e-4) for wd in (0.01, 0.001)}
    assert paper.qa_ratio == 0.8
    # The tiny preset draws from the same pools and reads the same two variants.
    assert (TINY.pools, TINY.variants) == (paper.pools, paper.variants)
