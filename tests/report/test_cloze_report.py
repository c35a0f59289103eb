"""The page and the terminal table of cloze questions, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report


def row(when: str, translator: str, accuracy: float, **more: Any) -> dict[str, Any]:
    counts = {"questions": 40, "ties": 1, "chance": 0.2, "fallbacks": 0.1, "rows_read": 200}
    ends = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    positions = [0.2, 0.2, 0.2, 0.2, 0.2]
    return {
        "when": when,
        "score": "sum",
        "translator": translator,
        **counts,
        **ends,
        "agreement": 0.6,
        "positions": positions,
        **more,
    }


def write_run(path: Path) -> None:
    rows = [row("before", name, share) for name, share in (("<b>own", 0.6), ("bare", 0.3), ("ensemble", 0.5))]
    rows += [row("others", "rules", 0.2, agreement=None), row("consistency", "ensemble", 0.55, agreement=0.9)]
    training = [
        {"dataset": "questions", "stage": "before", "steps": None, "loss": None, "seconds": 2.0},
        {"dataset": "questions", "stage": "consistency", "steps": 4, "loss": 0.1, "seconds": 9.0},
    ]
    about = {"experiment": "cloze-questions", "seed": 0, "seconds": 11.0, "model": "m", "train_by": "sum"}
    write_json(path / "summary.json", {**about, "rows": rows, "training": training})
    write_json(path / "config.json", {"experiment": "cloze-questions", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "the question itself 30.0" in page
    assert "translating gains" in page
    assert "&lt;b&gt;own" in page
    assert "20 / 20 / 20 / 20 / 20" in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "ensemble" in said
