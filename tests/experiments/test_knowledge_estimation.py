"""The whole experiment, small: a random model, a table of facts, every control, resume, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo

from engramlab.base.errors import UserError
from engramlab.corpora.facts import FactTable
from engramlab.experiments import knowledge_estimation as estimation
from engramlab.experiments.knowledge_estimation import asking
from engramlab.files import records

ROWS = [(f"Zor{i}", ("red", "blue", "green")[i % 3], f"city {i}", "one") for i in range(16)]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    path.write_text("name,colour,home,same\n" + "".join(",".join(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, facts.read_text()])
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=192).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def config(name: str, facts: Path, **more: Any) -> estimation.Config:
    common: dict[str, Any] = {"counts": (0, 2, 6), "draws": 2, "subjects": 8, "options": 5}
    return estimation.Config(**{"model": name, "facts": facts} | common | more)


def test_every_way_of_asking(model: str, facts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    summary = estimation.run(config(model, facts), out)
    assert "same: left out, as it has 1 object" in capsys.readouterr().err
    rows = [row for row in summary["rows"] if row["relation"] == "home"]
    lists = [row for row in rows if row["way"] == "list" and row["control"] is None]
    assert [(row["shown"], row["draws"]) for row in lists] == [(0, 1), (2, 2), (6, 2)]
    controls = [(row["control"], row["place"]) for row in rows if row["control"]]
    assert controls == [(c, p) for c in ("unknown", "incorrect") for p in ("spread", "start", "end")]
    wordings = [row["wording"] for row in rows if row["way"] == "wording"]
    assert len(wordings) == 3
    assert wordings[-1] == "What is the home of {subject}? Answer:"
    for row in summary["rows"]:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["draw_low"] <= row["accuracy"] <= row["draw_high"]
        assert row["chance"] == pytest.approx(1 / row["options"])
        assert row["subjects"] == 8
    assert {row["options"] for row in rows} == {5}
    assert {row["options"] for row in summary["rows"] if row["relation"] == "colour"} == {3}
    answers = pq.read_table(out / "home" / "answers.parquet").to_pylist()
    of = [a["right"] for a in answers if (a["way"], a["shown"], a["control"]) == ("list", 6, None)]
    assert np.mean(of) == pytest.approx(lists[-1]["accuracy"])
    assert records.read_record(out / "summary.json") == summary

    (out / "summary.json").unlink()
    (out / "colour" / "done.json").unlink()  # as if killed in between
    again = estimation.run(config(model, facts), out)
    assert [without(row) for row in again["rows"]] == [without(row) for row in summary["rows"]]
    with pytest.raises(UserError, match="draws"):
        estimation.run(config(model, facts, draws=3), out)


def without(row: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}


def test_lists_are_of_other_facts_and_controls_spoil_only_their_share(facts: Path, tmp_path: Path) -> None:
    table = FactTable.read(facts)
    chosen = config("m", facts, control_share=0.5)
    run: Any = None
    relation = asking.relation_of(run, chosen, table, "home")
    assert relation is not None
    assert {f.subject for f in relation.asked}.isdisjoint(f.subject for f in relation.others)
    shown = asking.shown_pairs(chosen, relation, 1, 6)
    assert shown[:2] == asking.shown_pairs(chosen, relation, 1, 2)
    assert shown != asking.shown_pairs(chosen, relation, 0, 6)
    true = dict(shown)
    for place, where in (("start", {0, 1, 2}), ("end", {3, 4, 5}), ("spread", {0, 2, 5})):
        for control in ("unknown", "incorrect"):
            spoilt = asking.spoilt(chosen, relation, shown, 1, control, place)  # type: ignore[arg-type]
            assert {i for i, (a, b) in enumerate(zip(shown, spoilt, strict=True)) if a != b} == where
            for i in where:
                subject, named = spoilt[i]
                assert (subject in true) == (control == "incorrect")
                assert (named == shown[i][1]) == (control == "unknown")


def test_a_source_s_own_options_and_a_sample(model: str, tmp_path: Path) -> None:
    """T-REx-MC's lists are what is chosen from."""
    path = tmp_path / "mc.jsonl"
    rows = [
        {"Relation Name": "home", "Subject": s, "Object": o, "Multiple Choices": f"['nowhere', '{o}', 'here']"}
        for s, _, o, _ in ROWS
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    chosen = config(model, path, limit=12)
    table = FactTable.read(path).sample(12)
    relation = asking.relation_of(Any, chosen, table, "home")
    assert relation is not None
    assert len(relation.asked) + len(relation.others) == 12
    assert relation.offered == [[fact.object, "nowhere", "here"] for fact in relation.asked]
    summary = estimation.run(replace(chosen, controls=(), wordings=False), tmp_path / "run")
    assert {row["options"] for row in summary["rows"]} == {3}


def test_a_model_that_knows_nothing_is_at_chance(model: str, facts: Path, tmp_path: Path) -> None:
    """Equal logits everywhere: every option of one length ties, and a tie counts as what picking among them would get."""
    from engramlab.core import models

    net, tokenizer = models.load(model)
    with torch.no_grad():
        net.get_output_embeddings().weight.zero_()
    net.save_pretrained(tmp_path / "zero")
    tokenizer.save_pretrained(tmp_path / "zero")
    summary = estimation.run(config(str(tmp_path / "zero"), facts, by="mean", controls=()), tmp_path / "run")
    for row in summary["rows"]:
        assert row["accuracy"] == pytest.approx(row["chance"], abs=1e-4)
        assert row["mass"] == pytest.approx(row["chance"], abs=1e-4)
        assert row["ties"] == row["subjects"] * row["draws"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"counts": ()}, "counts: name at least one"),
        ({"counts": (-1,)}, "counts: name at least one, none below 0"),
        ({"counts": (1, 1)}, "counts: 1 is there twice"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"options": 1}, "options must be at least 2"),
        ({"control_share": 1.0}, "control_share must be between 0 and 1"),
        ({"places": ()}, "places: name at least one"),
        ({"forms": ()}, "forms: name at least one"),
        ({"model": ""}, "model: say which model is asked"),
    ],
)
def test_options_that_cannot_be(model: str, facts: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        estimation.run(config(model, facts, **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_list_beyond_the_context_names_the_longest_that_fits(facts: Path, tmp_path: Path) -> None:
    tokenizer = zoo.ZOO["llama3"]([*zoo.SENTENCES, facts.read_text()])
    zoo.model("gpt2", vocabulary=len(tokenizer), max_position_embeddings=24).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"a list of 6 facts of 'home' does not fit .*; the longest that fits has \d"):
        estimation.run(config(str(tmp_path / "model"), facts, attributes=("home",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_same_list_serves_every_subject(facts: Path) -> None:
    """What makes it cheap: behind one list all contexts begin alike."""
    table = FactTable.read(facts)
    chosen = config("m", facts)
    run: Any = None
    relation = asking.relation_of(run, replace(chosen, counts=(0, 6)), table, "home")
    assert relation is not None
    longest = next(a for a in asking.askings(chosen, table, relation) if a.about["shown"] == 6)
    heads = {context.rsplit(",", 1)[0] for context in longest.contexts}
    assert len(heads) == 1
