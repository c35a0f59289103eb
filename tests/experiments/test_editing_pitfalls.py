"""Editing pitfalls: scores against tables made by hand, cases of files and of the world, a small run, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import zoo
from tests.support.tiny_runs import numbers

from engramlab.base.errors import UserError
from engramlab.base.facts import Case, Edit, Query
from engramlab.core import deltas, models
from engramlab.editing import benchmarks, method
from engramlab.editing.hyper import Hyperparameters
from engramlab.editing.judge import beyond
from engramlab.editing.requests import any_of, sharing
from engramlab.experiments import editing_pitfalls as pitfalls
from engramlab.experiments._run import tried
from engramlab.experiments.editing_pitfalls import asked, scores, work
from engramlab.files import records
from engramlab.files.runs import plain

RELATION = {"id": "P1", "prompt": "The capital of {} is", "query": "What is the capital of {}?"}
BACK = {"id": "P2", "prompt": "{} is the capital of", "query": "Of what is {} the capital?"}


def triple(relation: dict[str, str], subject: str, object: str, new: str = "") -> dict[str, Any]:
    found = {"relation": relation, "subject": {"label": subject}, "object": {"label": object}}
    return found | ({"new_object": {"label": new}} if new else {})


REVERSE = {
    "type": "reverse",
    "triples": [triple(RELATION, "France", "Paris"), triple(BACK, "Edo", "France")],
    "prerequisites": [],
    "edits": [triple(RELATION, "France", "Paris", "Edo"), triple(BACK, "Edo", "France", "Japan")],
}
COMPOSITE = {
    "type": "composite",
    "triples": [triple(BACK, "Paris", "France")],
    "prerequisites": [0],
    "edits": [triple(RELATION, "France", "Paris", "Edo"), triple(RELATION, "Japan", "Edo", "Lund")],
}
COVERAGE = {
    "type": "coverage",
    "triples": [triple(RELATION, "France", "Paris")],
    "prerequisites": [],
    "edits": [triple(RELATION, "France", "Paris", "Edo"), triple(RELATION, "France", "Edo", "Lund")],
}
TRIP = {
    "type": "1-2@P1",
    "edit": triple(RELATION, "France", "Paris", "Edo"),
    "true_objects": [{"label": "Paris"}, {"label": "Lund"}],
}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def wordings(tmp_path: Path) -> Path:
    return write(
        tmp_path / "wordings.json", {"P1": ["The seat of {} is", "{} is ruled from"], "P2": ["{} is the seat of"]}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def quick(**more: Any) -> Any:
    hyper = Hyperparameters()
    return replace(hyper, ft_m=replace(hyper.ft_m, steps=3), **more)


def test_conflict_by_hand() -> None:
    p = {"first": (0.1, 0.8, 0.2), "last": (0.1, 0.1, 0.7), "implied": (0.1, 0.1, 0.15), "tied": (0.5, 0.4, 0.1)}
    found = scores.conflict(p)
    assert found == {"explicit": 1.0, "implied": 0.0, "magnitude": pytest.approx(0.75), "tied": pytest.approx(0.8)}
    # An edit that the second makes likelier still: no less than -1.
    assert scores.conflict({"first": (0.1, 0.1, 0.5), "last": (0.1, 0.1, 0.4)}) == {
        "explicit": 0.0, "implied": None, "magnitude": -1.0, "tied": None,
    }  # fmt: skip
    assert scores.conflict({"first": (0.0, 0.0, 0.0), "last": (0.0, 0.0, 0.0)})["magnitude"] is None


def test_an_ideal_editor() -> None:
    """It forgets the first edit for the second and what that implies, and leaves what ties them alone."""
    p = {"first": (0.0, 1.0, 0.0), "last": (0.0, 0.0, 1.0), "implied": (0.0, 0.0, 1.0), "tied": (0.9, 0.9, 0.9)}
    assert scores.conflict(p) == {"explicit": 1.0, "implied": 1.0, "magnitude": 1.0, "tied": 0.0}


def test_a_round_trip_by_hand() -> None:
    p = {"a": (0.4, 0.1, 0.6), "b": (0.2, 0.1, 0.15), "c": (0.2, 0.1, 0.25), "x": (0.0, 0.9, 0.1)}
    ranks = {"a": (0, 5, 0), "b": (4, 9, 4), "c": (5, 7, 6), "x": (99, 0, 50)}
    found = scores.round_trip(p, ranks, ("a", "b", "c"), "x")
    before, after = np.array([0.5, 0.25, 0.25]), np.array([0.6, 0.15, 0.25])
    middle = (before + after) / 2
    apart = sum((q * np.log(q / middle)).sum() for q in (before, after)) / 2
    assert found["distortion"] == pytest.approx(apart)
    assert found["distortion_divided"] == pytest.approx(apart / 3)
    assert (found["ignored"], found["failed"], found["outranked"], found["back"]) == (0.5, 0.0, 0.5, 1.0)
    same = scores.round_trip({name: (v[0], v[1], v[0]) for name, v in p.items()}, ranks, ("a", "b", "c"), "x")
    assert (same["distortion"], same["ignored"]) == (0.0, 0.0)


def test_the_divergence_is_symmetric_and_at_most_ln_2() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = (v / v.sum() for v in rng.random((2, 5)))
        assert scores.divergence(one, other) == pytest.approx(scores.divergence(other, one))
        assert 0 <= scores.divergence(one, other) <= math.log(2)
    assert scores.divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(math.log(2))


def test_what_is_asked_of_files(tmp_path: Path, wordings: Path) -> None:
    files = (write(tmp_path / "c.json", [REVERSE, COMPOSITE]), write(tmp_path / "r.json", [TRIP]))
    config = pitfalls.Config(files=tuple(map(str, files)), conflict_wordings=wordings, round_wordings=wordings)
    (reverse, composite), (trip,) = asked.items_of(config).values()
    assert (reverse.kind, composite.kind, trip.kind) == ("reverse", "composite", "round")
    assert [q.prompt for q in reverse.asked["implied"]] == [
        "The capital of Japan is", "The seat of Japan is", "Japan is ruled from",
    ]  # fmt: skip
    assert {q.target for q in reverse.asked["implied"]} == {"Edo"}
    assert next((q.prompt, q.target) for q in composite.asked["implied"]) == ("The capital of France is", "Lund")
    assert [(q.prompt, q.target) for q in composite.asked["tied"]] == [
        ("Paris is the capital of", "France"), ("Paris is the seat of", "France"),
    ]  # fmt: skip
    assert trip.true == ("Paris", "Lund")
    assert set(trip.asked) == {"Paris", "Lund", "Edo"}
    assert trip.edits[1].target == "Paris"
    assert [one.target for one in trip.back] == ["Paris", "Lund"]


REAL = Path(__file__).resolve().parents[2].parent / "shared/data/benchmarks/pitfalls/GPT-J"


@pytest.mark.skipif(not REAL.exists(), reason=f"needs the files of {REAL}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_real_files_have_all_their_wordings() -> None:
    """Eleven wordings of every fact (fewer where one is the prompt again), and each case of its file's kind."""
    names = [*(f"{kind}_edit.json.gz" for kind in ("reverse", "composite", "coverage")), "easy.json", "hard.json"]
    config = pitfalls.Config(
        files=tuple(str(REAL / name) for name in names),
        limit=None,
        conflict_wordings=REAL / "conflict_prompts.json",
        round_wordings=REAL / "round_prompts.json",
    )
    for name, items in zip(names, asked.items_of(config).values(), strict=True):
        kind = "round" if name in ("easy.json", "hard.json") else name.partition("_")[0]
        assert {item.kind for item in items} == {kind}
        assert len({item.id for item in items}) == len(items)
        assert all(9 < len(of) <= 11 for item in items for of in item.asked.values())
        keys = {"reverse": {"first", "last", "implied"}, "coverage": {"first", "last"}}
        keys["composite"] = {*keys["reverse"], "tied"}
        assert kind == "round" or all(set(item.asked) == keys[kind] for item in items)


