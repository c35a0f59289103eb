"""The tables of docs/estimation.md, from summaries made up here: whatever is kept is drawn, and nothing is no error."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.report.test_estimation_reports import write_audit

ROOT = Path(__file__).parents[2]
CONFIG = {"command": "engramlab audit", "commit": "abc", "versions": {}}
ESTIMATED = {
    "dataset": "home",
    "relation": "home",
    "way": "list",
    "shown": 0,
    "chance": 0.1,
    "control": None,
    "place": None,
}
SHARES = {"accuracy": 0.5, "low": 0.4, "high": 0.6}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    kept, made = importlib.import_module("kept"), importlib.import_module("estimation_tables")
    monkeypatch.setattr(kept, "HERE", tmp_path)
    monkeypatch.setattr(made, "HERE", tmp_path)
    return made


def test_without_results_every_table_says_so(tables: Any, tmp_path: Path) -> None:
    (tmp_path / "audit-countries-halfway").mkdir()
    for draw in (tables.classes, tables.ways, tables.lists, tables.controls, tables.popularity):
        assert draw() == tables.NOT_YET


def test_what_is_kept_is_drawn(tables: Any, tmp_path: Path) -> None:
    for name in ("audit-countries-one", "audit-popqa-one"):
        write_audit(tmp_path / name, beside=False)
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG))
    rows = [
        ESTIMATED | SHARES,
        ESTIMATED | SHARES | {"shown": 5},
        ESTIMATED | SHARES | {"shown": 5, "control": "unknown"},
    ]
    rows[2]["place"] = "end"
    rows.append(ESTIMATED | SHARES | {"way": "wording"})
    folder = tmp_path / "estimation-countries-one"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps({"model": "m/one.gguf", "rows": rows}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert "| one | home | 9 of 10 | 2 | 1 | 3 | 2 | 1 | 50 % [40, 60] | 50 % [40, 60] | 47 % |" in tables.classes()
    assert "| one | written, ranked | 9 | 4 | 3 | 1 | 17 % |" in tables.ways()
    assert "| one | 2 | 9 | 2 to 100 | 50 % [50, 50] |" in tables.popularity()
    assert "| one | home | 50 % [40, 60] | 50 % [40, 60] | 50 % | 10 % |" in tables.lists()
    assert "| one | home | 5 | 50 % [40, 60] | 50 % [40, 60] |" in tables.controls()
    assert "engramlab abc" in tables.lists()
