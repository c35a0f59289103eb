"""The page of learning to edit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from tests.support.synthetic import write_json

from engramlab.base.terminal import Console
from engramlab.report import print_summary, write_report
from engramlab.report.experiments import learning_to_edit
from engramlab.report.rows import read_run

ROLES = ("reliability", "generality", "portability", "locality")


def write_run(path: Path, gap: float = 0.5) -> None:
    """A run whose aligned arm is so much better than the untouched one."""
    rows: list[dict[str, Any]] = []
    for arm, share in (("ike", 0.4), ("ft-m", 0.35), ("untouched", 0.3), ("aligned", 0.3 + gap)):
        for edits in (1, 10):
            for protocol in ("teacher_forced", "generated"):
                for role in ROLES:
                    about = {
                        "arm": arm,
                        "count": edits,
                        "protocol": protocol,
                        "role": role,
                        "cases": 30,
                        "recall": None if arm == "ft-m" else 0.9,
                    }
                    rows.append(about | {"share": share, "low": share - 0.1, "high": share + 0.1})
    kept = [{"arm": "aligned", "prompts": 120, "share": 0.8, "low": 0.7, "high": 0.9}]
    summary: dict[str, Any] = {
        "experiment": "learning-to-edit",
        "seed": 0,
        "seconds": 1.0,
        "model": "m",
        "rows": rows,
        "kept": kept,
    }
    values = {"fluency_before": 5.12, "fluency": 4.98, "fluency_low": 4.9, "fluency_high": 5.05}
    moved = [{"arm": "ft-m", "count": 10, "cases": 30, **values, "nats_before": 2.0, "nats": 3.0}]
    summary |= {"beside": moved}
    summary |= {"tasks": [{"arm": "aligned", "count": 0, "task": "piqa", "before": 0.6, "score": 0.45}]}
    write_json(path / "summary.json", summary | {"kept_arm": "aligned", "training": [], "examples": 9})
    about = {"experiment": "learning-to-edit", "preset": "tiny", "config": {"model": "m", "arms": ["aligned"]}}
    write_json(path / "config.json", about)


def test_the_headline_names_its_controls_and_heeds_their_intervals(tmp_path: Path) -> None:
    write_run(tmp_path / "clear")
    said = learning_to_edit.headline([read_run(tmp_path / "clear")])
    assert said.count("more than") == 12
    assert "(no training)" in said
    assert "(IKE)" in said
    assert "(FT-M)" in said
    assert "of 120 prompts as before" in said
    write_run(tmp_path / "noise", gap=0.05)
    said = learning_to_edit.headline([read_run(tmp_path / "noise")])
    assert said.count("within noise of") == 12
    assert "more than" not in said
    write_report([tmp_path / "noise"], tmp_path / "noise.html")


def test_the_terminal_shows_recall_beside_each_score(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    said = io.StringIO()
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(file=said, width=160))
    assert "aligned" in said.getvalue()
    assert said.getvalue().count("[90") >= 8
    assert "512 → 498" in said.getvalue()
    assert "piqa" in said.getvalue()


def test_what_was_measured_beside_is_on_the_page_where_it_was(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "512 → 498 (490 to 505)" in page
    assert "7.39 → 20.1" in page
    assert page.count("piqa") == page.count(">0.45<") == 1
    path = tmp_path / "run" / "summary.json"
    old = json.loads(path.read_text())
    del old["beside"], old["tasks"]
    write_json(path, old)
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "Beside the answers" not in page
    assert "General ability" not in page
