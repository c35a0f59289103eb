"""The table of plug-in memories is drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_plug_report import write_run
from tests.support.synthetic import write_json


def test_a_line_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import plug_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert plug_tables.plug() == plug_tables.ABSENT
    write_run(tmp_path / "plug-tiny")
    config = {"command": "engramlab run plug-in-memory", "commit": "0123abc", "config": {"seed": 3}}
    write_json(tmp_path / "plug-tiny" / "config.json", config)
    lines = plug_tables.plug().splitlines()
    (line,) = [line for line in lines if line.startswith("| masked, seed 3 |")]
    assert "| 240 | 5.0 | 80.0 [78.0, 82.0] | 90.0 [80.0, 100.0] |" in line
    assert line.endswith("| 60.0 [40.0, 80.0] | 99.0 [97.0, 100.0] |")
    assert len({line.count("|") for line in lines[:3]}) == 1
