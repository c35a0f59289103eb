"""The table of named sources is drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_source_report import write_run
from tests.support.synthetic import write_json


def test_a_line_an_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import source_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert source_tables.sources() == source_tables.ABSENT
    write_run(tmp_path / "sources-tiny")
    about = {"command": "engramlab run source-attribution", "commit": "0123abc", "config": {"seed": 3}}
    write_json(tmp_path / "sources-tiny" / "config.json", about)
    lines = source_tables.sources().splitlines()
    (line,) = [line for line in lines if line.startswith("| repeat 3, seed 3 |")]
    assert "| 90.0 [85.0, 95.0] | 50.0 [45.0, 55.0] |" in line
    assert line.endswith("| 1.0 | 0.8 | 99.0 | 0.300 |")
    assert len({line.count("|") for line in lines[:4]}) == 1
