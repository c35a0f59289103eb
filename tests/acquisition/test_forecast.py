"""The plan from a run: counting facts in a corpus, forecasts, what would change, errors where they can be checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engramlab import cli
from engramlab.acquisition.counting import count_facts, read_pairs
from engramlab.acquisition.curves import CurveOptions, read_curves
from engramlab.acquisition.forecast import PlanOptions, plan
from engramlab.acquisition.laws import Law, course, law_of, laws_of, validate
from engramlab.acquisition.measuring import Measurements
from engramlab.base.errors import UserError
from engramlab.core.text.tokenizers import train_compact_tokenizer

LAW = Law(first=1.0, change=-0.2, decay_constant=0.25, intercept=0.8, peak=3)
READING = CurveOptions(window=10, bootstrap=10)
BEFORE = -4.0


def write_run(path: Path, interval: int = 20, times: int = 5, total: int = 300) -> Path:
    """A run whose curves follow a known law exactly: rising in three steps, then falling."""
    path.mkdir(parents=True)
    at = [interval * k for k in range(times)]
    states = np.arange(total + 1)
    curve = BEFORE + course(LAW, at, states)
    for step in at:  # the law has its height at once; a curve reaches it at its peak
        for d in (1, 2):
            curve[step + d] -= 0.1 * (3 - d)
    queries = []
    for group in ("duplicate", "paraphrase"):
        for k in range(4):
            about = {
                "id": f"{group}{k}",
                "passage": f"{group}{k}",
                "group": group,
                "depth": "semantic",
                "prompt": "The",
            }
            queries.append(about | {"target": "town", "start": 0, "injections": at})
    folder = path / "tiny" / "injection"
    kept = Measurements(folder / "measured")
    for step in states:
        kept.add(int(step), np.full(len(queries), curve[step], np.float32))
    kept.finish()
    (folder / "queries.json").write_text(json.dumps({"offsets": list(range(len(queries) + 1)), "queries": queries}))
    about = {"dataset": "tiny", "model": "tiny", "batch": 4, "window": 25}
    (path / "summary.json").write_text(json.dumps({"experiment": "knowledge-acquisition", "parts": [about]}))
    (path / "config.json").write_text(json.dumps({"config": {"reading": vars(READING)}}))
    train_compact_tokenizer(["Mr Low lives in Lund", "nothing"], 300).save_pretrained(path / "tokenizer")
    return path


def test_the_law_behind_the_curves_is_found(tmp_path: Path) -> None:
    curves = read_curves(write_run(tmp_path / "run") / "tiny" / "injection", READING)
    found = law_of(curves, "duplicate", "semantic", READING)
    assert found is not None
    assert found.before == BEFORE
    assert (found.law.first, found.law.change) == (pytest.approx(1.0, abs=1e-4), pytest.approx(-0.2, abs=1e-4))
    assert (found.law.decay_constant, found.law.peak) == (pytest.approx(0.25, abs=0.02), 3)
    assert law_of(curves, "once", "semantic", READING) is None


def test_the_planner_is_better_than_its_baselines_on_another_interval(tmp_path: Path) -> None:
    laws = laws_of(read_curves(write_run(tmp_path / "a") / "tiny" / "injection", READING), READING)
    other = read_curves(write_run(tmp_path / "b", interval=45) / "tiny" / "injection", READING)
    for row in validate(laws, other, READING):
        assert row["planner"] < 0.06
        assert row["planner"] < row["no forgetting"]
        if row["place"] == "along":
            assert row["planner"] < row["last encounter only"]


def test_facts_are_forecast_by_their_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "counts.csv").write_text("fact,count\noften,2000\nrarely,2\nnever,0\n")
    made = plan(
        PlanOptions(
            run,
            frequencies=tmp_path / "counts.csv",
            corpus_tokens=1e6,
            probability=0.03,
            held=(write_run(tmp_path / "held", interval=30),),
        )
    )
    facts = {row["fact"]: row for row in made["facts"]}
    assert facts["often"]["interval"] == 1e6 / 2000 / 100
    assert facts["often"]["verdict"] == "learnt"
    assert facts["rarely"]["verdict"] == facts["never"]["verdict"] == "never"
    assert facts["rarely"]["keeps"] == 0.0  # its interval lies beyond the threshold
    assert made["verdicts"] == {"learnt": 1, "too late": 0, "never": 2}
    assert {row["held"] for row in made["errors"]} == {f"{tmp_path / 'held'}: tiny"}
    assert any("statements" in row["case"] for row in made["what_if"])
    late = plan(
        PlanOptions(run, frequencies=tmp_path / "counts.csv", corpus_tokens=1e6, probability=0.03, tokens=200.0)
    )
    assert late["verdicts"]["too late"] == 1


def test_facts_are_counted_in_a_corpus(tmp_path: Path) -> None:
    texts = [
        "Mr Low lives in Lund.",
        "Lund is far.",
        "In Lund lives Mr Low, and Ms High lives in Oslo.",
        "Mr Lowe, Lund",
    ]
    tokenizer = train_compact_tokenizer(texts, 400)
    counts, tokens, number = count_facts([("Mr Low", "Lund"), ("Ms High", "Oslo"), ("Mr X", "Y")], texts, tokenizer)
    assert counts.tolist() == [2, 1, 0]
    assert number == 4
    assert tokens == pytest.approx(sum(len(tokenizer(t, add_special_tokens=False)["input_ids"]) + 1 for t in texts))
    again = [
        "Mr. Low, a baker, lives in Lund. He is 40. In Lund Mr. Low is known!\nLund is Mr. Low's town.",
        "Mr. Low. Lund.",
    ]
    assert count_facts([("Mr. Low", "Lund"), ("Mr. Low", "40")], again, tokenizer)[0].tolist() == [4, 1]
    wide = [
        "王岚住在东京。她在东京都工作。东京有王岚!",
        "王岚兰不住在大阪。",
        "ที่บ้านของสมชายในเชียงใหม่ Lund。",
        "在Lund住的王岚。",
    ]
    pairs = [("王岚", "东京"), ("สมชาย", "เชียงใหม่"), ("王岚", "Lund")]
    assert count_facts(pairs, wide, tokenizer)[0].tolist() == [2, 1, 1]
    run = write_run(tmp_path / "run")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (tmp_path / "facts.csv").write_text("subject,object\nMr Low,Lund\n")
    made = plan(PlanOptions(run, corpus=str(tmp_path / "corpus.jsonl"), facts=tmp_path / "facts.csv"))
    assert made["facts"][0]["count"] == 2
    (tmp_path / "wide.csv").write_text("name,home,son\nMr Low,Lund,\nMs High,,Mr Low\n")
    wide = plan(PlanOptions(run, corpus=str(tmp_path / "corpus.jsonl"), facts=tmp_path / "wide.csv"))
    assert {row["fact"] for row in wide["facts"]} == {"Mr Low – Lund", "Ms High – Mr Low"}
    with pytest.raises(UserError, match="no text"):
        count_facts([("a", "b")], [], tokenizer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probability": 1.0}, "probability"),
        ({"part": "tinny"}, "did you mean 'tiny'"),
        ({"depth": "compositional"}, "depth compositional"),
        ({"group": "once"}, "'once' was not measured"),
        ({"corpus_tokens": None}, "--corpus-tokens"),
        ({"frequencies": None}, "--corpus and --facts"),
        ({"frequencies": Path("bad.csv")}, "'many' is no number"),
        ({"frequencies": Path("lacking.csv")}, "line 2: has no 'count'"),
        ({"run": Path("nowhere")}, "no finished run"),
    ],
)
def test_what_cannot_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counts.csv").write_text("fact,count\na,1\n")
    (tmp_path / "bad.csv").write_text("fact,count\na,many\n")
    (tmp_path / "lacking.csv").write_text("fact\na\n")
    fine = {"run": write_run(tmp_path / "run"), "frequencies": Path("counts.csv"), "corpus_tokens": 1e6}
    with pytest.raises(UserError, match=words):
        plan(PlanOptions(**(fine | change)))


def test_the_same_table_as_everywhere_with_its_key_and_its_holes(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("no;product;made_in;price\n1;Lamp;Japan;3\n2;Mop;;4\n")
    pairs = [("Lamp", "1"), ("Lamp", "Japan"), ("Lamp", "3"), ("Mop", "2"), ("Mop", "4")]
    assert list(read_pairs(tmp_path / "products.csv", key="product")) == pairs


def test_the_plan_counts_statements_and_names_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = write_run(tmp_path / "run")
    (tmp_path / "corpus.txt").write_text("Mr Low lives in Lund. Lund is where Mr Low lives. In Lund there is Mr Low.\n")
    (tmp_path / "facts.csv").write_text("subject,object\nMr Low,Lund\nMs High,Oslo\n")
    cli.main(
        ["plan", "--run", str(run), "--corpus", str(tmp_path / "corpus.txt"), "--facts", str(tmp_path / "facts.csv")]
    )
    said = capsys.readouterr().out
    (row,) = (line.split() for line in said.splitlines() if line.strip().startswith("Mr Low"))
    assert row[3] == "3"
    words = " ".join(said.split())
    for word in ("times", "stated", "steps", "nats", "Of 2 facts", "1 document, "):
        assert word in words
    assert max(map(len, said.splitlines())) <= 80
