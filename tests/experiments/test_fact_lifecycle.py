"""The lifecycle of facts, small: what must be so whatever the model, by independent computations; refusals."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments.test_teaching import made_model
from tests.support.extraction import smallest

from engramlab.base.errors import UserError
from engramlab.base.facts import Edit, Query
from engramlab.base.terminal import Console
from engramlab.core import deltas
from engramlab.corpora.facts import FactTable
from engramlab.corpora.facts.teaching import divide
from engramlab.corpora.people import Pools
from engramlab.editing import method
from engramlab.experiments import fact_lifecycle, knowledge_extraction
from engramlab.experiments.fact_lifecycle import numbers, reach
from engramlab.experiments.fact_lifecycle.asking import look
from engramlab.experiments.fact_lifecycle.config import editing
from engramlab.experiments.fact_lifecycle.half_life import HalfLife
from engramlab.experiments.fact_lifecycle.reach import PLACES, Read, readings
from engramlab.experiments.fact_lifecycle.work import Lifecycle
from engramlab.files import writing
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import Room, evidence_on, write

_PLACES = list(PLACES)
NAMES = [f"{a}{b}" for a in ("Zor", "Mel", "Tav") for b in ("ban", "lo", "ri", "dax")]
HOMES, COLOURS = ("Arlo", "Besk", "Cind", "Dorn"), ("red", "blue", "green")


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    rows = [f"{name},{HOMES[i % 4]},{COLOURS[i % 3]}\n" for i, name in enumerate(NAMES)]
    path.write_text("name,home,colour\n" + "".join(rows))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, facts: Path) -> str:
    table = FactTable.read(facts)
    words = divide(table.wordings)
    said = [p for fact in table for _, p in words.prompts(fact.relation, fact.subject, "held-out")]
    return made_model(tmp_path_factory.mktemp("model"), [facts.read_text(), *said])


def small(edited: str, facts: Path, **more: Any) -> fact_lifecycle.Config:
    chosen: dict[str, Any] = {
        "model": edited,
        "facts": facts,
        "parts": ("half-life",),
        "count": 6,
        "arms": ("ft-m", "injected"),
        "encounters": (2,),
        "injection_rate": 1e-2,
        "steps": 4,
        "rows": 2,
        "window": 16,
        "learning_rate": 1e-3,
        "stream": "fictional",
    }
    return fact_lifecycle.Config(**(chosen | more))


def test_retention_is_one_before_training_and_says_nothing_of_what_never_went_in() -> None:
    twin = np.array([[-5.0, -5.0], [-4.0, -6.0]])
    arm = np.array([[-1.0, -4.95], [-2.0, -5.0]])
    kept = numbers.retention(arm, twin)
    assert kept[0, 0] == 1.0
    assert kept[1, 0] == pytest.approx(2 / 4)
    assert np.isnan(kept[:, 1]).all()  # 0.05 nats
    assert np.isnan(numbers.retention(twin, twin)).all()  # an arm that is its twin
    undone = np.array([arm[0], twin[1]])
    assert numbers.retention(undone, twin)[1, 0] == 0.0


def test_the_half_life_is_where_a_drawn_line_is_at_one_half() -> None:
    steps = [0, 1, 2, 4, 8, 16, 32, 64]
    line = [1.0, *(0.9 - 0.1 * math.log2(t) for t in steps[1:])]
    assert numbers.half_life(steps, np.array(line)) == pytest.approx(16.0)
    slow = [1.0, *(0.9 - 0.01 * math.log2(t) for t in steps[1:])]
    assert math.isinf(numbers.half_life(steps, np.array(slow)))
    assert numbers.half_life(steps, np.full(8, 0.4)) == 1.0
    assert math.isinf(numbers.half_life(steps, np.full(8, 0.8)))


def test_survival_is_the_share_never_lost() -> None:
    rng = np.random.default_rng(0)
    written = rng.random((5, 40)) < 0.8
    found = numbers.survival(written)
    there = written[:, written[0]]
    by_hand = [there[: k + 1].all(0).mean() for k in range(5)]
    assert found == pytest.approx(by_hand)
    assert np.isnan(numbers.survival(np.zeros((3, 4), dtype=bool))).all()


def test_only_facts_that_are_alike_are_compared() -> None:
    kept = np.array([[1.0, 1.0, 1.0], [0.5, 0.4, 0.3]])
    one = {"gained": np.array([2.0, 4.0, 0.05]), "before": np.array([-5.0, -8.0, -5.0]), "retention": kept}
    other = {"gained": np.array([2.1, 9.0, 4.2]), "before": np.array([-5.1, -8.0, -8.3]), "retention": kept - 0.1}
    found = numbers.matched(one, other, 0)
    assert (found["pairs"], found["unmatched"]) == (2, 1)
    # the first with itself (0.5 - 0.4), the second with the third (0.4 - 0.2)
    assert found["difference"] == pytest.approx((0.1 + 0.2) / 2)
    assert (found["low"], found["high"]) == (None, None)  # two pairs are no sample
    more = {name: np.repeat(value, 3, axis=-1) for name, value in one.items()}
    found = numbers.matched(more, {name: np.repeat(value, 3, axis=-1) for name, value in other.items()}, 0)
    assert (found["pairs"], found["unmatched"]) == (6, 3)
    assert 0.1 <= found["low"] < found["difference"] < found["high"] <= 0.2


def test_a_margin_that_may_have_been_nothing_has_no_share() -> None:
    """Of 20 subjects: margins that go from 4 to 3, and such that are as often below 0 as above and go down by 2."""
    subjects, rng = [str(n) for n in range(20)], np.random.default_rng(0)
    spread = rng.normal(size=20)
    looked = {"retention": None, "written": np.ones((2, 20), dtype=bool)}
    for first, last, share in ((4.0, 3.0, 0.75), (0.1 - spread.mean(), -1.9 - spread.mean(), None)):
        margin = np.stack([first + spread, last + spread])
        rows, whole = numbers.course([0, 8], {**looked, "margin": margin}, subjects, 0)
        found = [rows[1][name] for name in ("margin", "margin_low", "margin_high")]
        assert whole["margin_before"] == pytest.approx(margin[0].mean())
        if share is None:
            assert found == [None, None, None]
        else:
            assert found[0] == pytest.approx(margin[1].mean() / margin[0].mean())
            assert found[1] < found[0] < found[2]


def test_half_lives_of_arms_and_twin(model: str, facts: Path, tmp_path: Path) -> None:
    summary = fact_lifecycle.run(small(model, facts, trained=("all", "edited", "others")), tmp_path / "run")
    rows = {(row["arm"], row["weights"]): row for row in summary["half_life"]}
    assert {weights for arm, weights in rows if arm == "ft-m"} == {"all", "edited", "others"}
    assert {weights for arm, weights in rows if arm == "injected 2"} == {"all"}  # it changed every layer
    first = [row for row in summary["courses"] if row["steps"] == 0]
    assert all(row["retention"] == pytest.approx(1.0) for row in first if row["arm"] != "native")
    assert all(row["margin"] in (None, 1.0) for row in first)
    assert {row["steps"] for row in summary["courses"]} == {0, 1, 2, 4}
    assert rows["ft-m", "all"]["facts"] == 6
    again = fact_lifecycle.run(small(model, facts, trained=("all", "edited", "others")), tmp_path / "run")
    assert again == summary


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": ""}, "model: say which model"),
        ({"arms": ("grace",)}, "arms: there is no 'grace' here"),
        ({"trained": ("edited",)}, "trained must be all, and what else"),
        ({"parts": ()}, "parts must be at least one"),
        ({"wordings": (0, 2)}, "wordings must be numbers from 1 up"),
        ({"stream": "no/such/text.txt"}, "no/such/text.txt"),
        ({"stream": "sampled", "other_stream": "sampled"}, "stream and other_stream: both are 'sampled'"),
        ({"stream": "text.txt", "other_stream": "./text.txt"}, "stream and other_stream: both are 'text.txt'"),
        ({"other_stream": "no/such/text.txt"}, "no/such/text.txt"),
        ({"arms": ("ft-m:stops=3",)}, "arms: method 'ft-m' has no setting 'stops'"),
        ({"arms": ("injected:steps=3",)}, "injected has no settings; say how strong by --encounters"),
    ],
)
def test_bad_options_are_named(model: str, facts: Path, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fact_lifecycle.run(small(model, facts, **given), tmp_path / "run")


def test_other_texts_are_controls_beside_the_main_one(model: str, facts: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The sun is yellow and the moon is white.\n" * 40)
    for stream, other in (("fictional", str(text)), (str(text), "sampled")):
        config = small(model, facts, arms=("ft-m",), count=3, stream=stream, other_stream=other)
        out = tmp_path / writing.name_of(stream)
        summary = fact_lifecycle.run(config, out)
        rows = {row["stream"]: row for row in summary["half_life"] if row["arm"] == "ft-m"}
        assert list(rows) == [stream, other]  # the main text first
        assert all(row["weights"] == "all" for row in rows.values())
        courses = {
            one: [row["retention"] for row in summary["courses"] if (row["arm"], row["stream"]) == ("ft-m", one)]
            for one in rows
        }
        assert courses[stream][0] == pytest.approx(courses[other][0])  # the edit is the same,
        assert courses[stream][1:] != courses[other][1:]  # what is read afterwards is not
        assert (out / "half-life" / "sampled.json").exists() == ("sampled" in (stream, other))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="empty.txt"):
        fact_lifecycle.run(small(model, facts, other_stream=str(tmp_path / "empty.txt")), tmp_path / "none")


def test_a_look_is_what_asking_one_thing_at_a_time_gives(model: str, facts: Path, tmp_path: Path) -> None:
    work = Lifecycle(small(model, facts), tmp_path / "run", "", None)
    network, tokenizer = work.fresh(), work.tokenizer
    asked = [*work.edited, replace(work.edited[0], wrong=())]
    longest = max(len(tokenizer(" " + one.fact.object, add_special_tokens=False)["input_ids"]) for one in asked)
    for row, one in zip(look(network, tokenizer, asked), asked, strict=True):
        likely = [
            np.array(evidence_on(network, tokenizer, [Query(one.prompt, text)], None, None)[0].logprobs)
            for text in (one.fact.object, *one.wrong)
        ]
        assert row["logp"] == pytest.approx(likely[0].mean(), abs=1e-4)
        wrong = [math.exp(of.sum()) for of in likely[1:]]
        margin = likely[0].sum() - math.log(np.mean(wrong)) if wrong else 0.0
        assert row["margin"] == pytest.approx(margin, abs=1e-4)
        (text,) = write(network, tokenizer, [one.prompt], Room(longest + 2))
        assert row["written"] == is_answer(text, (one.fact.object, *one.fact.aliases))


def test_an_arm_is_looked_at_once_before_it_goes_on(
    model: str, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ways of going on there are: the first point of each is the same model."""
    steps: list[tuple[str, int]] = []
    plain = HalfLife._look

    def watched(self: HalfLife, model: Any, step: int, arm: str) -> Any:
        steps.append((arm, step))
        return plain(self, model, step, arm)

    monkeypatch.setattr(HalfLife, "_look", watched)
    config = small(model, facts, arms=("ft-m",), count=3, steps=1, trained=("all", "edited"), other_stream="sampled")
    fact_lifecycle.run(config, tmp_path / "run")
    assert steps.count(("ft-m", 0)) == steps.count(("twin", 0)) == 1
    assert steps.count(("ft-m", 1)) == steps.count(("twin", 1)) == 3


