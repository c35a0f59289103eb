"""Edits in turns: the same model however it is judged, the same numbers as single and batch edits where they are the same, and
what is asked beside the edits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.support import zoo
from tests.support.small import quick
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas
from engramlab.editing import benchmarks
from engramlab.experiments import knowledge_editing
from engramlab.experiments.knowledge_editing import Config, sequence, stopping, turns
from engramlab.experiments.knowledge_editing.turns import Plan, age_of, outputs, repeats, twins

COUNTRIES = ["France", "Japan", "Seine", "Edo", "Paris", "Washington"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """Six countries, of which the first is edited again by the fourth record."""
    path = tmp_path / "edits.json"
    cases = []
    for i, country in enumerate(["France", "Japan", "Seine", "France", "Edo", "Washington"]):
        target = ["Edo", "Paris", "Washington", "Japan", "Seine", "Paris"][i]
        case = {"id": str(i), "prompt": f"The capital of {country} is", "subject": country, "target": target}
        cases.append({**case, "rephrase": [f"{country} has its capital in"], "relation": "capital"})
    path.write_text(json.dumps(cases), encoding="utf-8")
    return str(path)


def config(model: str, benchmark: str, *, name: str = "ft-m", **more: Any) -> Config:
    plain: dict[str, Any] = {
        "setting": "turns",
        "counts": (2, 4),
        "turn": 2,
        "sample": 20,
        "natives": 3,
        "text_rows": 2,
    }
    plain |= {"methods": (name,), "losses": ("cross-entropy",), "checkpoint_minutes": 0.0, "new_tokens": 4}
    made = Config(model=model, benchmark=benchmark, **plain | more)
    own = quick(name)
    fewer = {"steps": 5, "epochs": 5}
    own = dataclasses.replace(own, **{k: v for k, v in fewer.items() if hasattr(own, k)})
    return dataclasses.replace(made, hyper=dataclasses.replace(made.hyper, **{name.replace("-", "_"): own}))


def rows(out: Path) -> list[dict[str, Any]]:
    (path,) = out.rglob("rows.parquet")
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def told(found: list[dict[str, Any]], *columns: str) -> list[Any]:
    return [
        [row[c] for c in ("case", "query", "teacher_forced", "generated", "written_after", *columns)] for row in found
    ]


def test_turns_end_to_end(model: str, benchmark: str, tmp_path: Path) -> None:
    made = knowledge_editing.run(config(model, benchmark), tmp_path / "run")
    found = rows(tmp_path / "run")
    last = [row for row in found if row["edits"] == 4]
    assert {row["case"] for row in last if row["part"] == "edited"} == {"1", "2", "3"}
    assert {row["case"] for row in last if row["part"] == "overwritten"} == {"0"}
    assert {row["case"] for row in last if row["part"] == "twin"} == {"4", "5"}
    assert {row["case"]: row["age"] for row in last if row["part"] == "edited"} == {"1": 6, "2": 3, "3": 1}
    assert all((row["newest"] is None) == (row["part"] != "overwritten") for row in last)
    assert {row["edits"] for row in made["rows"]} == {2, 4}
    assert {row["cases"] for row in made["rows"] if row["edits"] == 4} == {3}
    assert {(row["edits"], row["age"]) for row in made["ages"]} == {(2, 1), (2, 6), (4, 1), (4, 3), (4, 6)}
    own = [row for row in last if row["part"] == "edited" and row["role"] == "reliability"]
    for at, share in (("greedy_before", "teacher_forced"), ("said", "generated")):
        (noted,) = [row for row in made["rows"] if (row["edits"], row["protocol"]) == (4, share)]
        right = [sum(row[at]) / len(row[at]) for row in own] if at != "said" else [row["right_before"] for row in own]
        assert noted["reliability_unedited"] == pytest.approx(sum(right) / 3)
        of_age = {
            row["age"]: row["unedited"]
            for row in made["ages"]
            if (row["edits"], row["protocol"]) == (4, share) and row["role"] == "reliability"
        }
        assert of_age == {row["age"]: pytest.approx(value) for row, value in zip(own, right, strict=True)}
    two, four = made["damage"]
    assert (two["overwritten"], four["overwritten"], four["twins"]) == (0, 1, 2)
    assert four["norm"] != 1.0
    assert four["nats_before"] > 0
    assert four["nats_more"] is not None
    assert four["device"] == "cpu"
    assert two["peak_memory"] > 1e6
    assert (two["stops_asked"], four["stops_asked"]) == (2, 3)
    assert all(row[name] > 0 for row in (two, four) for name in ("fluency_before", "fluency"))
    assert all(0 <= four[name] <= 1 for name in ("stops_before", "stops", "whole_before", "whole"))
    assert four["facts_right_before"] == 0  # a random network knows nothing of countries,
    assert four["facts_asked"] == 50  # and can only win
    again = knowledge_editing.run(
        config(model, benchmark), tmp_path / "run"
    )  # nothing to do: the tables alone are made
    assert json.dumps(again) == json.dumps(made)  # the seconds too
    assert made["seconds"] > 0


def test_counts_do_not_change_the_model(
    model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    plain = sequence.deltas.remove_all

    def watched(model: Any) -> None:
        ends.append(deltas.changed(model))
        plain(model)

    monkeypatch.setattr(sequence.deltas, "remove_all", watched)
    for counts in ((6,), (2, 6)):
        knowledge_editing.run(config(model, benchmark, counts=counts), tmp_path / str(len(counts)))
    one, other = (end for end in ends if end)
    assert {path: weight.tolist() for path, weight in one.items()} == {p: w.tolist() for p, w in other.items()}
    last = [[row for row in rows(tmp_path / str(n)) if row["edits"] == 6] for n in (1, 2)]
    assert told(last[0], "part", "age") == told(last[1], "part", "age")


def test_one_edit_in_turns_is_one_single_edit(model: str, benchmark: str, tmp_path: Path) -> None:
    asked = config(model, benchmark, counts=(1,), turn=1, natives=0, twins=0)
    knowledge_editing.run(asked, tmp_path / "turns")
    knowledge_editing.run(dataclasses.replace(asked, setting="single", limit=1), tmp_path / "single")
    assert told(rows(tmp_path / "turns")) == told(rows(tmp_path / "single"))


def test_one_turn_of_all_is_a_batch(model: str, benchmark: str, tmp_path: Path) -> None:
    asked = config(model, benchmark, name="memit", counts=(3,), turn=3, natives=0, twins=0)
    knowledge_editing.run(asked, tmp_path / "turns")
    knowledge_editing.run(dataclasses.replace(asked, setting="batch", limit=3), tmp_path / "batch")
    assert told(rows(tmp_path / "turns")) == told(rows(tmp_path / "batch"))


@pytest.mark.parametrize("name", ["ultraedit", "locft", "alphaedit"])
def test_killed_at_any_turn_and_started_again(
    name: str, model: str, benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(model, benchmark, name=name, counts=(2, 6), natives=0)
    whole = knowledge_editing.run(asked, tmp_path / "whole")
    plain = sequence.Part._save

    class Killed(BaseException):
        pass

    for _ in range(3):

        def save(self: Any, state: dict[str, Any]) -> None:
            plain(self, state)
            raise Killed

        monkeypatch.setattr(sequence.Part, "_save", save)
        with pytest.raises(Killed):
            knowledge_editing.run(asked, tmp_path / "broken")
    monkeypatch.setattr(sequence.Part, "_save", plain)
    again = knowledge_editing.run(asked, tmp_path / "broken")
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")
    assert numbers(again) == numbers(whole)
    assert numbers({"damage": again["damage"]}) == numbers({"damage": whole["damage"]})
    assert again["ages"] == whole["ages"]


def test_counts_that_do_not_fill_turns_are_refused(model: str, benchmark: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"counts: 3 edits do not fill turns of 2"):
        knowledge_editing.run(config(model, benchmark, counts=(2, 3)), tmp_path / "run")


def test_a_sample_is_even_over_ages_and_drawn_before_the_run() -> None:
    plan = Plan([], 50, 7)
    for count in (10, 100, 999):
        chosen = plan.chosen(count)
        ages = [age_of(i, count) for i in chosen]
        assert len(chosen) == len(set(chosen)) == min(50, count)
        assert {age: ages.count(age) for age in set(ages)} == dict.fromkeys(range(1, 11), min(50, count) // 10)
        assert chosen == Plan([], 50, 7).chosen(count)
    assert plan.chosen(999) != Plan([], 50, 8).chosen(999)


def made_case(i: int, subject: str, target: str, relation: str = "capital") -> Case:
    query = Query(f"The {relation} of {subject} is", "", (), str(i), subject, relation)
    return Case(str(i), (Edit(query, target),))


def test_another_order_has_the_same_edits_before_each_count_and_the_same_last_one_of_a_prompt() -> None:
    cases = benchmarks.load("people", limit=60, seed=1).cases
    order = turns.shuffled(cases, (20, 60), 5)
    assert sorted(order) == list(range(60))
    assert order != sorted(order)
    assert order == turns.shuffled(cases, (20, 60), 5) != turns.shuffled(cases, (20, 60), 6)
    assert sorted(order[:20]) == list(range(20))
    prompts = [case.edits[0].query.prompt for case in cases]
    again = [(i, j) for i in range(60) for j in range(i) if prompts[i] == prompts[j]]
    assert len(again) >= 6
    assert all(order.index(j) < order.index(i) for i, j in again)
    plain, other = Plan(cases, 20, 3), Plan([cases[i] for i in order], 20, 3, order=order)
    for count in (20, 60):
        judged = [{case.id: case for case in plan.asked(count).cases} for plan in (plain, other)]
        assert judged[0] == judged[1]  # the same questions of the same cases,
        parts = [{name: row["part"] for name, row in plan.asked(count).about.items()} for plan in (plain, other)]
        assert parts[0] == parts[1]  # of which the same still hold
        ages = [{name: row["age"] for name, row in plan.asked(count).about.items()} for plan in (plain, other)]
        assert ages[0] != ages[1]


def test_two_orders_of_the_same_edits(model: str, benchmark: str, tmp_path: Path) -> None:
    runs = {
        seed: config(model, benchmark, counts=(2, 6), natives=1, text_rows=1, order_seed=seed) for seed in (None, 1)
    }
    found = {}
    for seed, asked in runs.items():
        made = knowledge_editing.run(asked, tmp_path / str(seed))
        assert made["order_seed"] == seed
        assert json.loads((tmp_path / str(seed) / "config.json").read_text())["config"]["order_seed"] == seed
        found[seed] = rows(tmp_path / str(seed))
    asked_of = [{(row["edits"], row["case"], row["part"], row["prompt"]) for row in of} for of in found.values()]
    assert asked_of[0] == asked_of[1]
    ages = [{row["case"]: row["age"] for row in of if row["edits"] == 6} for of in found.values()]
    assert ages[0] != ages[1]
    with pytest.raises(UserError, match="order_seed: is of --setting turns"):
        knowledge_editing.run(config(model, benchmark, setting="batch", order_seed=1), tmp_path / "batch")


def test_one_after_another_too_nobody_shall_say_what_was_edited_again(
    model: str, benchmark: str, tmp_path: Path
) -> None:
    made = knowledge_editing.run(config(model, benchmark, setting="continual", counts=(2, 4)), tmp_path / "run")
    found = rows(tmp_path / "run")
    first = {count: [row for row in found if (row["case"], row["edits"]) == ("0", count)] for count in (2, 4)}
    assert {row["role"] for row in first[2]} == {"reliability", "generality"}
    assert [(row["role"], row["prompt"]) for row in first[4]] == [("overruled", "The capital of France is")]
    assert {row["role"] for row in found if row["case"] == "3"} == {"reliability", "generality"}
    shares = {row["edits"]: row for row in made["rows"] if row["protocol"] == "generated"}
    assert [(shares[n]["cases"], shares[n]["overruled"]) for n in (2, 4)] == [(2, 0), (3, 1)]
    still = [row["generated"] for row in found if (row["edits"], row["role"]) == (4, "reliability")]
    assert len(still) == 3
    assert shares[4]["reliability"] == pytest.approx(sum(still) / 3)


def test_twins_are_of_the_relations_and_of_other_subjects() -> None:
    cases = [made_case(0, "France", "Rome"), made_case(1, "Japan", "Oslo")]
    spare = [
        *cases,
        made_case(2, "France", "Euro", "currency"),
        made_case(3, "Chad", "Lima"),
        made_case(4, "Peru", "Rome"),
    ]
    assert [case.id for case in twins(cases, spare, 9)] == ["3", "4"]
    assert [case.id for case in twins(cases, spare, 1)] == ["3"]


def test_the_latest_edit_holds() -> None:
    edits = [
        made_case(i, *one).edits[0]
        for i, one in enumerate([("A", "x"), ("B", "y"), ("A", "z"), ("A", "x"), ("B", "Y")])
    ]
    assert benchmarks.overwritten(edits) == {2: 3}
    assert benchmarks.overwritten(edits[:3]) == {0: 2}


def test_made_up_people_come_in_one_order_and_some_come_again() -> None:
    few, more = (benchmarks.load("people", limit=limit, seed=3).cases for limit in (20, 40))
    assert more[:20] == few
    assert len({case.id for case in more}) == 40
    again = [case for case in more if "again" in case.id]
    assert len(again) == 4
    edits = [case.edits[0] for case in more]
    assert len(benchmarks.overwritten(edits)) == 4
    assert all(judge.target == edit.target for edit in edits for judge in edit.judges)


def test_own_stopping_is_asked_of_some_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [made_case(i, f"Land{i}", f"Town{i}") for i in range(250)]
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    network = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256)
    rooms: list[int] = []

    def before(model: Any, tokenizer: Any, prompts: Any, *, max_new_tokens: int, **more: Any) -> Any:
        rooms.append(max_new_tokens)
        assert more == {"batch": 256, "stop_at_line_end": True}
        return [("Nowhere and", False)] * len(prompts)

    def after(model: Any, tokenizer: Any, prompts: Any, *, max_new_tokens: int, **more: Any) -> Any:
        """Of four texts: the answer; the answer and more, twice, once without an end; something else."""
        rooms.append(max_new_tokens)
        towns = [prompt.removeprefix("The capital of Land").removesuffix(" is") for prompt in prompts]
        return [
            [(f" Town{n}.", True), (f"Town{n}, on a river", True), (f"Town{n} and", False), ("Nowhere", True)][i % 4]
            for i, n in enumerate(towns)
        ]

    monkeypatch.setattr(stopping, "continuations", before)
    asked = stopping.Stopping.of(network, tokenizer, [cases[:40], cases])
    longest = max(len(tokenizer(f" Town{i}", add_special_tokens=False)["input_ids"]) for i in range(250))
    assert asked.room == longest + stopping.ROOM
    monkeypatch.setattr(stopping, "continuations", after)
    for some, count in ((cases[:40], 40), (cases, 84)):  # every third of 250
        found = asked.after(network, tokenizer, some)
        assert found == {
            "stops_asked": count,
            "stops_before": 0.0,
            "stops": pytest.approx(0.75),
            "whole_before": 0.0,
            "whole": pytest.approx(0.25),
        }
    assert set(rooms) == {asked.room}
    assert asked.after(network, tokenizer, [])["stops"] is None


def test_facts_lost_and_won(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Query(f"The capital of {name} is", town) for name, town in (("A", "Oslo"), ("B", "Rome"), ("C", "Bern"))]
    monkeypatch.setattr(turns, "write", lambda model, tokenizer, prompts, room: ["Oslo.", "Paris", "Bernburg"])
    monkeypatch.setattr(turns, "as_read", lambda model, tokenizer, prompts: prompts)
    plain = {"group": "known facts", "role": "locality", "target": "Edo", "aliases": [], "right_before": 1.0}
    judged = [{**plain, "prompt": str(i), "written_after": text} for i, text in enumerate(["Edo", "edo, of", "Rome"])]
    judged += [{**plain, "group": "twin", "prompt": "3", "written_after": ""}]
    found = turns.moved(None, None, judged, wrong)  # type: ignore[arg-type]
    assert found == {"asked": 6, "right_before": 3, "lost": 1, "won": 1}


def test_what_is_wrong_with_outputs() -> None:
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    assert repeats("the sea the sea the sea the sea")
    assert not repeats("the sea")
    texts = ["", "Paris", "Paris Paris Paris Paris Paris Paris Paris"]
    made = [{"prompt": str(i), "written": text} for i, text in enumerate(texts)]
    room = {"0": 4, "1": 20, "2": 4}
    assert outputs(tokenizer, made, "written", room) == pytest.approx(
        {"empty": 1 / 3, "endless": 1 / 3, "repeated": 1 / 3}
    )


def test_edits_are_asked_negated_and_the_other_way_round() -> None:
    judge = Query("France's capital is", "Rome", role="generality")
    query = Query("The capital of France is", "Paris", subject="France")
    case = turns.aside(Case("1", (Edit(query, "Rome", judges=(judge,)),)))
    first, negated, turned = case.edits[0].judges
    assert first is judge
    assert (negated.prompt, negated.target, negated.role) == ("The capital of France is not", "Rome", "negated")
    assert (turned.prompt, turned.target, turned.role) == ("Rome is the capital of", "France", "reversed")
    other = Case("2", (Edit(Query("Who wrote Emma?", "", subject="Emma"), "Jane Austen"),))
    assert turns.aside(other) == other
    plan = turns.Plan([case], 1, 0, asides=True)
    (asked,) = plan.asked(1).cases
    assert {one.role for edit in asked.edits for one in edit.judges} == {"generality", "negated", "reversed"}
