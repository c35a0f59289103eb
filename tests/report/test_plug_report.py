"""The page and the terminal table of the plug-in memory, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report


def row(network: str, when: str, group: str, right: float, hit: float | None = None) -> dict[str, Any]:
    found = {} if hit is None else {"hit": hit, "hit_low": hit - 0.1, "hit_high": hit + 0.1, "hit_1": hit / 2}
    about = {"network": network, "when": when, "group": group, "attribute": "mean", "questions": 60, "chance": 0.05}
    return {**about, "exact_match": right, "exact_match_low": right - 0.02, "exact_match_high": right + 0.02, **found}


def write_run(path: Path) -> None:
    rows = [row("memory", "as trained", "test", 0.8, 0.9), row("memory", "added", "unseen", 0.7, 0.85)]
    rows += [row("memory", "emptied", "test", 0.05), row("bare", "as trained", "test", 0.06)]
    ends = {"new_low": 0.4, "new_high": 0.8, "same_low": 0.97, "same_high": 1.0}
    changes = [
        {"change": "documents exchanged", "documents": 20, "new": 0.6, "old": 0.1, "same": 0.99, "own": 0.9, **ends}
        | {"right_before": 0.8, "examples": [{"before": "Ada was born <b>here", "after": "Ada was born there"}]},
        {"change": "documents added", "documents": 60, "same": 0.98, "same_low": 0.96, "same_high": 0.99},
    ]
    training = [{"dataset": "memory", "stage": "training", "steps": 4, "loss": 0.1, "seconds": 9.0}]
    about = {"experiment": "plug-in-memory", "seed": 0, "seconds": 11.0, "variant": "single", "objective": "masked"}
    numbers = {"top": 5, "documents": 240, "beta": [[1.5, 2.0]]}
    found = {"rows": rows, "changes": changes, "training": training}
    write_json(path / "summary.json", {**about, **numbers, **found})
    write_json(path / "config.json", {"experiment": "plug-in-memory", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "with documents 80.0" in page
    assert "without a memory 6.0 % (the memory gains)" in page or "(the memory gains)" in page
    assert "new value named 60.0" in page
    assert "&lt;b&gt;here" in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "memory emptied" in said