def test_the_strength_of_an_edit_is_a_setting_of_its_arm(model: str, facts: Path, tmp_path: Path) -> None:
    name, settings = editing("ft-m:steps=3:learning_rate=0.01")
    assert (name, settings.steps, settings.learning_rate) == ("ft-m", 3, 0.01)
    assert isinstance(settings.steps, int)
    assert editing("lora") == ("lora", method.load("lora").Config())
    work = Lifecycle(small(model, facts, arms=("ft-m", "ft-m:steps=1", "ft-m:steps=25")), tmp_path / "run", "", None)
    part = HalfLife(work)

    def gained(arm: str) -> float:
        twin, now = (look(part.entered(one), work.tokenizer, work.edited) for one in ("twin", arm))
        return float(np.mean([b["logp"] - a["logp"] for a, b in zip(twin, now, strict=True)]))

    assert 0 < gained("ft-m:steps=1") < gained("ft-m") == gained("ft-m:steps=25")  # 25 is its default


def test_of_an_edit_that_was_undone_nothing_is_left(model: str, facts: Path, tmp_path: Path) -> None:
    """On a network, not on made-up arrays: log-probabilities are those of the twin to the last bit."""
    work = Lifecycle(small(model, facts, arms=("ft-m", "lora")), tmp_path / "run", "", None)
    part = HalfLife(work)
    network = work.fresh()
    twin = look(network, work.tokenizer, work.edited)
    for arm in ("ft-m", "lora"):
        with deltas.active(network, part._delta(arm)):
            edited = look(network, work.tokenizer, work.edited)
        undone = look(network, work.tokenizer, work.edited)
        assert undone == twin

        def points(*looks: list[Any]) -> np.ndarray:
            return np.array([[row["logp"] for row in rows] for rows in looks])

        kept = numbers.retention(points(edited, undone), points(twin, twin))
        assert np.isfinite(kept).any()
        assert (kept[0][np.isfinite(kept[0])] == 1).all()
        assert (kept[1][np.isfinite(kept[1])] == 0).all()