def test_any_of_contradicts_nothing() -> None:
    edit = Edit(Query("A country that pays in euros is", "France", subject="euros"), "Japan")
    several = any_of(edit, ("France", "Spain", "Italy"))
    assert benchmarks.contradictions(several) == []
    assert benchmarks.contradictions([replace(one, aliases=()) for one in several]) == [(0, 1), (0, 2)]
    assert {one.query for one in several} == {edit.query}


def test_any_of_makes_every_answer_likelier() -> None:
    """MEMIT searches one value for them, as they share a key."""
    from tests.support.small import quick as settings

    from engramlab.measuring.questions import score

    tokenizer = zoo.ZOO["llama3"](zoo.SENTENCES)
    network = zoo.model("llama", vocabulary=len(tokenizer), max_position_embeddings=256)
    query = Query("The capital of France is", "Edo", subject="France")
    targets = ("Paris", "Washington")
    asks = [replace(query, target=one) for one in targets]

    def likely() -> list[float]:
        return [row["logprob"] for row in score(network, tokenizer, asks)]

    before = likely()
    with method.applied(network, tokenizer, any_of(Edit(query, ""), targets), method="memit", config=settings("memit")):
        joint = likely()
    assert all(now > was for now, was in zip(joint, before, strict=True))
    assert sharing(tokenizer, any_of(Edit(query, ""), targets)) == [[0, 1]]


