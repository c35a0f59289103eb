"""Tables of acquisition runs: what was measured by an earlier definition, and how sure a claim over several seeds is."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
CONFIG = {"command": "engramlab run x", "commit": "0123", "config": {}}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return importlib.import_module("acquisition_tables")


def test_runs_of_an_earlier_definition_are_told(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "**By an earlier definition**: outliers are not left out of effectivity" in tables.acquisition(
        "acquisition-tiny"
    )
    summary, config = tables.load("acquisition-tiny")
    new = summary | {"rows": [row | {"effectivity_all": row["effectivity"]} for row in summary["rows"]]}
    monkeypatch.setattr(tables, "load", lambda name: (new, config))
    assert "earlier definition" not in tables.acquisition("acquisition-tiny")


def test_the_table_of_popularity_tells_laws_of_a_poor_fit(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"depth": "semantic", "condition": "as it stands", "learnt": 0.5, "half": None}
    summary: dict[str, Any] = {"shares": [row], "part": "tiny", "steps": 10, "tokens": 20}
    monkeypatch.setattr(tables, "load", lambda name: (summary, CONFIG))
    assert "poor fit" not in tables.popularity("any")
    summary["poor"] = ["duplicate semantic", "paraphrase semantic"]
    assert tables.popularity("any").endswith("Laws of a poor fit: duplicate semantic, paraphrase semantic.")


def test_an_interval_over_seeds_has_the_spread_between_them_and_that_within(tables: ModuleType) -> None:
    alike = tables.over_runs([(0.1, 0.02)] * 3)
    assert alike.std() == pytest.approx(0.02 / math.sqrt(3), rel=0.05)
    assert alike.mean() == pytest.approx(0.1, abs=1e-3)
    exact = tables.over_runs([(0.0, 0.0), (0.1, 0.0), (0.2, 0.0)])
    assert exact.std() == pytest.approx(np.std([0.0, 0.1, 0.2]) / math.sqrt(3), rel=0.05)
    both = tables.over_runs([(0.0, 0.02), (0.1, 0.02), (0.2, 0.02)])
    assert both.std() == pytest.approx(math.hypot(alike.std(), exact.std()), rel=0.05)


def test_a_control_taken_off_both_is_off_by_as_much_in_either(tables: ModuleType) -> None:
    one, other = ({"bootstrap_stderr": 0.03, "decay_control_stderr": c} for c in (0.05, 0.01))
    assert tables.difference_error(one, other, True) == pytest.approx(math.sqrt(2 * 0.03**2 + 0.04**2))
    assert tables.difference_error(one, other, False) == pytest.approx(math.sqrt(2 * 0.03**2 + 0.05**2 + 0.01**2))
    plain: dict[str, Any] = {"bootstrap_stderr": 0.03}
    assert tables.difference_error(plain, plain, False) == pytest.approx(0.03 * math.sqrt(2))


def test_a_claim_that_three_seeds_disagree_about_is_within_noise(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        constants = {"duplicate": 0.3 + {"a": 0.2, "b": 0.0, "c": -0.1}[name], "paraphrase": 0.3}
        rows = [
            {"dataset": "tiny", "group": g, "depth": "semantic", "decay_constant": c, "bootstrap_stderr": 0.001}
            for g, c in constants.items()
        ]
        return {"rows": rows, "parts": [{"dataset": "tiny", "batch": 8}], "seed": 0}, CONFIG

    monkeypatch.setattr(tables, "load", load)
    assert "| 3 | within noise |" in tables.claims("a", "b", "c")
    assert "| 1 | came out |" in tables.claims("a")
