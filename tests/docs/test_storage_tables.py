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


def test_capacity_is_averaged_over_runs_that_differ_in_their_seed(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"size": "2x8", "arm": "", "corpus": "bioS", "people": 250, "exposures": 100, "parameters": 1000}
    about |= {
        "read_in_training": 0.0,
        "bits_per_body_parameter": 1.0,
        "ratio": 0.5,
        "ratio_theorem": 0.5,
        "ratio_most": 2.0,
    }

    def load(name: str) -> Any:
        bits = float(name)
        row = {**about, "bits": bits * 1000, "share": bits / 2, "bits_per_parameter": bits}
        config = CONFIG | {"config": {"seed": int(10 * bits), "people": [250]}}
        return {"rows": [row], "seed": int(10 * bits)}, config

    monkeypatch.setattr(tables, "load", load)
    monkeypatch.setattr(tables, "HERE", _Everywhere())
    # Student's t with two degrees of freedom is 4.303: 0.5 -+ 4.303 x 0.1 / sqrt(3).
    said = tables.capacity("0.4", "0.5", "0.6")
    assert "| 2x8 | bioS | 250 | 100 | 1,000 | 500 | 25 % | 0.50 [0.25, 0.75] | 1.00 | 0.50 | 0.50 | 2.00 |" in said
    assert "At least; seed 4, 5, 6. Means over seeds; in brackets Student's 95 % interval." in said
    alone = tables.capacity("0.4")
    assert "| 400 | 20 % | 0.40 | 1.00 |" in alone
    assert "Means over seeds" not in alone
    assert "earlier rule" not in said
    del about["read_in_training"]
    assert "**Measured by an earlier rule**" in tables.capacity("0.4")


class _Everywhere:
    """A folder in which every file is."""

    def __truediv__(self, name: str) -> _Everywhere:
        return self

    def exists(self) -> bool:
        return True


def test_the_people_s_rows_beside_text_are_those_that_were_read(
    tables: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        row = {"dataset": name, "group": "test", "people": "minority", "attribute": "mean", "exact_match": 0.5}
        options = {"mode": "finetune", "people": 5, "celebrities": 7, "minority_share": 0.25, "pretrain": {"steps": 10}}
        return {"rows": [row], "seed": 0}, CONFIG | {
            "config": options | {"text_share": 0.5 if "half" in name else None}
        }

    monkeypatch.setattr(tables, "load", load)
    said = tables.asked("single+TEXT half", "single+TEXT", "single+CEL half")
    shares = {cells[1].strip(" `"): cells[3].strip() for line in said.splitlines()[2:5] if (cells := line.split("|"))}
    assert shares == {"single+TEXT half": "50 %", "single+TEXT": "25 %", "single+CEL half": "25 %"}