def test_the_world_ties_its_edits() -> None:
    found = asked.items_of(pitfalls.Config(limit=6))
    assert {name: len(items) for name, items in found.items()} == dict.fromkeys(
        ("world reverse", "world composite", "world coverage", "world round"), 6
    )
    for item in (item for items in found.values() for item in items):
        first, last = item.edits
        assert all(one.query.subject in one.query.prompt for one in item.edits)
        if item.kind == "reverse":
            assert last.query.subject == first.target
            assert item.asked["implied"][0].target == first.target
        elif item.kind == "composite":
            assert item.asked["implied"][0].prompt == first.query.prompt
            assert item.asked["implied"][0].target == last.target
        elif item.kind == "coverage":
            assert first.query == replace(last.query)
        else:
            assert len(item.true) > 1
            assert first.target not in item.true
            assert last.target == item.true[0] == first.query.target
    again = asked.items_of(pitfalls.Config(limit=6))
    assert [[item.id for item in items] for items in again.values()] == [[i.id for i in of] for of in found.values()]


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (TRIP | {"true_objects": [{"label": "Lund"}, {"label": "Bern"}]}, "true_objects"),
        (TRIP | {"true_objects": [{"label": "Paris"}]}, "true_objects"),
        (TRIP | {"true_objects": [{"label": "Paris"}, {"label": "Edo"}]}, "true_objects"),
        (REVERSE | {"type": "coverage", "edits": [REVERSE["edits"][0]] * 2}, "edits"),
    ],
)
def test_bad_records(record: dict[str, Any], key: str, tmp_path: Path, wordings: Path) -> None:
    path = write(tmp_path / "bad.json", [record])
    config = pitfalls.Config(files=(str(path),), conflict_wordings=wordings, round_wordings=wordings)
    with pytest.raises(UserError, match=f"record 0.*{key}") as caught:
        asked.items_of(config)
    assert "\n" not in str(caught.value)


def test_a_relation_without_wordings(tmp_path: Path) -> None:
    path, few = write(tmp_path / "c.json", [REVERSE]), write(tmp_path / "few.json", {"P1": ["The seat of {} is"]})
    with pytest.raises(UserError, match="conflict-wordings"):
        asked.items_of(pitfalls.Config(files=(str(path),)))
    config = pitfalls.Config(files=(str(path),), conflict_wordings=few)
    with pytest.raises(UserError, match="record 0, key 'relation': 'P2' has no wordings in .*bad='skip'"):
        asked.items_of(config)
    with pytest.raises(UserError, match="no record can be used: record 0, key 'relation'"):
        asked.items_of(replace(config, bad="skip"))
    both = write(tmp_path / "both.json", [REVERSE, COVERAGE, {**COVERAGE, "type": "other"}])
    with pytest.warns(
        UserWarning, match="both.json: records left out: 2 .*record 2, key 'type'.*record 0, key 'relation'"
    ):
        found = asked.items_of(replace(config, files=(str(both),), bad="skip"))
    assert [item.kind for item in found[str(both)]] == ["coverage"]
    with pytest.raises(UserError, match="relation 'P1' must have a list of prompts"):
        asked.items_of(
            pitfalls.Config(files=(str(path),), conflict_wordings=write(tmp_path / "w.json", {"P1": ["no"]}))
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ("rome",), "any_of": ("memit",)}, "is none of the methods"),
        ({"methods": ("rome",), "any_of": ("rome",)}, "one edit after another"),
        ({"methods": ()}, "methods: name at least one"),
        ({"kinds": ()}, "kinds: name at least one"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"lm_eval": "piqa"}, "lm_eval: is of many edits on one model; leave it out$"),
        ({"fluency": -1}, "fluency must be at least 0"),
        ({"drift_text": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pitfalls.check(pitfalls.Config(model="m", **options))


def test_memit_is_joint_where_it_is_among_the_methods() -> None:
    for methods, joint in ((("rome",), ()), (("ft-m,memit",), ("memit",)), (pitfalls.Config.methods, ("memit",))):
        config = pitfalls.Config(model="m", methods=methods)
        pitfalls.check(config)
        assert config.joint == joint


def test_a_run_that_named_memit_goes_on(model: str, tmp_path: Path) -> None:
    """As all did that were begun when nothing else was the default."""
    config = pitfalls.Config(model=model, methods=("memit",), kinds=("round",), limit=1)
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"experiment": "editing-pitfalls", "config": plain(replace(config, any_of=("memit",)))}))
    assert tried(lambda: pitfalls.run(config, tmp_path / "run")).resumed
    with pytest.raises(UserError, match="holds a run with another config .any_of"):
        tried(lambda: pitfalls.run(replace(config, any_of=()), tmp_path / "run"))


