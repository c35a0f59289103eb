"""Page and terminal tables of factual decoding, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report
from engramlab.report.experiments import factual_decoding
from engramlab.report.page import read_runs


def measured(name: str, value: float, more: float = 0.0) -> dict[str, float]:
    ends = {f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return {
        name: value,
        **ends,
        f"{name}_more": more,
        f"{name}_more_low": more - 0.05,
        f"{name}_more_high": more + 0.05,
    }


def choice(way: str, mc1: float, more: float = 0.0, **given: Any) -> dict[str, Any]:
    numbers = {k: v for name in ("mc1", "mc2", "mc3") for k, v in measured(name, mc1, more).items()}
    layers = [] if way == "greedy" else [15, 17]
    row = {"dataset": "facts", "way": way, "questions": 30, "chosen": way == "high", "layers": layers}
    return {**row, **numbers, **measured("written", 0.5), "kept": 0.5, "kept_low": 0.4, "kept_high": 0.6, **given}


def passage(kind: str, way: str, alpha: float | None, follows: float) -> dict[str, Any]:
    shares = {k: v for name in ("follows", "own", "right") for k, v in measured(name, follows).items()}
    return {"kind": kind, "way": way, "alpha": alpha, "facts": 24, "known": 10, **shares, "kept": None}


def write_decoding(path: Path) -> None:
    rows = [choice("greedy", 0.6), choice("static", 0.4, -0.2), choice("high", 0.3, -0.3), choice("low", 0.5)]
    rows += [choice("high", 0.7, 0.1, dataset="truthfulqa")]
    penalty = {"dataset": "facts", "way": "greedy, penalty", "questions": 30, "chosen": False, "layers": []}
    spans = [
        {"kind": kind, "norm": norm, "sentences": 20, "layer": layer, **measured("apart", 0.5 - layer / 50)}
        | {"dies": 0.8, "dies_low": 0.7, "dies_high": 0.9}
        for kind in ("answer", "function")
        for norm in (False, True)
        for layer in (0, 10, 20)
    ]
    ways = (("plain", None, 0.5), ("cad", 0.5, 0.6), ("cad", 1.0, 0.8), ("micd", 1.0, 0.7), ("micd", None, 0.65))
    speed = {"seconds": 1.0, "seconds_times_greedy": 1.25}
    summary = {
        "experiment": "factual-decoding",
        "seed": 0,
        "seconds": 3.0,
        "model": "<m>",
        "rows": [*rows, {**penalty, **measured("written", 0.4)}],
        "chosen": [{"dataset": "facts", "bucket": "high", "static": "static 15", "validation": 30}],
        "left_out": 0,
        "spans": spans,
        "passages": [passage(kind, *way) for kind in ("true", "counterfactual") for way in ways],
        "files": [{"file": "cad", "way": "cad", "alpha": 1.0, "questions": 3, **measured("right", 0.3)}],
        "speed": [{"way": way, "batch": 1, "bound": 2.7, **speed} for way in ("greedy", "dola, high")],
    }
    write_json(path / "summary.json", summary)
    write_json(path / "config.json", {"experiment": "factual-decoding", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_decoding(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "facts: MC1 60.0" in page
    assert "by DoLa with high layers (less)" in page
    assert "a counterfactual passage is followed by plain 50.0" in page
    assert "static, layer 15" in page
    assert "25.6 / 40.6 / 19.2" in page
    assert "arXiv 2309.03883" in page
    assert "dies away early" in page


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    write_decoding(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "summary.json").read_text())
    write_json(tmp_path / "run" / "summary.json", document | {"passages": [], "spans": [], "files": [], "speed": []})
    (run,) = read_runs([tmp_path / "run"])
    drawn = {section.title: bool(section.blocks) for section in factual_decoding.sections([run])}
    assert drawn.pop("DoLa: answers to choose from")
    assert not any(drawn.values())
    assert "Questions with passages of files" not in drawn
    assert "passage" not in factual_decoding.headline([run])


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_decoding(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "micd dynamic" in said
