"""A minority helped or not, and masked models, on the page."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.synthetic import write_json, write_run

from engramlab.report.experiments.knowledge_extraction import sections
from engramlab.report.page import write_report
from engramlab.report.rows import people, read_runs

SCORES = {"single+permute1": 0.05, "single+permute1+CEL": 0.5, "single+permute1+TEXT": 0.04, "single+CEL=multi5": 0.2}
PEOPLE = {"train": "celebrities", "test": "minority", "celebrities": "celebrities"}


def with_celebrities(path: Path) -> Path:
    """A run whose +CEL rows say who the groups are, and have a third one."""
    summary = json.loads((write_run(path, SCORES) / "summary.json").read_text())
    more = [{**row, "group": "celebrities"} for row in summary["rows"] if row["group"] == "test"]
    rows = [row for row in [*summary["rows"], *more] if "+CEL" in row["dataset"] or row["group"] != "celebrities"]
    summary["rows"] = [row | {"people": PEOPLE[row["group"]]} if "+CEL" in row["dataset"] else row for row in rows]
    write_json(path / "summary.json", summary)
    return path


def tables(path: Path, title: str) -> list[list[str]]:
    [section] = [s for s in sections(read_runs([path])) if s.title == title]
    return [row for block in section.blocks for row in getattr(block, "rows", [])]


def test_who_helps_a_minority(tmp_path: Path) -> None:
    rows = tables(with_celebrities(tmp_path / "run"), "Who helps a minority")
    assert rows == [
        ["single+permute1", "finetune", "celebrities", "half of the celebrities", "5.0\u00a0%", "50.0\u00a0%", "10.0"],
        ["single", "finetune", "celebrities written as multi5", "half of the celebrities", "–", "20.0\u00a0%", "–"],
        ["single+permute1", "finetune", "unrelated text", "half of the same people", "5.0\u00a0%", "4.0\u00a0%", "0.8"],
    ]
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    for words in ("P_train (celebrities)", "P_test (minority)", "held-out celebrities", "86.8"):
        assert words in page
    assert people("test") == "P_test"


def test_runs_without_companions_have_no_such_section(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    assert "Who helps a minority" not in [s.title for s in sections(read_runs([path]))]


def test_a_masked_model_is_not_put_beside_the_causal_one_s_figures(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", {"multi5+permute": 0.4}, modes=("masked finetune",))
    [section] = [s for s in sections(read_runs([path])) if s.title == "Beside the paper"]
    assert [getattr(block, "text", "") for block in section.blocks] == [
        "In the paper masked models answer well about birth date and major and poorly elsewhere (arXiv 2309.14316v3)."
    ]
    page = write_report([path], tmp_path / "page.html").read_text()
    assert "multi5+permute (masked finetune)" in page