def test_a_run(model: str, tmp_path: Path, wordings: Path) -> None:
    files = (write(tmp_path / "c.json", [REVERSE, COMPOSITE]), write(tmp_path / "r.json", [TRIP]))
    config = pitfalls.Config(
        model=model,
        files=tuple(map(str, files)),
        conflict_wordings=wordings,
        round_wordings=wordings,
        methods=("ft-m",),
        any_of=("ft-m",),
        at_once=1,
        hyper=quick(),
        fluency=6,
        drift_text="ordinary",
        text_rows=2,
    )
    summary = pitfalls.run(config, tmp_path / "run")
    assert [(row["kind"], row["method"], row["cases"]) for row in summary["rows"]] == [
        ("reverse", "ft-m", 1), ("composite", "ft-m", 1), ("round", "ft-m", 1), ("round", "ft-m (any of)", 1),
    ]  # fmt: skip
    (tmp_path / "run" / "summary.json").unlink()
    next((tmp_path / "run" / "ft-m").glob("*/done.json")).unlink()
    assert numbers(pitfalls.run(config, tmp_path / "run")) == numbers(summary)
    assert_beside(model, asked.items_of(config)[str(files[0])][0], summary["rows"][0])


def assert_beside(model: str, item: asked.Item, row: dict[str, Any]) -> None:
    """What a row of one case says beside its scores, against both edits on the model, one after the other."""
    network, tokenizer = models.load(model)
    network.eval()
    case, texts = Case(item.id, item.edits), beyond.passages(network, tokenizer, "ordinary", 2, 0)

    def found() -> list[float | None]:
        return [*beyond.fluencies(network, tokenizer, [case], 6), beyond.nats(network, tokenizer, texts)]

    states = [found()]
    for edit in item.edits:
        deltas.install(network, method.make(network, tokenizer, [edit], method="ft-m", config=quick().ft_m))
    states.append(found())
    assert [row[name] for name in ("fluency_before", "nats_before")] == pytest.approx(states[0], rel=1e-5)
    assert [row[name] for name in ("fluency", "nats")] == pytest.approx(states[1], rel=1e-5)
    assert row["nats"] != row["nats_before"]


def test_a_part_made_before_anything_was_measured_beside_is_read(model: str, tmp_path: Path, wordings: Path) -> None:
    """Its cases have no such numbers, which is no reason to make them again."""
    path = write(tmp_path / "c.json", [REVERSE, COMPOSITE])
    more: Any = {"files": (str(path),), "conflict_wordings": wordings, "methods": ("ft-m",), "hyper": quick()}
    config = pitfalls.Config(model=model, fluency=2, **more)
    pitfalls.run(config, tmp_path / "run")
    (done,) = (tmp_path / "run" / "ft-m").glob("*/done.json")
    record = records.read_record(done)
    for row in record["rows"]:
        del row["fluency_before"], row["fluency"]
    records.write_record(done, record)
    assert {row["fluency"] for row in pitfalls.run(config, tmp_path / "run")["rows"]} == {None}


def test_what_is_read_is_what_is_there(model: str, tmp_path: Path, wordings: Path) -> None:
    """Three states read in batches equal one edit after the other put on the model; which then is as it was, bit for bit."""
    from engramlab.core.text.tokens import encode_queries
    from engramlab.measuring.scoring import score

    network, tokenizer = models.load(model)
    was = {name: p.detach().clone() for name, p in network.named_parameters()}
    path = write(tmp_path / "c.json", [REVERSE, COMPOSITE])
    config = pitfalls.Config(files=(str(path),), conflict_wordings=wordings)
    (items,) = asked.items_of(config).values()
    rows, failed = work.edited(network, tokenizer, items, "ft-m", quick().ft_m, False)
    assert not failed
    assert all(torch.equal(was[name], p) for name, p in network.named_parameters())

    def read(queries: Any) -> float:
        found = []
        for query in queries:
            scored = score(network, encode_queries(tokenizer, [query]).sequences)
            found.append(math.exp(scored.logprobs.mean()))
        return float(np.mean(found))

    for item, row in zip(items, rows, strict=True):
        states = [{name: read(of) for name, of in item.asked.items()}]
        first = method.make(network, tokenizer, [item.edits[0]], method="ft-m", config=quick().ft_m)
        with deltas.active(network, first):
            states.append({name: read(of) for name, of in item.asked.items()})
            last = method.make(network, tokenizer, [item.edits[1]], method="ft-m", config=quick().ft_m)
            with deltas.active(network, last):
                states.append({name: read(of) for name, of in item.asked.items()})
        for name in item.asked:
            assert row["p"][name] == pytest.approx([state[name] for state in states], rel=1e-4)