def test_an_arm_that_equals_its_twin_is_said_to_be_undefined(model: str, facts: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    config = small(model, facts, arms=("injected",), encounters=(1,), injection_rate=1e-12, count=4)
    summary = fact_lifecycle.run(config, tmp_path / "run", console=Console(file=said, width=300))
    (row,) = (row for row in summary["half_life"] if row["arm"] == "injected 1")
    assert (row["facts"], row["left_out"], row["half"], row["censored"]) == (4, 4, None, None)
    assert all(one["retention"] is None for one in summary["courses"] if one["arm"] == "injected 1")
    assert "injected 1: none of its facts became over 0.1 nats a token likelier than in the twin" in said.getvalue()
    assert "its retention is undefined" in said.getvalue()


def test_a_run_of_knowledge_extraction_is_edited_and_probed(tmp_path: Path) -> None:
    pools = Pools(birth_years=2, birth_cities=3, universities=3, majors=3, companies=3)
    made = smallest(pretrain_steps=3, finetune_batch=8, people=24, variants=("single",), pools=pools)
    made = replace(made, finetune=replace(made.finetune, recipe=replace(made.finetune.recipe, steps=2)))
    knowledge_extraction.run(made, tmp_path / "extraction", console=Console(quiet=True))
    more: dict[str, Any] = {"parts": ("name",), "name_edits": 3, "probe_steps": 3, "methods": ("ft-m",)}
    config = fact_lifecycle.Config(run=tmp_path / "extraction", **more)
    summary = fact_lifecycle.run(config, tmp_path / "run")
    assert (summary["relation"], summary["kinds"]) == ("birth_city", 3)
    assert summary["name_edits"][0]["edits"] == 3
    assert {row["place"] for row in summary["probes"]} == set(PLACES)
    assert not (tmp_path / "run" / "name" / "network").exists()  # nothing was trained here
    with pytest.raises(UserError, match="run: .*facts.* is no run of knowledge-extraction"):
        fact_lifecycle.run(fact_lifecycle.Config(run=tmp_path / "facts", **more), tmp_path / "other")


def test_a_model_and_its_own_facts_are_edited_and_probed(model: str, facts: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"of_model": True, "name_edits": 1, "probe_steps": 3, "methods": ("ft-m", "memit")}
    config = small(model, facts, parts=("name",), attributes=("colour",), **more)
    summary = fact_lifecycle.run(config, tmp_path / "run")
    assert (summary["relation"], summary["kinds"]) == ("colour", 3)
    assert [row["edits"] + row["failed"] for row in summary["name_edits"]] == [1, 1]
    assert {row["layer"] for row in summary["name"]} == {0, 1}
    with pytest.raises(UserError, match="name_edits: 12 subjects have a colour, of 3 kinds"):
        fact_lifecycle.run(replace(config, name_edits=4), tmp_path / "other")


def test_edits_that_were_undone_are_read_as_the_old_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network: every edit is put on and taken off again before it is read."""
    plain, moved = deltas.active, []

    @contextlib.contextmanager
    def undone(network: Any, delta: Any) -> Iterator[None]:
        before = [weight.clone() for weight in network.parameters()]
        with plain(network, delta):
            moved.append(any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)))
        yield

    monkeypatch.setattr(reach.deltas, "active", undone)
    config = fact_lifecycle.Config(
        parts=("name",),
        people=40,
        network="2x32",
        network_steps=3,
        values=3,
        name_edits=4,
        probe_steps=5,
        methods=("ft-m", "lora"),
    )
    summary = fact_lifecycle.run(config, tmp_path / "run")
    assert moved
    assert all(moved)
    assert sum(row["subjects"] for row in summary["name"])
    for row in summary["name"]:
        assert (row["new"], row["old"]) == ((0.0, 1.0) if row["subjects"] else (None, None))
        assert row["beside"] in (None, 1.0)


def test_an_edit_is_read_layer_by_layer(tmp_path: Path) -> None:
    config = fact_lifecycle.Config(
        parts=("name",),
        people=40,
        network="2x32",
        network_steps=3,
        values=3,
        name_edits=4,
        probe_steps=5,
        methods=("ft-m", "lora"),
    )
    summary = fact_lifecycle.run(config, tmp_path / "run")
    assert summary["kinds"] >= 2
    rows = summary["name"]
    assert {row["layer"] for row in rows} == {0, 1}
    assert len({row["place"] for row in rows}) == 5
    for row in rows:
        if row["subjects"]:
            assert row["new"] + row["old"] + row["neither"] == pytest.approx(1)
    # FT-M changes the upper layer alone: below it nothing may have moved, bit for bit
    by = {row["method"]: row for row in summary["name_edits"]}
    assert by["ft-m"]["same_below"] is True
    assert by["lora"]["same_below"] is None  # it changes every layer: nothing lies below
    for row in rows:  # the guard, computed by hand
        (probe,) = (one for one in summary["probes"] if (one["place"], one["layer"]) == (row["place"], row["layer"]))
        assert row["readable"] == (probe["accuracy_low"] > probe["majority"])
        assert probe["accuracy_low"] <= probe["accuracy"] <= probe["accuracy_high"]
    below = [row for row in rows if row["method"] == "ft-m" and row["layer"] == 0]
    assert all(row["old"] in (None, 1.0) and row["beside"] in (None, 1.0) for row in below)


def test_an_edit_that_was_undone_is_read_as_the_old_object() -> None:
    query = Query("The home of Zorban is", "Arlo", subject="Zorban")
    reads = [Read(Edit(query, "Besk"), "Zorban lives in", old, (old + 1) % 3, (old + 2) % 3) for old in (0, 1, 2, 0)]
    rng = np.random.default_rng(0)
    was = rng.integers(3, size=(5, 2, 4, 2))
    names = ["a", "b", "c", "d"]
    for row in readings("memit", was, was, reads, reads, range(4), names, 0):
        assert row["new"] in (None, 0.0)
        assert row["old"] in (None, 1.0)
        assert row["beside"] in (None, 1.0)
    moved = was.copy()
    moved[..., 0] = [read.new for read in reads]
    for row in readings("memit", was, moved, reads, reads, range(4), names, 0):
        counted = sum(was[_PLACES.index(row["place"]), row["layer"], i, 0] == reads[i].old for i in range(4))
        assert row["subjects"] == counted
        assert row["new"] in (None, 1.0)


def test_wordings_judged_are_never_taught(model: str, facts: Path, tmp_path: Path) -> None:
    from engramlab.experiments.fact_lifecycle.reworded import Reworded
    from engramlab.experiments.fact_lifecycle.work import Lifecycle

    config = small(model, facts, parts=("wordings",), methods=("ft-m",), wordings=(1, 4, 16), unedited=3, count=4)
    part = Reworded(Lifecycle(config, tmp_path / "run", "", None))
    for name, kind, count in part.units:
        edits, notes = part.taught(kind, count)
        assert not notes
        for of, case in zip(edits, part.cases, strict=True):
            judged = {judge.prompt for judge in case.edits[0].judges}
            assert len(judged) > 3
            prompts = [prompt for edit in of for prompt in (edit.query.prompt, *edit.wordings)]
            assert not judged & set(prompts), (name, kind)
            assert len(of[0].wordings) == count - 1
            assert of[0].target == case.edits[0].target
            assert len(set(prompts)) == (1 if kind == "copies" else len(prompts))
            assert len(of) == (4 if kind == "with unedited facts" else 1)
    once, _ = part.taught("wordings", 1)  # the edit as it would be without the option
    assert once == [[replace(case.edits[0], judges=(), wordings=())] for case in part.cases]
    summary = fact_lifecycle.run(config, tmp_path / "whole")
    assert {row["kind"] for row in summary["wordings"]} == {
        "wordings",
        "copies",
        "another relation",
        "with unedited facts",
    }
    assert all(row["generality_low"] <= row["generality"] <= row["generality_high"] for row in summary["wordings"])
    for protocol in ("generated", "teacher_forced"):  # the model before any edit, whatever was made of it afterwards
        before = {row["generality_unedited"] for row in summary["wordings"] if row["protocol"] == protocol}
        assert len(before) == 1
        assert 0 <= min(before) < 1
