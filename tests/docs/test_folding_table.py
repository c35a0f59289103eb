"""The table of facts folded in is drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_folding_report import write_run
from tests.support.synthetic import write_json


def test_a_line_an_arm_and_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import folding_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert folding_tables.folding() == folding_tables.ABSENT
    write_run(tmp_path / "folding-worlds")
    config = {
        "command": "engramlab run knowledge-folding",
        "commit": "0123abc",
        "config": {"data": "worlds", "seed": 7},
    }
    write_json(tmp_path / "folding-worlds" / "config.json", config)
    lines = folding_tables.folding().splitlines()
    (line,) = [line for line in lines if line.startswith("| worlds | 7 | multi-task | facts |")]
    assert "| 80.0 [75.0, 85.0] | 80.0 [75.0, 85.0] | 50.0 | 26.0 |" in line
    assert sum(line.startswith("| worlds") for line in lines) == 5
    assert len({line.count("|") for line in lines[:7]}) == 1
