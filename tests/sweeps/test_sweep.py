"""Sweeps: cells, retries, resume, parallel = serial, and what is made of the cells' rows."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramlab import cli
from engramlab.base.errors import UserError
from engramlab.corpora.variants import SIXTEEN
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.files import runs, writing
from engramlab.report.page import write_report
from engramlab.sweeps import work
from engramlab.sweeps.cells import Cell, SweepTask, cells, sweep
from engramlab.sweeps.executors import Processes, RayTasks, fair_threads
from engramlab.sweeps.summary import correlations_over_cells, means, points

TINY = extraction.PRESETS["tiny"]
OPTIONS = ["--people", "6", "--evaluations", "1", "--evaluated-people", "2"]
for _stage in ("pretrain", "finetune.recipe"):
    OPTIONS += [f"--{_stage}.steps", "5", f"--{_stage}.batch", "4"]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """A sweep in a process of its own, one that an interrupt ends: children of a background shell are born deaf to it."""
    command = [sys.executable, "-m", "engramlab", "sweep", "knowledge-extraction", "--out", str(out), *OPTIONS, *more]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored, not a handler
    try:
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    finally:
        signal.signal(signal.SIGINT, before)


class Scripted:
    """An executor whose tasks end at once: with the codes given for their folder, one a try, then 0."""

    def __init__(self, codes: dict[str, list[int]], places: int = 1) -> None:
        self.codes, self.places = codes, places
        self.started: list[str] = []
        self.running = 0

    def room(self) -> bool:
        return self.running < self.places

    def start(self, task: SweepTask, log: Path) -> SweepTask:
        self.running += 1
        assert self.running <= self.places
        self.started.append(task.folder.name)
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"Traceback\nengramlab: try {self.started.count(task.folder.name)} went wrong\n\n")
        return task

    def ended(self, handle: SweepTask) -> int:
        self.running -= 1
        code = self.codes.get(handle.folder.name, []).pop(0) if self.codes.get(handle.folder.name) else 0
        if not code:
            writing.write_json(handle.folder / "summary.json", {"rows": []})
        return code

    def stop(self) -> None:
        self.running = 0


def made(out: Path, *names: str, afterwards: bool = False) -> list[Cell]:
    tasks = {
        name: [SweepTask((), out / name), *([SweepTask((), out / f"{name}-then")] if afterwards else [])]
        for name in names
    }
    return [Cell(name, None, None, None, tuple(tasks[name])) for name in names]


def quiet() -> Any:
    from rich.console import Console

    return Console(quiet=True)


# which cells --------------------------------------------------------------------------------------------------------


def test_all_variants_and_three_seeds_are_48_cells(tmp_path: Path) -> None:
    found = cells(sweep("knowledge-extraction", TINY, variants=["all"], seeds=3), tmp_path, ["--people", "6"])
    assert len(found) == 48
    assert {(c.variant, c.seed) for c in found} == set(itertools.product(SIXTEEN, range(3)))
    assert len({c.folder for c in found}) == 48
    one = found[17]
    assert (one.config.seed, one.config.variants) == (one.seed, (one.variant,))
    words = " ".join(one.tasks[0].words)
    assert words == f"run knowledge-extraction --out {one.folder} --people 6 --seed {one.seed} --variants {one.variant}"


@pytest.mark.parametrize(
    ("experiment", "more", "words"),
    [
        ("knowledge-extraction", ["--variants", "multi5+permuet"], r"multi5\+permute"),
        ("knowledge-extraction", ["--variants", "single", "single"], "twice"),
        ("knowledge-extraction", ["--seeds", "0"], "seeds: must be at least 1"),
        ("knowledge-extraction", ["--processes", "0"], "processes must be at least 1"),
        ("knowledge-extraction", ["--preset", "tny"], "tiny"),
        ("knowledge-extraction", ["--evaluated-people", "0"], "evaluated_people"),
        ("knowledge-extraction", ["--over", "qa-ratio=0.2"], "two values or more"),
        ("knowledge-extraction", ["--over", "seed=1,2"], "have --seeds"),
        ("knowledge-extraction", ["--over", "qa-ratio=0.2,0.2"], "twice"),
        ("knowledge-extraction", ["--over", "qa-ratio=0.2,0.8", "--qa-ratio", "0.5"], "is given beside it"),
        ("knowledge-extraction", ["--over", "qa-ratoi=0.2,0.8"], "qa-ratoi"),
        ("knowledge-extraction", ["--probe-options", "--preset tiny"], "without --probe"),
        ("knowledge-extraction", ["--probe", "--probe-options", "--preset tiyn"], "did you mean 'tiny'"),
        ("token-overfitting", ["--variants", "single"], "no corpus variants"),
        ("knowledge-extractoin", [], "knowledge-extraction"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], experiment: str, more: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", experiment, "--out", str(tmp_path / "sweep"), *more])
    assert stop.value.code == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "sweep").exists()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'engramlab\[ray\]'"):
        RayTasks("local")


def test_help_and_pages_name_the_same_addresses_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray takes `local`, `auto` and host:port by itself; ray:// is its client's, which the extra does not install."""
    with pytest.raises(SystemExit):
        cli.main(["sweep", "knowledge-extraction", "--help"])
    said = " ".join(capsys.readouterr().out.split("--ray TEXT")[1].split("--gpus")[0].split())
    pages = (page.read_text() for page in (Path(__file__).parents[2] / "docs").rglob("*.md"))
    named = {re.sub(r":\d+$", ":PORT", where) for page in pages for where in re.findall(r"--ray ([^\s`]+)", page)}
    assert named - {"TEXT"} == {"auto", "HOST:PORT", "ray://HOST:PORT"}
    assert "`local`, `auto` or HOST:PORT" in said
    assert "ray://HOST:PORT" in said
    assert "pip install ray[client]" in said


