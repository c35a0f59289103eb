"""The whole experiment, small: pretraining, injection, measuring, resume, parts to compare, refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engramlab.acquisition.measuring import measure, observe, read_measurements
from engramlab.base.errors import UserError
from engramlab.core import models
from engramlab.core.training.loop import Recipe
from engramlab.experiments import knowledge_acquisition as acquisition
from engramlab.experiments.knowledge_acquisition import part
from engramlab.experiments.knowledge_acquisition.origins import mean_rate, reading_of, refuse_alike
from engramlab.experiments.knowledge_acquisition.setup import Run, groups_of
from engramlab.files import records
from engramlab.files.journal import read_rows

TINY = acquisition.PRESETS["tiny"]
SMALLEST = replace(
    TINY,
    schedule="duplicate",
    control=1,
    interval=(3,),
    times=2,
    after=5,
    stagger=1,
    batch=(2,),
    window=32,
    vocabulary=600,
    stream="stream.txt",
    inject="passages.jsonl",
    repeat=True,
    pretrain=Recipe(steps=4, batch=2, learning_rate=3e-3, schedule="linear"),
    reading=acquisition.CurveOptions(window=2, bootstrap=20),
    checkpoint_minutes=0.0,
)


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a stream and four short passages."""
    (tmp_path / "stream.txt").write_text("The sun is yellow and the moon is white.\n\n" * 40)
    towns = ("Lund", "Oslo", "Bern", "Riga")
    with (tmp_path / "passages.jsonl").open("w") as file:
        for i, town in enumerate(towns):
            queries = {
                "memorization": [{"prompt": f"Mr {i} was born in", "target": town}],
                "semantic": [{"prompt": f"The home of Mr {i} is", "target": town}],
                "compositional": [{"prompt": f"The father of Miss {i} comes from", "target": town}],
            }
            record = {
                "id": f"mr{i}",
                "text": f"Mr {i} was born in {town}. He has a daughter, Miss {i}.",
                "paraphrases": [f"{town} is where Mr {i} comes from."],
                "queries": queries,
            }
            file.write(json.dumps(record) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_depth_and_state_is_measured_and_a_second_run_does_nothing(here: Path) -> None:
    config = replace(SMALLEST, schedule="all", times=2)
    summary = acquisition.run(config, here / "run")
    assert {(r["group"], r["depth"]) for r in summary["rows"]} == {
        (g, d)
        for g in ("paraphrase", "duplicate", "once", "never")
        for d in ("memorization", "semantic", "compositional")
    }
    folder = here / "run/tiny/injection"
    steps, values = read_measurements(folder / "measured")
    assert steps.tolist() == list(range(3 * 2 + 5 + 1))
    about = json.loads((folder / "queries.json").read_text())
    assert values.shape == (len(steps), about["offsets"][-1])
    assert np.isfinite(values).all()
    # The kept numbers are the model's: state 0 is the pretrained checkpoint's.
    model, _tokenizer = models.load(str(here / "run/tiny/pretrain/state-4"))
    shared = Run(config, here / "run", console=_quiet())
    assert np.allclose(values[0], measure(model, shared.tokenised("tiny").asked), atol=1e-5)
    once = next(r for r in summary["rows"] if r["group"] == "once")
    assert len(once["by_encounter"]) == 1
    assert once["r_squared"] is not None
    assert (once["decay_constant"] is None) == bool(once["poor_fit"]) == (once["r_squared"] < 0.65)
    never = next(r for r in summary["rows"] if r["group"] == "never")
    assert "decay_constant" not in never
    assert math.isfinite(never["effectivity"])
    chance = {r["depth"]: r["effectivity"] for r in summary["rows"] if r["group"] == "never"}
    for row in summary["rows"]:
        if row["group"] != "never":
            assert row["effectivity_net"] == pytest.approx(row["effectivity"] - chance[row["depth"]])
            assert row["effectivity_net_low"] <= row["effectivity_net_high"]
    assert "effectivity_net" not in never
    assert records.read_record(here / "run/summary.json") == summary
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert acquisition.run(config, here / "run")["rows"] == summary["rows"]
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


def _quiet():
    import io

    from rich.console import Console

    return Console(file=io.StringIO())


@pytest.mark.parametrize("minutes", [0.0, 99.0], ids=["with checkpoints", "without"])
@pytest.mark.parametrize("moment", ["first state", "on the way", "last state", "before one file", "before the record"])
def test_a_killed_run_goes_on_to_the_same_numbers(
    here: Path, monkeypatch: pytest.MonkeyPatch, moment: str, minutes: float
) -> None:
    config = replace(SMALLEST, checkpoint_minutes=minutes)
    whole = acquisition.run(config, here / "whole")
    kills_at = {"first state": 1, "on the way": 7, "last state": 12}.get(moment, 99)
    calls = {"n": 0}

    def measured(*args):
        calls["n"] += 1
        if calls["n"] == kills_at:
            raise KeyboardInterrupt
        return observe(*args)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(part, "observe", measured)
        if moment == "before one file":
            patch.setattr(part.Measurements, "finish", killed)
        if moment == "before the record":
            patch.setattr(part.Part, "_optimizer_note", killed)
        with pytest.raises(KeyboardInterrupt):
            acquisition.run(config, here / "broken")
    again = acquisition.run(config, here / "broken")
    assert again["rows"] == whole["rows"]
    for name in ("whole", "broken"):
        for kind in ("measured", "written"):
            assert [p.name for p in (here / name / "tiny/injection" / kind).iterdir()] == ["measured.parquet"]
    for kind in ("measured", "written"):
        first, second = (read_measurements(here / name / "tiny/injection" / kind) for name in ("whole", "broken"))
        assert np.array_equal(first[1], second[1])
    losses = [
        [row["loss"] for row in read_rows(here / name / "tiny/injection/metrics.jsonl")] for name in ("whole", "broken")
    ]
    assert losses[0] == losses[1]


def test_moments_and_rate_go_on_where_pretraining_stopped(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretraining on and a run without any injection in its first steps are one and the same training."""
    config = replace(SMALLEST, stage=(0.5, 1.0), pretrain=replace(SMALLEST.pretrain, steps=8), schedule="once")
    acquisition.run(config, here / "run")
    pretraining = [row["loss"] for row in read_rows(here / "run/tiny/pretrain/metrics.jsonl")]
    shared = Run(config, here / "run", console=_quiet())
    shared.read_stream()
    job = part.Part(shared, shared.parts[0])
    origin = part.origin_of(str(here / "run/tiny/pretrain/state-4"))
    assert origin is not None
    assert origin.step == 4
    model, _ = models.load(str(here / "run/tiny/pretrain/state-4"))
    packed = job.packed()
    state = job.begin(model, job.recipe(origin), origin, packed)
    from engramlab.core.training.loop import train

    losses = [step.loss for step, _ in zip(train(state, packed), range(4), strict=False)]
    assert losses == pretraining[4:8]
    done = json.loads((here / "run/tiny-stage1/injection/done.json").read_text())
    assert "restored" in done["optimizer"]["moments"]


@pytest.mark.parametrize(("moments", "steps"), [("restored", 4), ("fresh", None), ("warmed", 2)])
def test_moments_at_step_0_are_those_asked_for(here: Path, moments: str, steps: int | None) -> None:
    """AdamW's own count of its updates says where its moments come from."""
    config = replace(SMALLEST, moments=(moments,), optimizer=acquisition.Optimizer(warmup=2))
    acquisition.run(config, here / "run")
    done = json.loads((here / "run/tiny/injection/done.json").read_text())
    said = {"restored": "after 4 updates", "fresh": "begun anew", "warmed": "estimated in 2 steps"}
    assert said[moments] in done["optimizer"]["moments"]
    shared = Run(config, here / "again", console=_quiet())
    shared.read_stream()
    job = part.Part(shared, shared.parts[0])
    source = str(here / "run/tiny/pretrain/state-4")
    origin, (model, _) = part.origin_of(source), models.load(source)
    state = job.begin(model, job.recipe(origin), origin, job.packed())
    counts = {int(values["step"]) for values in state.optimizer.state.values()}
    assert counts == (set() if steps is None else {steps})
    assert state.step == 0
    moved = not np.allclose(
        model.get_input_embeddings().weight.detach(), models.load(source)[0].get_input_embeddings().weight.detach()
    )
    assert moved == (moments == "warmed")


def test_moments_and_the_mean_rate_make_parts_to_compare(here: Path) -> None:
    config = replace(SMALLEST, stage=(0.5, 1.0), rate=("mean",), moments=("restored", "fresh"))
    names = [one.name for one in config.parts()]
    assert names == [f"tiny-stage{s}-{m}" for s in ("0.5", "1") for m in ("restored", "fresh")]
    rates = [config.pretrain.rate(step) for step in (2, 4)]
    assert mean_rate(config) == pytest.approx(sum(rates) / 2)
    assert rates[0] != rates[1]
    summary = acquisition.run(config, here / "run")
    for about in summary["parts"]:
        assert about["optimizer"]["first_rate"] == about["optimizer"]["last_rate"] == pytest.approx(sum(rates) / 2)


def test_without_momentum_a_maximum_is_looked_for_in_the_next_state_alone(here: Path) -> None:
    config = replace(SMALLEST, pretrain=replace(SMALLEST.pretrain, beta1=0.0))
    summary = acquisition.run(config, here / "run")
    assert summary["parts"][0]["maxima_within"] == 1
    assert "without momentum" in summary["choices"]["window of a maximum (t_w)"]
    plain = replace(config, pretrain=replace(config.pretrain, optimizer="sgd", beta1=0.9))
    assert reading_of(plain, plain.parts()[0]).window == 1
    assert reading_of(SMALLEST, SMALLEST.parts()[0]).window == 2


def test_each_query_after_its_own_injections_alone(here: Path) -> None:
    """`own` measures fewer queries a state, and gives the same numbers where it does."""
    config = replace(SMALLEST, schedule="all", stagger=1, interval=(5,), after=12)
    every = acquisition.run(config, here / "every")
    own = acquisition.run(replace(config, measure="own"), here / "own")
    values = read_measurements(here / "own/tiny/injection/measured")[1]
    full = read_measurements(here / "every/tiny/injection/measured")[1]
    known = ~np.isnan(values)
    assert 0 < known.sum() < known.size
    at = read_measurements(here / "own/tiny/injection/measured")[0]
    np.testing.assert_allclose(values[known], full[at][known], atol=1e-5)
    for a, b in zip(own["rows"], every["rows"], strict=True):
        for name in ("effectivity", "written", "written_before", "before", "after"):
            assert a[name] == pytest.approx(b[name], abs=1e-4), (name, a["group"])


def test_filters_leave_out_targets_that_name_nothing_or_are_long(here: Path) -> None:
    record = json.loads((here / "passages.jsonl").read_text().splitlines()[0])
    record["queries"]["compositional"].append({"prompt": "Miss 0 is", "target": "a girl of the town of Lund"})
    record["queries"]["semantic"].append({"prompt": "Mr 0 is", "target": "well known"})
    lines = (here / "passages.jsonl").read_text().splitlines()
    (here / "passages.jsonl").write_text("\n".join([json.dumps(record), *lines[1:]]))

    def targets(*filters: str) -> list[str]:
        config = replace(SMALLEST, filters=filters)
        return [q.target for q in Run(config, here / "x", console=_quiet()).material.records[0].queries]

    assert targets() == ["Lund", "Lund", "well known", "Lund", "a girl of the town of Lund"]
    assert targets("entity") == ["Lund", "Lund", "Lund", "a girl of the town of Lund"]
    assert targets("entity", "short") == ["Lund", "Lund", "Lund"]


def test_learning_rates_continue_or_hold() -> None:
    origin = Recipe(steps=10, batch=2, learning_rate=1.0, schedule="linear", final=0.0, warmup=2)
    on = replace(part.continued_recipe(origin, 4), steps=6, batch=8)
    assert [on.rate(s) for s in range(9)] == [origin.rate(4 + s) for s in range(9)]
    again = replace(part.continued_recipe(on, 3), steps=2)
    assert [again.rate(s) for s in range(2)] == [origin.rate(7 + s) for s in range(2)]
    held = replace(part.at_constant_rate(origin, origin.rate(4)), steps=6)
    assert {held.rate(s) for s in range(6)} == {origin.rate(4)}


def test_another_checkpoint_is_warmed_up_first_and_the_run_says_so(here: Path) -> None:
    acquisition.run(SMALLEST, here / "run")
    model, tokenizer = models.load(str(here / "run/tiny/pretrain/state-4"))
    model.save_pretrained(here / "plain")
    tokenizer.save_pretrained(here / "plain")
    config = replace(SMALLEST, model=("plain",), optimizer=acquisition.Optimizer(warmup=2))
    summary = acquisition.run(config, here / "other")
    note = summary["parts"][0]["optimizer"]["moments"]
    assert "estimated in 2 steps" in note
    assert (here / "other/plain/warmup/metrics.jsonl").exists()
    # A checkpoint of ours, given as a folder, brings its moments.
    ours = replace(SMALLEST, model=(str(here / "run/tiny/pretrain/state-4"),))
    summary = acquisition.run(ours, here / "ours")
    assert "restored" in summary["parts"][0]["optimizer"]["moments"]


def test_batches_at_equal_tokens_and_sparse_measuring(here: Path) -> None:
    config = replace(SMALLEST, batch=(1, 2), interval=(4,), after=12, measure="window", stagger=2)
    summary = acquisition.run(config, here / "run")
    parts = {p["dataset"]: p for p in summary["parts"]}
    assert {name: (p["batch"], p["interval"], p["steps"]) for name, p in parts.items()} == {
        "tiny-batch1": (1, 4, 20),
        "tiny-batch2": (2, 2, 10),
    }
    tokens = {row["dataset"]: row["tokens"] for row in summary["training"] if row["stage"] == "injection"}
    assert tokens["tiny-batch1"] == tokens["tiny-batch2"]
    assert all(row["horizon"] > 0 for row in summary["rows"] if row["group"] != "never")


def test_equal_tokens_between_injections_keep_the_density_of_passages(tmp_path: Path) -> None:
    config = replace(TINY, batch=(8, 32), interval=(80,), after=160)
    assert [(part.interval, part.after, part.stagger) for part in config.parts()] == [(80, 160, 40), (20, 40, 10)]
    material = SimpleNamespace(records=[SimpleNamespace(paraphrases=("",) * 9)] * 130, control=10)
    starts = {
        part.name: sorted({g.start for g in groups_of(config, part, material) if g.steps}) for part in config.parts()
    }
    assert max(starts["tiny-batch8"]) < 80
    assert max(starts["tiny-batch32"]) < 20


def test_a_loss_that_explodes_stops_the_run(here: Path) -> None:
    with pytest.raises(UserError, match=r"the loss (rose|became)"):
        acquisition.run(replace(SMALLEST, learning_rate=(30.0,), after=30), here / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window": 8}, "window is 8"),
        ({"stream": "nowhere.txt"}, "nowhere.txt"),
        ({"inject": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"repeat": False, "after": 5000}, "ends after .* tokens"),
        ({"batch": (1,), "schedule": "duplicate", "control": 0, "window": 24}, "do not fit into 1 rows"),
        ({"schedule": "paraphrase", "times": 4}, "paraphrases"),
        ({"after": 2}, "after: 2"),
        ({"stagger": 4}, "stagger: 4"),
        ({"batch": (2, 3)}, "no whole number"),
        ({"model": ("./nowhere",)}, "nowhere"),
        ({"model": ("huge",)}, "named size"),
        ({"vocabulary": 10}, "vocabulary"),
        ({"stage": (0.0,)}, "stage must be above 0"),
        ({"batch": (0,)}, "batch must be at least 1"),
        ({"reading": acquisition.CurveOptions(base=1.0)}, "reading.base must be above 1, not 1.0"),
        ({"passages": 4}, "has 4 and 1 of them are the control; choose at most 3"),
        ({"passages": 0}, "passages must be at least 1, not 0"),
        ({"moments": ("warmed",), "optimizer": acquisition.Optimizer(warmup=0)}, "moments: warmed needs steps"),
        ({"moments": ()}, "moments: name at least one"),
        ({"rate": ("mean", "mean")}, "rate: 'mean' is there twice"),
        ({"learning_rate": (1e-3, 1e-3)}, "learning_rate: 0.001 is there twice"),
        ({"learning_rate": (1e-3, 1.0000001e-3)}, "learning_rate: '0.001' is there twice"),
        (
            {"model": ("elsewhere",), "rate": ("mean",)},
            "rate: mean .* elsewhere does not say its own; give --learning-rate",
        ),
        (
            {"model": ("tiny", "elsewhere"), "rate": ("continue", "constant")},
            "rate: continue and constant are the same for elsewhere, .* give one of them, or --learning-rate",
        ),
        (
            {"model": ("elsewhere",), "moments": ("restored", "fresh", "warmed")},
            "moments: restored and warmed are the same for elsewhere, .* give one of them",
        ),
        (
            {
                "model": ("elsewhere",),
                "moments": ("restored", "fresh"),
                "optimizer": acquisition.Optimizer(warmup=0),
            },
            "moments: restored and fresh are the same for elsewhere",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(here: Path, change: dict, words: str) -> None:
    (here / "elsewhere").mkdir()  # a checkpoint without our record of its training
    with pytest.raises(UserError, match=words):
        acquisition.run(replace(SMALLEST, **change), here / "run")
    assert not (here / "run").exists()


def test_rates_and_moments_that_differ_for_a_checkpoint_are_compared(here: Path) -> None:
    (here / "elsewhere").mkdir()
    refuse_alike(replace(SMALLEST, rate=("continue", "constant"), moments=("restored", "warmed")))
    other = replace(SMALLEST, model=("elsewhere",))
    refuse_alike(replace(other, learning_rate=(1e-3, 1e-4)))
    refuse_alike(replace(other, moments=("restored", "fresh")))


def test_some_passages_of_a_file_with_its_control(here: Path) -> None:
    shared = Run(replace(SMALLEST, passages=2), here / "other", console=_quiet())
    assert [record.id for record in shared.material.records] == ["mr0", "mr1", "mr3"]
    assert [group.passages for group in shared.groups["tiny"]] == [(0, 1), (2,)]


def test_a_folder_of_another_schedule_is_refused(here: Path) -> None:
    acquisition.run(SMALLEST, here / "run")
    with pytest.raises(UserError, match="interval"):
        acquisition.run(replace(SMALLEST, interval=(2,)), here / "run")


def test_a_checkpoint_of_another_vocabulary_is_refused(here: Path) -> None:
    acquisition.run(SMALLEST, here / "run")
    folder = here / "run/tiny/pretrain/state-4"
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] -= 50
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="vocabulary"):
        acquisition.run(replace(SMALLEST, model=(str(folder),)), here / "other")
    assert not (here / "other").exists()


def test_presets_state_the_paper_s_schedule() -> None:
    """arXiv 2406.11813: ten injections, a hundred steps apart, then 1,500 steps."""
    paper = acquisition.PRESETS["paper"]
    assert (paper.interval, paper.times, paper.after, paper.schedule) == ((100,), 10, 1500, "all")
    assert (paper.batch, paper.window, paper.reading.window) == ((2048,), 2048, 50)
    assert (paper.reading.target, paper.reading.outliers, paper.reading.base) == ("mean", 1.5, 10)


def test_the_tiny_preset_fits(tmp_path: Path) -> None:
    """Every check that comes before the work passes, and its passages fit into a few rows a step."""
    from engramlab.experiments.knowledge_acquisition.config import check

    check(TINY)
    shared = Run(TINY, tmp_path / "run", console=_quiet())
    plan = next(iter(shared.plans.values()))
    assert max(len(plan.at(step)) for step in plan.steps) <= 8
    assert len({e.passage for e in plan.encounters}) == 120


@pytest.mark.parametrize("name", ["claims", "sizes", "stages"])
def test_presets_to_compare_fit(tmp_path: Path, name: str) -> None:
    config = acquisition.PRESETS[name]
    shared = Run(config, tmp_path / "run", console=_quiet())
    for about in shared.parts:
        plan = shared.plans[about.name]
        assert max(len(plan.at(step)) for step in plan.steps) <= about.batch
        assert about.after > config.reading.window
    if name != "claims":
        assert {mean_rate(config)} == {config.pretrain.rate(1200)} if name == "sizes" else mean_rate(config) > 0


def _part_rows(queries: list[list[float]]) -> list[dict]:
    """The rows of one group of hand-made curves, injected at states 0 and 5, with maxima in the two states behind."""
    from engramlab.acquisition.curves import Curves
    from engramlab.acquisition.schedule import Group
    from engramlab.experiments.knowledge_acquisition.summary import _part_rows as rows_of

    group = Group("duplicate", "duplicate", (0,), interval=5, times=2)
    about = {"group": "duplicate", "depth": "semantic", "start": 0, "injections": [0, 5]}
    values = np.array(queries)
    curves = Curves(
        np.arange(values.shape[1]),
        values,
        [about | {"passage": f"p{i}"} for i in range(len(values))],
        values.shape[1] - 1,
        (values > -2).astype(float),
    )
    config = replace(SMALLEST, interval=(5,), after=10)
    return rows_of(config, config.parts()[0], curves, [group], acquisition.CurveOptions(window=2, bootstrap=20))


def test_outliers_and_failed_encounters_of_effectivity_both_ways() -> None:
    """Nine queries that gain 1 and 2 nats, one whose first encounter fails, and one that is far out in the second."""
    usual = [-9.0, -8, -8.5, -9, -9, -9, -7, -8, -8, -8, -8, -8, -8, -8, -8, -8]
    failing, wild = list(usual), list(usual)
    failing[1:3] = [-9.5, -9.4]  # below the -9 before: it gains -0.4
    wild[6] = -1.0  # it gains 8
    # So that quartiles are apart, the usual ones differ a little.
    many = [[v + (0.6 * i / 8 if s in (1, 6) else 0) for s, v in enumerate(usual)] for i in range(9)]
    [row] = _part_rows([*many, failing, wild])
    first = [1 + 0.6 * i / 8 for i in range(9)]
    second = [2 + 0.6 * i / 8 for i in range(9)]
    # First encounter: quartiles 1.11 and 1.41, so that -0.4 lies out; second: 8 does. Its own others are kept.
    kept_first, kept_second = [*first, 1.0], [*second, 2.0]
    assert row["effectivity_outliers"] == 2
    assert row["effectivity"] == pytest.approx(np.mean([*kept_first, *kept_second]))
    assert row["effectivity_all"] == pytest.approx(np.mean([*kept_first, -0.4, *kept_second, 8.0]))
    assert row["failed"] == [1, 0]
    assert row["by_encounter"] == pytest.approx([np.mean(kept_first), np.mean(kept_second)])
    assert row["by_encounter_lifted"] == pytest.approx([np.mean(kept_first), np.mean(kept_second)])
    assert row["written_by_encounter"] == pytest.approx([0.0, 1 / 11])
    assert (row["written_before"], row["written"]) == (0.0, 0.0)


def test_failed_encounters_that_are_no_outliers_are_left_out_one_way_only() -> None:
    curve = [-9.0, -8, -8.5, -9, -9, -9, -7, -8, -8, -8, -8, -8, -8, -8, -8, -8]
    gains = [-0.5, -0.2, 0.4, 0.8]
    [row] = _part_rows([[-9 + gain if s in (1, 2) else v for s, v in enumerate(curve)] for gain in gains])
    assert row["failed"] == [2, 0]
    assert row["by_encounter"][0] == pytest.approx(np.mean(gains))
    assert row["by_encounter_lifted"][0] == pytest.approx(0.6)


def test_a_curve_that_is_no_line_has_no_decay_constant() -> None:
    rng = np.random.default_rng(1)
    line = [-9.0, -5, -5, -5, -5, -5, *(-4 - 0.5 * np.log10(np.maximum(np.arange(24), 1)))]
    noise = [-9.0, -5, -5, -5, -5, -5, -4, *(-6 + rng.normal(0, 1, 23))]
    [fine], [poor] = _part_rows([line] * 4), _part_rows([noise] * 4)
    assert (fine["poor_fit"], poor["poor_fit"]) == (0, 1)
    assert fine["decay_constant"] == pytest.approx(0.1, abs=0.005)
    assert poor["decay_constant"] is poor["threshold_steps"] is poor["decay_low"] is None
    assert poor["r_squared"] < 0.65
