"""The tables of retrieval tokens are drawn from whatever runs are kept, and from none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.report.test_retrieval_report import write_run


def test_a_line_a_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "results"))
    import retrieval_tables

    monkeypatch.setattr(sys.modules["kept"], "HERE", tmp_path)
    assert retrieval_tables.tokens() == retrieval_tables.without() == retrieval_tables.ABSENT
    write_run(tmp_path / "retrieval-tokens-small")
    lines = retrieval_tables.tokens().splitlines()
    (line,) = [line for line in lines if "virtual tokens, 50" in line]
    assert (
        line
        == "| <m> | countries | 0 | virtual tokens, 50 | 40 | 60.0 [50.0, 70.0] | 60.0 [50.0, 70.0] | +40.0 [+35.0, +45.0] |"
    )
    assert len({line.count("|") for line in lines[:3]}) == 1
    assert "| <m> | countries | 0 | virtual tokens | 2.5000 | 0, exactly |" in retrieval_tables.without()
