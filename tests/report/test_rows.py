"""Reading run folders: whole ones, half-written ones and folders that hold no run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.synthetic import CONTRAST, write_json, write_run

from engramlab.base.errors import UserError
from engramlab.report.rows import in_step_order, label, number, read_jsonl, read_run, read_runs


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "demo"))
    assert (run.name, run.experiment, run.finished) == ("demo", "knowledge-extraction", True)
    assert {row["dataset"] for row in run.rows} == set(CONTRAST)
    assert {(row["dataset"], row["stage"]) for row in run.curves} >= {
        ("single", "pretrain"),
        ("single", "finetune"),
    }
    assert all(row["run"] == "demo" and row["label"] == row["dataset"] for row in [*run.rows, *run.curves])
    assert set(run.examples) == set(CONTRAST)
    assert run.examples["single"]["answers"][1]["correct"] is False
    assert run.notes == []


@pytest.mark.parametrize(
    ("data", "steps", "skipped"),
    [
        (b'{"step": 1}\n{"step": 2}\n', [1, 2], 0),
        (b'{"step": 1}\n{"step": 2', [1], 0),
        (b'{"step": 1}\n{"step": 2}', [1, 2], 0),
        (b'{"step": 1}\n{"step": 2, "name": "\xc3', [1], 0),
        (b'{"step": 1}\n{"st{"step": 3}\n\n[1]\n{"step": 4}\n', [1, 4], 2),
        (b"", [], 0),
    ],
)
def test_half_written_lines(tmp_path: Path, data: bytes, steps: list[int], skipped: int) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(data)
    rows, lines = read_jsonl(file)
    assert ([row["step"] for row in rows], lines) == (steps, skipped)


def test_steps_measured_twice_count_once() -> None:
    rows = [
        {"step": 2, "loss": 9},
        {"step": 1, "loss": 8},
        {"step": 2, "corpus": "qa"},
        {"step": 2, "loss": 7},
        {"loss": 1},
    ]
    assert in_step_order(rows) == [
        {"step": 1, "loss": 8},
        {"step": 2, "loss": 7},
        {"step": 2, "corpus": "qa"},
    ]


def test_numbers_and_labels() -> None:
    assert [number(value) for value in (1, 0.5, "1", None, True, float("nan"), float("inf"))] == [
        1.0,
        0.5,
    ] + [None] * 5
    assert (label("multi5", None), label("multi5", "bioS"), label("multi5", "bioR")) == (
        "multi5",
        "multi5",
        "bioR multi5",
    )


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent does not exist: expected a folder written by `engramlab run"):
        read_run(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is not a folder"):
        read_run(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no run: expected config\.json"):
        read_run(tmp_path / "empty")
    run = write_run(tmp_path / "runs" / "demo")
    with pytest.raises(UserError, match=r"runs holds no run: .* did you mean .*demo\?"):
        read_run(tmp_path / "runs")
    with pytest.raises(UserError, match="given twice"):
        read_runs([run, tmp_path / "runs" / "." / "demo"])
    with pytest.raises(UserError, match="no run folder given"):
        read_runs([])


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    (run / "summary.json").write_text('{"rows": [')
    with pytest.raises(UserError, match=r"summary\.json is not readable as JSON"):
        read_run(run)
    write_json(run / "summary.json", [1])
    with pytest.raises(UserError, match=r"summary\.json must hold a JSON object, not a list"):
        read_run(run)
    write_json(run / "summary.json", {"rows": [1]})
    with pytest.raises(UserError, match="'rows' must be a list of JSON objects"):
        read_run(run)


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a" / "demo"), write_run(tmp_path / "b" / "demo")
    assert [run.name for run in read_runs([first, second])] == [str(first), str(second)]
