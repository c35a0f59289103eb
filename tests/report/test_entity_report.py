"""The page and the terminal table of entity propagation, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.synthetic import write_json

from engramlab.base.terminal import Console
from engramlab.report import print_summary, write_report


def row(kind: str, arm: str, gain: float, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"source": "fictional", "kind": kind, "arm": arm, "probes": 20, "entities": 4}
    found |= {"perplexity_before": 100.0, "perplexity_after": 50.0}
    for name, value in {"gain": gain, "sum_before": 0.2, "sum_after": 0.4, "by_overlap": 0.3}.items():
        found |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return {**found, "mean_before": 0.2, "mean_after": 0.3, **more}


def write_run(path: Path) -> None:
    rows = [row("compositional", arm, gain) for arm, gain in (("ft-all", 0.05), ("context", 1.5), ("<b>own", -0.5))]
    rows += [row("specificity", "ft-all", 0.0, sum_after=None, by_overlap=None)]
    failed = [{"source": "fictional", "arm": "rome", "entity": "1", "reason": "no subject"}]
    times = [{"source": "fictional", "arm": "ft-all", "seconds": 3.0, "editing_seconds": 2.0}]
    about = {"experiment": "entity-propagation", "seed": 0, "seconds": 11.0, "model": "m"}
    values = {"fluency_before": 5.12, "fluency": 4.98, "fluency_low": 4.9, "fluency_high": 5.05}
    moved = [{"source": "fictional", "arm": "ft-all", "entities": 4, **values, "nats_before": 2.0, "nats": 3.0}]
    tasks = [{"source": "fictional", "arm": "ft-all", "task": "piqa", "before": 0.6, "score": 0.45}]
    found = {"rows": rows, "failed": failed, "times": times, "beside": moved, "tasks": tasks}
    write_json(path / "summary.json", about | found)
    write_json(path / "config.json", {"experiment": "entity-propagation", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "fine-tuned, all layers +0.05 (within noise)" in page
    assert "definition in front +1.50" in page
    assert "&lt;b&gt;own -0.50 (a loss)" in page
    assert "100 → 50" in page
    assert "no subject" in page
    assert "512 → 498 (490 to 505)" in page
    assert "7.39 → 20.1" in page
    assert page.count("piqa") == page.count(">0.45<") == 1


def test_a_run_that_measured_nothing_beside_is_shown_as_it_was(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    old = json.loads(path.read_text())
    del old["beside"], old["tasks"]
    write_json(path, old)
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "Beside the answers" not in page
    assert "General ability" not in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "context" in said
    assert "512 → 498" in said
    assert "piqa" in said
