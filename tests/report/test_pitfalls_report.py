"""The page and the terminal tables of editing pitfalls, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.synthetic import write_json

from engramlab.base.terminal import Console
from engramlab.report import print_summary, write_report
from engramlab.report.experiments.editing_pitfalls import CONFLICT, ROUND, ROUND_PUBLISHED, published


def row(kind: str, method: str, names: Any, value: float, **more: Any) -> dict[str, Any]:
    ends = {f"{name}{end}": value + shift for name in names for end, shift in (("", 0), ("_low", -0.1), ("_high", 0.1))}
    return {"source": "world " + kind, "kind": kind, "method": method, "cases": 40, **ends, **more}


def write_run(path: Path) -> None:
    rows = [row("reverse", "<b>rome", CONFLICT, 0.5, implied=0.1, implied_low=0.0, implied_high=0.2, tied=None)]
    rows += [row("composite", "memit", CONFLICT, 0.6), row("coverage", "memit", ("explicit", "magnitude"), 0.9)]
    beside = {"fluency_before": 5.12, "fluency": 4.98, "fluency_low": 4.9, "fluency_high": 5.05}
    beside |= {"nats_before": 2.0, "nats": 3.0}
    rows += [row("round", "memit", ROUND, 0.7, **beside), row("round", "memit (any of)", ROUND, 0.3)]
    failed = [{"source": "world round", "method": "memit", "case": "1", "reason": "the loss became non-finite"}]
    about = {"experiment": "editing-pitfalls", "seed": 0, "seconds": 11.0, "model": "m"}
    write_json(path / "summary.json", {**about, "rows": rows, "failed": failed})
    write_json(path / "config.json", {"experiment": "editing-pitfalls", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "reverse: the second edit wins over the first in 50.0" in page
    assert "what it implies in 10.0" in page
    assert "by one edit to all of them 30.0" in page
    assert "&lt;b&gt;rome" in page
    assert "75.5 / 49.3 / 28.8 / 64.5" in page
    assert "arXiv 2310.02129" in page
    assert "became non-finite" in page
    assert "512 → 498 (490 to 505)" in page
    assert "7.39 → 20.1" in page


def test_a_page_of_a_run_that_measured_nothing_beside_has_no_table_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    old = [{name: v for name, v in row.items() if not name.startswith(("fluency", "nats"))} for row in summary["rows"]]
    write_json(path, {**summary, "rows": old})
    assert "Beside the answers" not in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_figures_of_the_paper_stand_beside_their_method() -> None:
    assert published("reverse", "rome", tuple(CONFLICT)) == "56.8 / 0.0 / 0.1 / –"
    assert published("round", "ft-m", ROUND_PUBLISHED) == "9.6 / 16.1 / 96.4 / –"
    assert published("round", "memit (any of)", ROUND_PUBLISHED) == "2.1 / 2.7 / 2.5 / 94.0"
    assert published("reverse", "lora", tuple(CONFLICT)) == "–"


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "any of" in said
    assert "512 → 498" in said
