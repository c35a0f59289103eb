"""The page on where knowledge lives: its headline follows the intervals and names the controls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report
from engramlab.report.experiments import where_knowledge_lives as page
from engramlab.report.rows import read_run


def row(way: str, right: float, known_more: float = 0.0, source: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"way": way, "right_before": 0.1, "known_before": 0.8, "changed": 0.5}
    found |= {"right_questions": 40, "known_questions": 60}
    shares = (("right", right), ("right_more", right - 0.1), ("known", 0.8 + known_more), ("known_more", known_more))
    for name, value in shares:
        found |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    ends = [None if source is None else source + way for way in (0.0, -0.05, 0.05)]
    found |= dict(zip(("source", "source_low", "source_high"), ends, strict=True))
    found |= dict.fromkeys(page.COSTS, 0.25) | {"add_tokens": 1200.0, "question_tokens": 61.0}
    return found


def write_run(path: Path, *, right: float = 0.6, known_more: float = -0.3, left_out: tuple[str, ...] = ()) -> None:
    rows = [row("training", right, known_more), row("editing", 0.3), row("memory", 0.5, source=0.9)]
    rows += [row("virtual tokens", 0.9, source=1.0), row("prompt", 0.12, source=1.0)]
    summary = {
        "experiment": "where-knowledge-lives",
        "seed": 0,
        "seconds": 90.0,
        "model": "3x128",
        "data": "the population",
        "facts": 120,
        "subjects": 40,
        "asked_subjects": 20,
        "edit_method": "memit",
        "rows": [one for one in rows if one["way"] not in left_out],
        "left_out": list(left_out),
        "training": [{"dataset": "ways", "stage": "training", "steps": 9, "tokens": 900, "loss": 1.0, "seconds": 5.0}],
    }
    write_json(path / "summary.json", summary)
    about = {
        "experiment": "where-knowledge-lives",
        "config": {"seed": 0},
        "command": "engramlab run x",
        "commit": "0123abc",
    }
    write_json(path / "config.json", about)


@pytest.mark.parametrize(("right", "words"), [(0.6, "more than the 10.0 %"), (0.12, "within noise of the 10.0 %")])
def test_the_headline_follows_the_intervals(right: float, words: str, tmp_path: Path) -> None:
    write_run(tmp_path, right=right)
    said = page.headline([read_run(tmp_path)]).replace("\u00a0", " ").replace("−", "-")
    assert f"weights, by training {100 * right:.1f} % ({words}" in said
    assert "less of what was known before is answered under training by -30" in said


def test_nothing_forgotten(tmp_path: Path) -> None:
    write_run(tmp_path, known_more=-0.02)
    assert "no way answers less, beyond noise" in page.headline([read_run(tmp_path)])


def test_the_page_has_a_line_a_way(tmp_path: Path) -> None:
    write_run(tmp_path / "run", left_out=("memory",))
    text = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    for part in (
        "needs a network built with one",
        "arXiv 2305.11564",
        "arXiv 2405.19670",
        "retrieval, plain prompt",
        "1,200",
    ):
        assert part in text
    lines = page.lines("run", json.loads((tmp_path / "run" / "summary.json").read_text())["rows"], ["memory"])
    assert [line[-1] for line in lines][:2] == ["no", "no"]
    assert {len(line) for line in lines} == {1 + len(page.HEADS)}


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "virtual tokens" in said
