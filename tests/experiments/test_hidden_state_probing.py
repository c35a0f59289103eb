"""Hidden-state probing, small: a knowledge-extraction run's own models and texts, resume, a user's table, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from tests.support.extraction import smallest

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.text import tokenizers
from engramlab.corpora.people import Pools
from engramlab.experiments import hidden_state_probing as probing
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.hidden_state_probing import summary as together
from engramlab.experiments.hidden_state_probing.targets import targets
from engramlab.probing import q_probing
from engramlab.report.page import write_report

TINY = probing.PRESETS["tiny"]
SMALLEST = replace(
    TINY,
    q=replace(TINY.q, rank=2, recipe=replace(TINY.q.recipe, steps=6, batch=8)),
    p=replace(TINY.p, recipe=replace(TINY.p.recipe, steps=3, batch=4)),
    test_entries=10,
)
PEOPLE = 16
POOLS = Pools(birth_years=2, birth_cities=3, universities=3, majors=3, companies=3)
VARIANTS = ("couple2", "single")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished knowledge-extraction run, hardly trained."""
    tiny = extraction.PRESETS["tiny"]
    config = replace(
        tiny,
        variants=VARIANTS,
        people=PEOPLE,
        seed=3,
        first_templates=2,
        pools=POOLS,
        pretrain=replace(tiny.pretrain, steps=4, batch=8, warmup=1),
        finetune=extraction.Finetune(replace(tiny.finetune.recipe, steps=4, batch=8)),
        evaluations=0,
    )
    folder = tmp_path_factory.mktemp("runs") / "made"
    extraction.run(config, folder, preset="tiny")
    return folder


