"""The page and the terminal table of time-sensitive editing, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.synthetic import write_json

from engramlab.base.terminal import Console
from engramlab.report import print_summary, write_report
from engramlab.report.experiments.time_sensitive_editing import SCORES


def row(arm: str, edits: int, hops: float, **more: Any) -> dict[str, Any]:
    values = {**dict.fromkeys(SCORES, 0.8), "multi_hop": hops}
    ends = {
        f"{name}{kind}{end}": value + shift
        for name, value in values.items()
        for kind in ("", "_forced")
        for end, shift in (("", 0), ("_low", -0.1), ("_high", 0.1))
    }
    about = {"source": "world", "arm": arm, "edits": edits, "window": None, "cases": 20, "parameters": 12345}
    return {**about, **ends, "seconds_per_edit": 0.5, "failed": 0, "left_out": 3, "fluency": 5.125, **more}


def write_run(path: Path) -> None:
    rows = [
        row("before", 0, 0.1, locality=None, locality_low=None, locality_high=None, seconds_per_edit=None),
        *(row("lora-both", edits, 0.6) for edits in (1, 10)),
        *(row("memit", edits, 0.15) for edits in (1, 10)),
        row("<b>rome", 10, 0.12),
        row("lora-both", 10, 0.3, window=[0, 3]),
        row("lora-both", 10, 0.5, window=[4, 7]),
    ]
    rows[0]["nats"] = 2.0
    rows[1] |= {"nats": 3.0, "nats_low": 2.9, "nats_high": 3.1}
    tasks = [{"source": "world", "arm": "memit", "edits": 10, "task": "piqa", "before": 0.6, "score": 0.45}]
    failed = [{"source": "world", "arm": "memit", "edits": 10, "case": "1", "reason": "the loss became non-finite"}]
    sources = [{"source": "world", "cases": 20, "contradictions": 2, "skipped": 0}]
    about = {"experiment": "time-sensitive-editing", "seed": 0, "seconds": 11.0, "model": "m"}
    write_json(path / "summary.json", {**about, "rows": rows, "failed": failed, "sources": sources, "tasks": tasks})
    write_json(path / "config.json", {"experiment": "time-sensitive-editing", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "world, 10 joint edits, multi-hop answers right (10.0" in page
    assert "MEMIT 15.0\N{NO-BREAK SPACE}% (within noise of it)" in page or "(within noise of it)" in page
    assert "the best of the tuned, LoRA, both, is more than the best located, MEMIT" in page
    assert "&lt;b&gt;rome" in page
    assert "LoRA, both, 4–7" in page
    assert "12,345" in page
    assert page.count(">512<") == 8
    assert page.count(">7.39<") == 1
    assert "20.1 (18.2 to 22.2)" in page
    assert "General ability" in page
    assert page.count("piqa") == page.count(">0.45<") == 1
    assert "arXiv 2406.04496" in page
    assert "became non-finite" in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "LoRA, both" in said
    assert "20.1" in said
    assert "piqa" in said


def test_a_run_that_measured_nothing_beside_is_shown_as_it_was(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["tasks"]
    summary["rows"] = [
        {name: value for name, value in row.items() if not name.startswith(("nats", "fluency"))}
        for row in summary["rows"]
    ]
    write_json(path, summary)
    assert "General ability" not in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert print_summary(summary, Console(width=80)) is None
