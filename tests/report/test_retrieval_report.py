"""The page of retrieval tokens: its headline follows the intervals, names its controls and what moved without passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report
from engramlab.report.experiments import retrieval_tokens
from engramlab.report.rows import read_run


def row(way: str, k: int, em: float, more: float = 0.0) -> dict[str, Any]:
    found: dict[str, Any] = {"way": way, "k": k, "questions": 40, "subjects": 20}
    for name in ("em", "f1", "begins"):
        for label, value, wide in ((name, em, 0.1), (f"{name}_more", more, 0.05)):
            found |= {label: value, f"{label}_low": value - wide, f"{label}_high": value + wide}
    return found


def write_run(path: Path, *, more: float = 0.4, change: float = 0.0) -> None:
    rows = [row("no passage", 0, 0.1), row("plain", 0, 0.2), row("untrained tokens", 50, 0.25, 0.05)]
    rows += [row("virtual tokens", 1, 0.5, 0.3), row("virtual tokens", 50, 0.2 + more, more), row("LoRA", 0, 0.7, 0.5)]
    training = [
        {"dataset": "reading", "stage": name, "steps": 9, "tokens": 900, "loss": 1.0, "seconds": 5.0}
        for name in ("tokens", "lora")
    ]
    summary = {
        "experiment": "retrieval-tokens",
        "seed": 0,
        "seconds": 61.0,
        "model": "models/<m>.gguf",
        "data": "countries",
        "tokens": 50,
        "passages_left_out": 2,
        "answer_in_passages": 1.0,
        "rows": rows,
        "without": [
            {"way": "plain", "nats": 2.5, "change": 0.0},
            {"way": "virtual tokens", "nats": 2.5, "change": change},
            {"way": "LoRA", "nats": 2.0, "change": -0.5},
        ],
        "training": training,
    }
    write_json(path / "summary.json", summary)
    config = {
        "experiment": "retrieval-tokens",
        "config": {"seed": 0},
        "command": "engramlab run x",
        "commit": "0123abc",
    }
    write_json(path / "config.json", config)


@pytest.mark.parametrize(
    ("more", "words"), [(0.4, "more than by plain"), (-0.1, "fewer than by plain"), (0.04, "within noise of what")]
)
def test_the_headline_tells_the_result_and_its_controls(more: float, words: str, tmp_path: Path) -> None:
    write_run(tmp_path, more=more)
    said = retrieval_tokens.headline([read_run(tmp_path)]).replace("\u00a0", " ")
    for part in (words, "with 50 trained tokens", "(20.0 %", "untrained 25.0 %", "LoRA 70.0 %", "moved not at all"):
        assert part in said
    assert "under LoRA by -0.50" in said.replace("−", "-")


def test_a_model_that_moved_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, change=0.01)
    assert "not at all" not in retrieval_tokens.headline([read_run(tmp_path)])


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    for part in (
        "arXiv 2405.19670",
        "arXiv 1606.05250",
        "0, exactly",
        "2 passages did not fit",
        "virtual tokens, k = 50",
    ):
        assert part in page


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "0, exactly" in said
