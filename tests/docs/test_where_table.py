"""The table of where knowledge lives is drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_where_report import write_run


def test_a_line_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import where_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert where_tables.where() == sys.modules["kept"].ABSENT
    write_run(tmp_path / "where-tiny")
    lines = where_tables.where().splitlines()
    (line,) = [line for line in lines if "plug-in memory" in line]
    assert line.startswith("| 3x128 | plug-in memory | 10.0 | 0.50 [0.45, 0.55] | 0.00 [-0.05, 0.05] | 0.25 | 1,200 |")
    assert line.endswith("| 50.0 | 61 | 0.90 [0.85, 0.95] |")
    assert len({line.count("|") for line in lines[:7]}) == 1
