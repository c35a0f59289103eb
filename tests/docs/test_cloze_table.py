"""The table of questions asked as statements is drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_cloze_report import write_run
from tests.support.synthetic import write_json


def test_a_line_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import cloze_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert cloze_tables.cloze() == cloze_tables.ABSENT
    write_run(tmp_path / "cloze-book")
    config = {
        "command": "engramlab run cloze-questions",
        "commit": "0123abc",
        "config": {"questions": "data/open.jsonl"},
    }
    write_json(tmp_path / "cloze-book" / "config.json", config)
    lines = cloze_tables.cloze().splitlines()
    (line,) = [line for line in lines if line.startswith("| open |")]
    assert "| 40 | 20.0 | 30.0 [25.0, 35.0] | – |" in line
    assert line.endswith("| 55.0 [50.0, 60.0] | – | 60.0 → 90.0 |")
    assert len({line.count("|") for line in lines[:3]}) == 1