def test_a_run_is_probed_on_its_own_texts_beside_its_extraction(made: Path, tmp_path: Path) -> None:
    config = replace(SMALLEST, model=(str(made),), p=replace(SMALLEST.p, rank=0))
    summary = probing.run(config, tmp_path / "run", preset="tiny")
    asked = {(r["dataset"], r["attribute"]): r for r in json.loads((made / "summary.json").read_text())["rows"]
             if r["group"] == "test"}  # fmt: skip
    rows = summary["rows"]
    assert {(r["dataset"], r["probe"]) for r in rows} == {(v, p) for v in VARIANTS for p in "QP"}
    for row in rows:
        of = asked[row["dataset"], row["attribute"]]
        assert row["extraction"] == of["exact_match" if row["target"] == "whole" else "first_token"]
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["examples"] == (PEOPLE // 2 if row["probe"] == "Q" or row["dataset"] == "single" else 10)
    for dataset in VARIANTS:
        of = [r for r in rows if (r["dataset"], r["probe"]) == (dataset, "P")]
        assert {r["position"] for r in of} == set(range(6))
        assert {r["position"] for r in rows if r["probe"] == "Q"} == {None}
        tasks = {(r["target"], r["attribute"]) for r in of}
        left = {(s["target"], s["attribute"]) for s in summary["skipped"] if s["dataset"] == dataset}
        assert len(tasks) + len(left) == 11
        assert ("whole", "birth_date") not in tasks | left
    assert {r["dataset"] for r in summary["closer"]} == {"couple2"}
    whole = next(r for r in summary["spearman"] if (r["target"], r["measure"]) == ("whole", "accuracy"))
    points = [(r["extraction"], r["accuracy"]) for r in rows if (r["probe"], r["target"]) == ("Q", "whole")]
    if whole["rho"] is not None:
        assert whole["rho"] == pytest.approx(spearmanr(*zip(*points, strict=True)).statistic)
    assert whole["points"] == len(points)
    assert probing.run(config, tmp_path / "run", preset="tiny")["rows"] == rows  # done already
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "Closer P-probing" in page
    assert "Nothing" not in page


def test_the_models_and_texts_are_the_run_s(made: Path) -> None:
    found = targets(replace(SMALLEST, model=(str(made),)))
    assert [t.weights for t in found] == [str(made / v / "pretrain" / "model") for v in VARIANTS]
    texts = json.loads((made / "couple2" / "examples.json").read_text())["entries"]
    assert [found[0].data.corpus.passage(i).text for i in range(len(texts))] == texts
    prompts = [a["prompt"] for a in json.loads((made / "couple2" / "examples.json").read_text())["answers"]]
    questions = found[0].data.questions
    assert {questions.query(i).prompt for i in range(len(questions)) if questions.query(i).group == "test"} & set(
        prompts
    )
    # The same variant of two runs has two names.
    again = made.parent / "again"
    shutil.copytree(made, again, dirs_exist_ok=True)
    both = targets(replace(SMALLEST, model=(str(made), str(again)), variants=("single",)))
    assert [t.name for t in both] == ["made-single", "again-single"]
    assert targets(replace(SMALLEST, model=(str(made),), variants=("single",)))[0].name == "single"


def test_perfect_correlation_and_too_few_points() -> None:
    def row(accuracy: float, extraction: float | None, **more: object) -> dict:
        row = {"probe": "Q", "target": "whole", "control": False, "accuracy": accuracy, "accuracy_reachable": accuracy}
        return row | {"extraction": extraction} | more

    rows = [row(0.1, 0.0), row(0.5, 0.4), row(0.6, 0.9), row(0.9, None), row(0.9, 0.1, probe="P")]
    found = together.correlations([*rows, row(0.9, 0.1, control=True), row(0.9, 0.1, target="first")])
    assert [(r["target"], r["points"], r["rho"]) for r in found if r["measure"] == "accuracy"] == [
        ("whole", 3, pytest.approx(1.0)),
        ("first", 1, None),
    ]
    flat = together.correlations([row(0.1, 0.5), row(0.2, 0.5), row(0.3, 0.5)])
    assert flat[0]["rho"] is None


def test_probe_any_model_on_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hidden state at a name of one letter a class gives that class away; a column of one class is named and left out."""
    lines = [f"{'AB'[i % 2]}{i},{'north' if i % 2 else 'south'},Earth,code{i}" for i in range(40)]
    facts = tmp_path / "facts.csv"
    facts.write_text("place,side,planet,code\n" + "\n".join(lines) + "\n")
    tokenizer = tokenizers.train_compact_tokenizer([facts.read_text()], 400)
    model = models.build("tiny", tokenizer, context=64)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = f"probe --model {tmp_path / 'model'} --facts {facts} --out {tmp_path / 'out'} --q.recipe.steps 60"
    cli.main([*command.split(), "--p.recipe.steps", "20", "--variants", "single+permute1"])
    said = capsys.readouterr()
    assert "skipped the whole of planet: all subjects have the same value" in " ".join(said.err.split())
    assert "40 values are more than the 20 subjects to train on" in " ".join(said.err.split())
    assert "Q-probing" in said.out
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    by = {(r["probe"], r["attribute"], r["target"], r["control"]): r for r in rows if not r["position"]}
    assert by["Q", "side", "whole", False]["accuracy"] > 0.9
    assert by["Q", "side", "whole", True]["accuracy"] < 0.9
    assert by["Q", "side", "whole", False]["majority"] <= 0.6
    assert {r["attribute"] for r in rows} == {"side"} | {r["attribute"] for r in rows if r["target"] == "first"}
    assert all(r["extraction"] is None for r in rows)


def test_refusals(made: Path, tmp_path: Path) -> None:
    def refused(match: str, **more: object) -> None:
        with pytest.raises(UserError, match=match):
            probing.run(replace(SMALLEST, **{"model": (str(made),)} | more), tmp_path / "refused")
        assert not (tmp_path / "refused").exists()

    refused("--model runs/demo", model=())
    refused("has no 'multi5'; it has couple2, single", variants=("multi5",))
    refused(r"layer 4 does not exist: this model has layers 0 to 3", q=replace(SMALLEST.q, layer=4))
    refused("exactly once", prompt="the city")
    broken = tmp_path / "broken"
    shutil.copytree(made, broken)
    shutil.rmtree(broken / "single" / "pretrain" / "model")
    refused("no pretrained model of single", model=(str(broken),))
    other = tokenizers.train_compact_tokenizer(["other words altogether"], 300)
    shutil.rmtree(broken / "tokenizer")
    other.save_pretrained(broken / "tokenizer")
    refused("is not the one that the corpus of", model=(str(broken),), variants=("couple2",))
    with pytest.raises(SystemExit):
        cli.main(["probe", "--model", str(made)])


def test_closer_rows_agree_with_the_accuracy_by_position(made: Path, tmp_path: Path) -> None:
    """Before the first attribute nothing has been seen: the empty set is position 0."""
    config = replace(SMALLEST, model=(str(made),), variants=("couple2",), probes=("P",), p=replace(SMALLEST.p, rank=0))
    summary = probing.run(config, tmp_path / "run")
    first = {(r["target"], r["attribute"]): r["accuracy"] for r in summary["rows"] if r["position"] == 0}
    nothing = {(r["target"], r["attribute"]): r["accuracy"] for r in summary["closer"] if not r["seen"]}
    assert nothing == pytest.approx(first)
    seen = {tuple(r["seen"]) for r in summary["closer"]}
    assert ("birth_date",) in seen
    assert ("birth_city",) not in seen  # the second of a pair never comes alone
    assert np.isfinite([r["accuracy"] for r in summary["closer"]]).all()


def test_with_celebrities_the_minority_s_own_halves_are_probed(tmp_path: Path) -> None:
    tiny = extraction.PRESETS["tiny"]
    config = replace(
        tiny,
        variants=("single+CEL",),
        people=PEOPLE,
        celebrities=6,
        celebrity_entries="multi2",
        first_templates=2,
        pools=POOLS,
        pretrain=replace(tiny.pretrain, steps=2, batch=8, warmup=1),
        finetune=extraction.Finetune(replace(tiny.finetune.recipe, steps=2, batch=8)),
        evaluations=0,
    )
    extraction.run(config, tmp_path / "made", preset="tiny")
    summary = probing.run(replace(SMALLEST, model=(str(tmp_path / "made"),)), tmp_path / "probed", preset="tiny")
    assert {row["dataset"] for row in summary["rows"]} == {"single+CEL=multi2"}
    assert {row["examples"] for row in summary["rows"]} == {PEOPLE // 2}  # no celebrity among them
    asked = json.loads((tmp_path / "made" / "summary.json").read_text())["rows"]
    minority = {r["attribute"]: r["exact_match"] for r in asked if r["group"] == "test"}
    assert all(r["extraction"] == minority[r["attribute"]] for r in summary["rows"] if r["target"] == "whole")


def test_a_masked_model_is_read_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = smallest(pretrain_steps=2, finetune_batch=4, variants=("multi2",), people=PEOPLE, pools=POOLS)
    extraction.run(replace(config, model=extraction.Model(objective="masked")), tmp_path / "run")
    read: list[str] = []

    def examples(tokenizer, names, prompt, at):
        read.append(at)
        return made_examples(tokenizer, names, prompt, at)

    made_examples = q_probing.examples
    monkeypatch.setattr(q_probing, "examples", examples)
    one = replace(SMALLEST, model=(str(tmp_path / "run"),), probes=("Q",))
    probing.run(one, tmp_path / "probed")
    probing.run(replace(one, masked_at="mask"), tmp_path / "mask")
    assert read == ["first", "mask"]
    with pytest.raises(UserError, match="a causal model has read nothing at 'first'"):
        probing.run(replace(one, at="first"), tmp_path / "refused")


def test_the_minority_is_probed_in_halves_of_its_own(tmp_path: Path) -> None:
    """Beside celebrities both probes learn from half of the minority and are judged on the other half (figures 18 and 19)."""
    config = smallest(
        pretrain_steps=2, finetune_batch=4, variants=("single+CEL",), people=PEOPLE, celebrities=10, pools=POOLS
    )
    made = extraction.run(config, tmp_path / "run")
    summary = probing.run(replace(SMALLEST, model=(str(tmp_path / "run"),)), tmp_path / "probed")
    asked = {r["attribute"]: r["exact_match"] for r in made["rows"] if r["group"] == "test"}
    assert {r["probe"] for r in summary["rows"]} == {"Q", "P"}
    for row in summary["rows"]:
        assert row["examples"] == PEOPLE // 2  # one entry each, and no celebrity
        assert row["target"] == "first" or row["extraction"] == asked[row["attribute"]]
