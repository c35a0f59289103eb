"""Tables of storage runs that are made later: from summaries as runs write them, and a line where there is none."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = {"command": "engramlab sweep x", "commit": "0123", "config": {}}


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "results"))
    return importlib.import_module("storage_tables")


def kept(tables: ModuleType, monkeypatch: pytest.MonkeyPatch, summary: dict[str, Any]) -> None:
    monkeypatch.setattr(tables, "load", lambda name: (summary, CONFIG))


def test_what_is_not_there_is_said(tables: ModuleType) -> None:
    import kept

    assert kept.if_kept(tables.swept, "nowhere") == kept.ABSENT


def test_a_sweep_over_qa_r(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"dataset": "single", "over": f"qa-ratio={v}", "group": g, "attribute": a, "exact_match": v / 2 + s / 10, "seed": s}
        for v in (0.2, 0.8) for s in (0, 1) for g in ("train", "test") for a in ("major", "mean")
    ]  # fmt: skip
    kept(tables, monkeypatch, {"rows": rows, "cells": [{"seed": 0}, {"seed": 1}]})
    said = tables.swept("x")
    assert "| `single` | qa-ratio 0.2 | 15 % (10–20) | **15 % (10–20)** | 15 % |" in said
    assert "Seeds 0, 1." in said


def test_the_ranks_of_a_grid(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"dataset": "multi5", "group": "test", "attribute": "mean"}
    tried = [(0, 0, 0.9), (0, 0, 0.8), (8, 0, 0.1), (8, 128, 0.7)]
    grid = [{**about, "lora_rank": r, "embedding_rank": e, "exact_match": x} for r, e, x in tried]
    kept(tables, monkeypatch, {"grid": grid, "seed": 0})
    said = tables.ranks("x").splitlines()
    assert said[0] == "| rank of query and value | embedding 0 | embedding 128 | embedding full |"
    assert said[2:4] == ["| 8 | 10 % | 70 % | – |", "| full | – | – | 90 % |"]


def test_probes_beside_extraction(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"part": "single+CEL", "probe": p, "target": t, "attribute": a, "position": 0 if p == "P" else None, "control": False,
         "majority": 0.1, "accuracy": 0.4, "extraction": 0.3}
        for p in "QP" for t in ("first", "whole") for a in ("major", "employer")
    ]  # fmt: skip
    kept(tables, monkeypatch, {"rows": rows, "seed": 0})
    assert "| `single+CEL` | Q | 10 % | 40 % | 10 % | 40 % | 30 % |" in tables.probed("x")
