"""The whole audit, small: a network that was taught some facts, another beside it, resume, refusals, the command."""

from __future__ import annotations

import csv
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.support import zoo

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core.models import build
from engramlab.core.text.batches import OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.core.training.loop import Recipe, TrainState, train
from engramlab.corpora.facts import FactTable
from engramlab.experiments import fact_audit, teaching
from engramlab.experiments.fact_audit import work
from engramlab.experiments.fact_audit.work import comparison
from engramlab.measuring import audit

ROWS = [(f"Zor{i}", ("red", "blue", "green", "white")[i % 4], f"city {i}", "one") for i in range(16)]
KNOWN = range(8)  # taught in every wording
HALF = range(8, 12)  # taught in one wording


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    path.write_text("name,colour,home,same\n" + "".join(",".join(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> tuple[str, str]:
    """One taught the homes of half of the subjects in all wordings and of a quarter in one; one that knows nothing."""
    table = FactTable.read(facts)
    tokenizer = zoo.ZOO["llama3"](
        [*zoo.SENTENCES, facts.read_text(), "Question: Answer: What is the listed as everyone"]
    )
    tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token})
    folder = tmp_path_factory.mktemp("models")
    found = []
    for name, taught in (("taught", True), ("empty", False)):
        model = zoo.model(
            "llama", vocabulary=len(tokenizer), max_position_embeddings=192, hidden_size=64, intermediate_size=128
        )
        if taught:
            lines = []
            for i in [*KNOWN, *HALF]:
                forms = [p for _, p in table.wordings.forms("home", ROWS[i][0])]
                lines += [Query(p, ROWS[i][2]) for p in (forms if i in KNOWN else forms[:1])]
            rows = encode_queries(tokenizer, lines, end=True).sequences
            rows = Sequences.of([row[:-1] for row in map(rows.row, range(len(rows)))])
            stream = OneEntryARow(TokenRows(rows), Order(len(rows), 0), start=[], end=tokenizer.eos_token_id, length=64)
            for _ in train(TrainState(model, Recipe(steps=250, batch=20, learning_rate=5e-3)), stream):
                pass
        else:
            with torch.no_grad():
                model.get_output_embeddings().weight.zero_()
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        found.append(str(folder / name))
    return found[0], found[1]


def config(name: str, facts: Path, **more: Any) -> fact_audit.Config:
    return fact_audit.Config(**{"model": name, "facts": facts, "attributes": ("home", "same"), "draws": 1} | more)


def test_what_was_taught_is_what_is_found(models: tuple[str, str], facts: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    summary = fact_audit.run(config(models[0], facts, beside=models[1]), out)
    said = capsys.readouterr().err
    assert "same: left out, it has one object only" in said
    assert "16 facts in 1 relations, about" in said
    one, other = summary["rows"]
    assert (one["relation"], one["part"], other["part"]) == ("home", "", "beside")
    rows = list(csv.DictReader((out / "facts.csv").open()))
    assert [row["subject"] for row in rows] == [row[0] for row in ROWS]
    assert all(rows[i]["class"] == "extractable" for i in KNOWN)
    assert all(rows[i]["class"] in ("prompt-dependent", "extractable") for i in HALF)
    assert {row["beside_class"] for row in rows} == {"unknown"}
    kept = [row for row in rows if row["guessable"] == "False"]
    assert one["extractable"] == sum(row["class"] == "extractable" for row in kept)
    assert other["at_least_recognised"] == 0

    compared = summary["compared"]
    assert sum(map(sum, compared["classes"])) == compared["facts"]
    assert compared["tests"][0]["lost"] >= 6
    assert compared["tests"][0]["won"] == 0
    assert compared["tests"][0]["p"] < 0.05
    assert {row["to"] for row in compared["lost"]} == {"unknown"}

    answers = pq.read_table(out / "relations" / "home" / "answers.parquet").to_pylist()
    assert len(answers) == 16 * 6
    assert {row["kind"] for row in answers} == {"statement", "question"}
    assert all(row["logprob"] <= 0 for row in answers)

    (out / "summary.json").unlink()
    (out / "beside" / "relations" / "home" / "done.json").unlink()  # killed in between
    assert fact_audit.run(config(models[0], facts, beside=models[1]), out)["compared"] == compared
    with pytest.raises(UserError, match="options"):
        fact_audit.run(config(models[0], facts, beside=models[1], options=7), out)


def test_a_model_that_knows_nothing_is_no_better_than_chance(models: tuple[str, str], facts: Path) -> None:
    """Equal logits: every option is as likely as any other behind any subject, and nothing is written."""
    from engramlab.core.models import load

    rows = audit.audit(*load(models[1]), FactTable.read(facts), how=audit.Asking(draws=1))
    assert {row["class"] for row in rows} == {"unknown"}
    assert {row["rank"] for row in rows} == {0.5}
    assert len(rows) == 32


def test_popularity_comes_back_with_the_classes(models: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    lines = [f"{name},home,{city},{i}" for i, (name, _, city, _) in enumerate(ROWS)]
    path.write_text("\n".join(["subject,relation,object,popularity", *lines]))
    asked = config(models[0], path, attributes=None, draws=0, read=False, statement_wordings=1, question_wordings=1)
    summary = fact_audit.run(asked, tmp_path / "run")
    tenths = summary["popularity"]
    assert sum(row["facts"] for row in tenths) == sum(r["facts"] - r["guessable"] for r in summary["rows"])
    assert (
        tenths[0]["at_least_extractable"] > tenths[-1]["at_least_extractable"]
    )  # the first are the ones it was taught
    rows = list(csv.DictReader((tmp_path / "run" / "facts.csv").open()))
    assert [float(row["popularity"]) for row in rows] == list(range(16))
    some = fact_audit.run(replace(asked, limit=10), tmp_path / "some")
    assert some["rows"][0]["facts"] == 10


def test_a_masked_model_is_ranked_only(facts: Path, tmp_path: Path, capsys: Any) -> None:
    tokenizer = zoo.ZOO["bert"]([*zoo.SENTENCES, facts.read_text(), "What is the home of? Answer:"])
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    build("2x32", tokenizer, masked=True).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    summary = fact_audit.run(config(str(tmp_path / "model"), facts), tmp_path / "run")
    assert "a masked language model, which writes no answers" in capsys.readouterr().err
    assert summary["rows"][0]["extractable"] == summary["rows"][0]["latent"] == 0
    rows = list(csv.DictReader((tmp_path / "run" / "facts.csv").open()))
    assert {(row["written"], row["first"], row["read"], row["said"]) for row in rows} == {("", "", "", "")}
    assert all(0 <= float(row["rank"]) <= 1 for row in rows)


def test_dola_has_a_column_of_its_own(models: tuple[str, str], facts: Path, tmp_path: Path) -> None:
    plain = config(models[0], facts, attributes=("home",), draws=0, read=False)
    found = [fact_audit.run(replace(plain, decoded=d), tmp_path / str(d)) for d in (False, True)]
    assert [row["extractable"] for row in found[0]["rows"]] == [row["extractable"] for row in found[1]["rows"]]
    rows = list(csv.DictReader((tmp_path / "True" / "facts.csv").open()))
    assert all(0 <= float(row["decoded"]) <= 1 for row in rows)


def test_two_models_are_never_held_at_once(
    models: tuple[str, str], facts: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    held: list[Any] = []
    alive: list[int] = []
    load = work.load_model

    def loading(*given: Any, **more: Any) -> Any:
        alive.append(sum(one() is not None for one in held))
        model, tokenizer = load(*given, **more)
        held.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(work, "load_model", loading)
    asked = config(models[0], facts, beside=models[1], attributes=("home",), draws=0, read=False)
    fact_audit.run(asked, tmp_path / "run")
    assert alive == [0, 0]
    with pytest.raises(UserError, match="nowhere"):
        fact_audit.run(replace(asked, beside="nowhere/at/all"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert len(alive) == 2  # refused before the first was loaded


def test_quick_asks_less(models: tuple[str, str], facts: Path) -> None:
    from engramlab.core.models import load

    table = FactTable.read(facts)
    model, tokenizer = load(models[0])
    asked = [audit.Asker(model, tokenizer, table, how) for how in (audit.Asking(), audit.QUICK)]
    homes = audit.usable(table)[0]["home"]
    assert asked[1].tokens("home", homes) < asked[0].tokens("home", homes) / 2
    evidence = asked[1].evidence("home", homes)
    assert evidence.kinds == ["statement", "question"]
    assert (~np.isnan(evidence.scores)).sum(-1).max() <= 10 + 6


def test_the_same_model_twice_is_a_diagonal() -> None:
    rows = [
        {"subject": f"s{i}", "relation": "r", "object": "o", "class": name, "guessable": i == 9}
        for i, name in enumerate([*audit.CLASSES, *audit.CLASSES])
    ]
    found = comparison(rows, rows)
    assert found["classes"] == [[(2 - (i == 4)) * (i == j) for j in range(5)] for i in range(5)]
    assert found["won"] == found["lost"] == []
    assert all((test["won"], test["lost"], test["p"]) == (0, 0, 1) for test in found["tests"])


def test_two_models_asked_for_different_facts() -> None:
    row = {"subject": "a", "relation": "r", "object": "o", "class": "unknown", "guessable": False}
    with pytest.raises(UserError, match="different facts"):
        comparison([row], [{**row, "subject": "b"}])


def test_the_command(models: tuple[str, str], facts: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["audit", "--quick", "--model", models[0], "--facts", str(facts), "--attributes", "home"]
    cli.main(words)
    summary = json.loads(Path("runs/audit-facts/summary.json").read_text())
    assert summary["experiment"] == "fact-audit"
    with pytest.raises(SystemExit):
        cli.main(["audit", "--help"])
    assert "--question-wordings" in capsys.readouterr().out


def test_two_runs_side_by_side(models: tuple[str, str], facts: Path, tmp_path: Path, capsys: Any) -> None:
    for name, out in zip(models, ("before", "after"), strict=True):
        fact_audit.run(config(name, facts, attributes=("home",), draws=0, read=False), tmp_path / out)
    runs = [str(tmp_path / "before"), str(tmp_path / "after")]
    cli.main(["compare", *runs, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["tests"][0]["lost"] >= 6
    assert len(found["lost"]) >= 6
    cli.main(["compare", *runs, "--most", "2"])
    said = capsys.readouterr().out
    assert f"lost: {len(found['lost'])} facts" in said
    assert max(map(len, said.splitlines())) <= 80
    for words in ([runs[0], str(tmp_path)], [runs[0], models[0]]):
        with pytest.raises(SystemExit):
            cli.main(["compare", *words])
        assert "is no finished run: give two runs of engramlab audit" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": ""}, "model: say which model is asked"),
        ({"question_wordings": 0}, "questions must be at least 1"),
        ({"options": 1}, "options must be at least 2"),
        ({"attributes": ("same",)}, "no relation has two different objects"),
        ({"attributes": ("nothing",)}, "nothing"),
        ({"model": "/nowhere/at/all"}, "there is no such folder"),
    ],
)
def test_what_cannot_be_audited(models: Any, facts: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fact_audit.run(config(models[0], facts, **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_chat_model_is_asked_in_its_template_too(models: tuple[str, str], facts: Path) -> None:
    from engramlab.core.models import load

    table = FactTable.read(facts)
    model, tokenizer = load(models[0])
    homes = audit.usable(table)[0]["home"]
    plain = audit.Asker(model, tokenizer, table, audit.QUICK).evidence("home", homes)
    zoo.talking(tokenizer)
    talked = audit.Asker(model, tokenizer, table, audit.QUICK).evidence("home", homes)
    assert talked.kinds == [*plain.kinds, "chat"]
    assert talked.prompts[0][-1].endswith("<|user|>\nWhat is the home of Zor0?<|end|>\n<|assistant|>\n")
    assert talked.scores.shape[1] == plain.scores.shape[1] + 1
    np.testing.assert_allclose(talked.scores[:, :-1], plain.scores, atol=1e-3)
    assert not np.isnan(talked.scores[:, -1]).all()
    left = audit.Asker(model, tokenizer, table, audit.Asking(1, 1, chat=False)).evidence("home", homes)
    assert "chat" not in left.kinds


def test_a_column_of_any_name_stays_in_its_run(models: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text(
        "name,..,a/b,a_b,beside\n" + "".join(f"n{i},a{i},b{i},c{i},d{i}\n" for i in range(4))
    )
    more: dict[str, Any] = {"attributes": None, "draws": 0, "read": False, "chat": False, "question_wordings": 1}
    fact_audit.run(config(models[1], tmp_path / "facts.csv", beside=models[1], **more), tmp_path / "in" / "run")
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["run"]
    folders = sorted(path.name for path in (tmp_path / "in" / "run" / "relations").iterdir())
    assert len(folders) == 4
    assert {"a_b", "beside"} <= set(folders)
    assert len(list((tmp_path / "in" / "run" / "beside" / "relations").iterdir())) == 4


def test_an_audited_table_is_taught_by_its_classes_and_keeps_its_aliases(
    models: tuple[str, str], tmp_path: Path
) -> None:
    """What an audit writes is a table of facts: `teach --facts run/facts.csv --only unknown`."""
    path = tmp_path / "mine.csv"
    lines = [f"{name},{city},{city} Town|C{i},The {name}" for i, (name, _, city, _) in enumerate(ROWS)]
    path.write_text("\n".join(["name,home,home_aliases,subject_aliases", *lines]))
    asked = config(models[0], path, attributes=None, draws=0, read=False, statement_wordings=2, question_wordings=1)
    fact_audit.run(asked, tmp_path / "run")
    again = tmp_path / "run" / "facts.csv"
    assert list(FactTable.read(again)) == list(FactTable.read(path))
    classes = {row["subject"]: row["class"] for row in csv.DictReader(again.open())}
    assert classes["Zor0"] == "extractable"
    for only in (("extractable",), ("prompt-dependent,latent", "recognised", "unknown")):
        table = teaching.Config(model=models[0], facts=again, only=only).fact_table()
        assert table is not None
        named = {name for one in only for name in one.split(",")}
        assert {fact.subject for fact in table} == {name for name, found in classes.items() if found in named}
        assert all(fact.aliases and fact.subject_aliases for fact in table)


def test_classes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,object,class\nZor1,home,city 1,unknown\nZor2,home,city 2,unknown\n")
    with pytest.raises(UserError, match="only: there is no class 'known'; an audit finds extractable, prompt-dep"):
        teaching.Config(model="model", facts=path, only=("known",))
    with pytest.raises(UserError, match=r"only: no fact of .*facts\.csv is latent; there are 2 unknown"):
        teaching.Config(model="model", facts=path, only=("latent",)).fact_table()
    with pytest.raises(
        UserError, match="only: names classes of facts that an audit wrote; leave it out with --documents"
    ):
        teaching.check(teaching.Config(model="model", documents=tmp_path, only=("unknown",)))
    path.write_text("subject,relation,object\nZor1,home,city 1\n")
    for facts in (path, Path("countries")):
        with pytest.raises(
            UserError, match=r"only: .* has no classes; give --facts the facts\.csv that engramlab audit"
        ):
            teaching.Config(model="model", facts=facts, only=("unknown",)).fact_table()