def test_threads_are_shared_out_fairly(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, processes, each in (("12", 5, 2), ("12", 1, 12), ("2", 4, 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert fair_threads(processes) == each
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= fair_threads(1) <= (os.cpu_count() or 1)


# how they are run ---------------------------------------------------------------------------------------------------


def test_a_failing_cell_is_tried_again_after_the_others_and_the_rest_goes_on(tmp_path: Path) -> None:
    executor = Scripted({"b": [1], "c": [2, 2]})
    found = work.run(made(tmp_path, "a", "b", "c", "d"), executor, tmp_path / "logs", retries=1, console=quiet())
    assert executor.started == ["a", "b", "c", "d", "b", "c"]
    assert [(one.tries, one.error) for one in found] == [
        (1, ""),
        (2, ""),
        (2, "engramlab: try 2 went wrong"),
        (1, ""),
    ]
    # Again: only what is not finished.
    again = Scripted({})
    assert not any(
        one.error
        for one in work.run(made(tmp_path, "a", "b", "c", "d"), again, tmp_path / "logs", retries=0, console=quiet())
    )
    assert again.started == ["c"]


def test_a_cell_is_probed_after_its_run_and_alone_when_the_run_is_there(tmp_path: Path) -> None:
    executor = Scripted({"a-then": [1]}, places=2)
    chosen = made(tmp_path, "a", "b", afterwards=True)
    found = work.run(chosen, executor, tmp_path / "logs", retries=1, console=quiet())
    assert not any(one.error for one in found)
    assert sorted(executor.started) == ["a", "a-then", "a-then", "b", "b-then"]
    assert executor.started.index("a") < executor.started.index("a-then")


def test_an_interrupt_ends_the_tasks(tmp_path: Path) -> None:
    executor = Scripted({"a": [130]}, places=2)
    with pytest.raises(KeyboardInterrupt):
        work.run(made(tmp_path, "a", "b", "c"), executor, tmp_path / "logs", retries=5, console=quiet())
    assert executor.started == ["a", "b"]
    assert executor.running == 0


@pytest.mark.slow
def test_processes_end_with_whoever_started_them(tmp_path: Path) -> None:
    """Killed without a chance to clean up, a sweep leaves no process behind that holds a cell's folder."""
    sweeping = start(tmp_path / "sweep", "--variants", "single", "--pretrain.steps", "100000")
    folder = tmp_path / "sweep" / "single-seed0"
    deadline = time.monotonic() + 300
    while not list(folder.glob("*/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    sweeping.send_signal(signal.SIGKILL)
    sweeping.wait()
    place = runs.RunFolder(folder, "knowledge-extraction", _config(folder))
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            place.open()
            break
        except UserError:  # in use
            time.sleep(0.1)
    else:
        pytest.fail("the cell's process goes on although its sweep is dead")
    place.close()


def _config(folder: Path) -> Any:
    return writing.read_json(folder / "config.json")["config"]


# the whole command --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_resumed_parallel_and_serial_sweeps_have_equal_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    variants = ["--variants", "single", "multi2+permute"]
    broken = start(tmp_path / "serial", *variants)
    first = tmp_path / "serial" / "single-seed0"
    deadline = time.monotonic() + 300
    while not (first / "single" / "pretrain" / "done.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    broken.send_signal(signal.SIGINT)
    said = broken.communicate()[1]
    assert broken.returncode == 130
    assert "the same command goes on" in said
    command = ["sweep", "knowledge-extraction", *OPTIONS, *variants, "--out"]
    cli.main([*command, str(tmp_path / "serial")])
    stamp = (first / "summary.json").stat().st_mtime_ns
    cli.main([*command, str(tmp_path / "parallel"), "--processes", "2"])
    serial, parallel = (json.loads((tmp_path / n / "summary.json").read_text()) for n in ("serial", "parallel"))
    assert serial["rows"] == parallel["rows"]
    assert serial["means"] == parallel["means"]
    assert len(serial["rows"]) == 2 * 14
    assert {cell["state"] for cell in serial["cells"]} == {"done"}
    # A cell is an ordinary run, equal to one by hand.
    config = writing.read_json(first / "config.json")
    assert (config["experiment"], config["config"]["variants"]) == ("knowledge-extraction", ["single"])
    assert config["command"].startswith("engramlab run knowledge-extraction --out ")
    # Nothing is repeated, and another sweep is refused.
    capsys.readouterr()
    cli.main([*command, str(tmp_path / "serial")])
    assert "2 done before" in capsys.readouterr().err
    assert (first / "summary.json").stat().st_mtime_ns == stamp
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, str(tmp_path / "serial"), "--people", "7"])
    assert stop.value.code == 2
    assert "options.people: 6 there, 7 now" in capsys.readouterr().err
    page = write_report([tmp_path / "serial"], tmp_path / "page.html").read_text()
    assert "multi2+permute" in page
    assert "9.7" in page  # the paper's `single`, beside ours


def test_a_sweep_may_grow_and_nothing_else_about_it_may_change(tmp_path: Path) -> None:
    def opened(variants: list[str], seeds: int, **changes: Any) -> dict[str, Any]:
        made = sweep("knowledge-extraction", replace(TINY, **changes), variants=variants, seeds=seeds)
        place = runs.RunFolder(tmp_path / "sweep", "sweep", made, grows=("variants", "seeds"))
        place.open()
        place.close()
        return writing.read_json(tmp_path / "sweep" / "config.json")

    first = opened(["single"], 1)
    grown = opened(["multi2", "single"], 3)
    assert (grown["config"]["seeds"], grown["config"]["variants"]) == ([0, 1, 2], ["multi2", "single"])
    assert grown["created"] == first["created"]
    for variants, seeds, changes in (
        (["single"], 3, {}),
        (["multi2", "single"], 2, {}),
        (["multi2", "single"], 4, {"people": 7}),
    ):
        with pytest.raises(UserError, match="another config"):
            opened(variants, seeds, **changes)
    assert writing.read_json(tmp_path / "sweep" / "config.json") == grown


@pytest.mark.slow
def test_a_cell_that_fails_for_good_is_reported_and_its_sweep_can_be_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    command = ["sweep", "knowledge-extraction", *OPTIONS, "--variants", "single", "multi2", "--retries", "1"]
    blocked = out / "single-seed0" / "single"
    # A file where a folder of the cell must be: its run fails, however often, until the file is gone.
    cli_words = [*command, "--out", str(out)]
    made_cell = cells(sweep("knowledge-extraction", _parsed(), variants=["single"], seeds=1), out, [])[0]
    place = runs.RunFolder(
        out, "sweep", sweep("knowledge-extraction", _parsed(), variants=["single", "multi2"], seeds=1)
    )
    place.open()
    place.close()
    inside = runs.RunFolder(made_cell.folder, "knowledge-extraction", made_cell.config)
    inside.open()
    inside.close()
    blocked.touch()
    with pytest.raises(SystemExit) as stop:
        cli.main(cli_words)
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "single-seed0: failed, will be tried again" in said
    assert "1 of 2 cells failed (single-seed0" in said
    summary = json.loads((out / "summary.json").read_text())
    assert {c["cell"]: c["state"] for c in summary["cells"]} == {"single-seed0": "failed", "multi2-seed0": "done"}
    assert "single" in summary["cells"][0]["error"]
    assert {row["dataset"] for row in summary["means"]} == {"multi2"}
    assert "failed: single-seed0" in write_report([out], tmp_path / "page.html").read_text()
    blocked.unlink()
    cli.main(cli_words)
    assert {c["state"] for c in json.loads((out / "summary.json").read_text())["cells"]} == {"done"}


def _parsed() -> Any:
    from engramlab.cli._words import parse

    return parse(extraction.Config, "test", OPTIONS, default=TINY)


# what is made of the rows -------------------------------------------------------------------------------------------


def test_means_group_what_differs_in_measurements_only() -> None:
    rows = [
        {"dataset": d, "attribute": a, "questions": 6, "exact_match": x, "cell": f"{d}-{s}", "seed": s}
        for d, a, s, x in (("single", "major", 0, 0.25), ("single", "major", 1, 0.75), ("multi2", "major", 0, 0.5))
    ]
    first, second = means(rows)
    want = {"dataset": "single", "attribute": "major", "questions": 6, "seeds": 2, "exact_match": 0.5}
    assert first == {
        **want,
        "exact_match_low": 0.25,
        "exact_match_high": 0.75,
        "exact_match_sd": pytest.approx(math.sqrt(0.125)),
    }
    assert (second["dataset"], second["seeds"], second["exact_match_sd"]) == ("multi2", 1, None)


def test_the_correlation_has_one_point_a_dataset_and_attribute(tmp_path: Path) -> None:
    """Rows as hidden-state-probing writes them; seeds are averaged first."""
    probing = [
        {
            "cell": f"{d}-seed{s}",
            "seed": s,
            "dataset": d,
            "mode": "finetune",
            "target": "whole",
            "attribute": a,
            "accuracy": q + 0.01 * s,
            "extraction": e,
        }
        for d, a, q, e in (
            *(("single", "major", 0.1, 0.2), ("single", "university", 0.2, 0.1)),
            *(("multi5", "major", 0.5, 0.6), ("multi5", "university", 0.9, 0.8)),
        )
        for s in (0, 1)
    ]
    (row,) = correlations_over_cells(probing)
    assert (row["target"], row["points"]) == ("whole", 4)
    assert row["rho"] == pytest.approx(0.8)  # ranks 1 2 3 4 against 2 1 3 4
    assert (row["by_dataset"]["points"], row["by_dataset"]["rho"]) == (2, None)  # two points have no order to speak of
    third = [
        {**one, "dataset": "multi2", "accuracy": one["accuracy"] / 3} for one in probing if one["dataset"] == "multi5"
    ]
    (row,) = correlations_over_cells([*probing, *third])
    assert (row["points"], row["by_dataset"]["points"]) == (6, 3)
    assert row["by_dataset"]["rho"] == pytest.approx(np.corrcoef([1, 3, 2], [1, 2.5, 2.5])[0, 1])
    (row,) = correlations_over_cells(probing)
    lost = [{**probing[0], "extraction": None}]
    assert correlations_over_cells(lost) == []
    folder = tmp_path / "sweep"
    writing.write_json(folder / "config.json", {"experiment": "sweep", "config": {}})
    document = {
        "experiment": "sweep",
        "of": "knowledge-extraction",
        "means": [],
        "correlations": [row],
        "points": points(probing),
        "cells": [{"cell": "a", "state": "done", "error": ""}],
    }
    writing.write_json(folder / "summary.json", document)
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "Spearman&#39;s rho of whole value Q-probing and extraction 0.800" in page


def test_processes_are_held_to_their_number(tmp_path: Path) -> None:
    executor = Processes(2, threads=1)
    tasks = [SweepTask(("version",), tmp_path / str(i)) for i in range(2)]
    handles = [executor.start(task, tmp_path / "logs" / f"{i}.txt") for i, task in enumerate(tasks)]
    assert not executor.room()
    deadline = time.monotonic() + 300
    while any(executor.ended(handle) is None for handle in handles) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [handle.returncode for handle in handles] == [0, 0]
    assert executor.room()
    assert "engramlab" in (tmp_path / "logs" / "0.txt").read_text()


@pytest.mark.slow
def test_a_sweep_on_two_nodes_survives_one_that_is_killed(tmp_path: Path) -> None:
    """Ray's own cluster of several nodes on one machine; the cells of the node that goes are done again on the other."""
    pytest.importorskip("ray", reason="the ray extra is not installed")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    out = tmp_path / "sweep"
    more = ("--variants", "single", "multi2", "--seeds", "2", "--ray", cluster.address, "--retries", "5")
    try:
        process = start(out, *more, "--checkpoint-minutes", "0")
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if len([log for log in out.glob("logs/*") if work.last_line(log)]) >= 2:
                break  # both nodes are at a cell
            time.sleep(0.02)
        assert process.poll() is None
        cluster.remove_node(node, allow_graceful=False)
        _, said = process.communicate(timeout=280)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, said
    summary = json.loads((out / "summary.json").read_text())
    assert [cell["state"] for cell in summary["cells"]] == ["done"] * 4
    assert "will be tried again" in said
    cli.main(
        [
            "sweep",
            "knowledge-extraction",
            *OPTIONS,
            *more[:5],
            "--checkpoint-minutes",
            "0",
            "--out",
            str(tmp_path / "here"),
        ]
    )
    here = json.loads((tmp_path / "here" / "summary.json").read_text())
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in made["rows"]] for made in (summary, here)]
    assert rows[0] == rows[1]
