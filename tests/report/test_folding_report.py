"""The page and the terminal table of knowledge folding, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report


def row(arm: str, asked: str, accuracy: float, distractors: int = 0, hops: int = 0) -> dict[str, Any]:
    ends = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    about = {"arm": arm, "asked": asked, "distractors": distractors, "hops": hops, "questions": 40}
    return {**about, **ends, "labelled": 1.0, "recited": 0.5}


def write_run(path: Path, folded: float = 0.8) -> None:
    rows = [row("multi-task", "facts", folded, n, hops) for n in (0, 2) for hops in (0, 1)]
    rows += [row("multi-task", "random", 0.25), row("in-context", "facts", 0.6, 2), row("no-facts", "none", 0.25)]
    rows += [row("no-facts", "plain steps", 0.3)]
    training = [{"dataset": "worlds", "stage": "multi-task", "steps": 4, "loss": 0.1, "seconds": 9.0}]
    rates = [{"arm": "multi-task", "groups": ["0", "<b>1"], "rates": [[0.5, 0.7]]}]
    about = {"experiment": "knowledge-folding", "seed": 0, "seconds": 9.0, "model": "m", "data": "worlds"}
    write_json(path / "summary.json", {**about, "majority": 0.26, "rows": rows, "rates": rates, "training": training})
    write_json(path / "config.json", {"experiment": "knowledge-folding", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "facts of another world 25.0" in page
    assert "folding gains" in page
    assert "&lt;b&gt;1" in page
    assert "with 2 distractors 80.0" in page


def test_what_noise_hides_is_not_claimed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", folded=0.3)
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "within noise" in page
    assert "folding gains" not in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "plain steps" in said
