"""A grid of finetunings of one pretraining, and what is measured of reading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.extraction import smallest

from engramlab.experiments import knowledge_extraction as extraction
from engramlab.report import print_summary
from engramlab.report.page import write_report


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    config = smallest(pretrain_steps=4, finetune_batch=8, variants=("single",), people=6)
    finetune = replace(config.finetune, ranks=(0, 2, 4), embedding_ranks=(0, 8), learning_rates=(1e-3, 5e-3))
    folder = tmp_path_factory.mktemp("grid") / "run"
    return folder, extraction.run(replace(config, finetune=finetune), folder)


def test_every_finetuning_of_the_grid_is_in_the_summary(made: tuple[Path, dict], tmp_path: Path) -> None:
    folder, summary = made
    rows = [row for row in summary["grid"] if (row["group"], row["attribute"]) == ("test", "mean")]
    tried = {(row["lora_rank"], row["embedding_rank"], row["learning_rate"]) for row in rows}
    ranks = [(0, 0), *((rank, embedding) for rank in (2, 4) for embedding in (0, 8))]
    assert tried == {(*pair, rate) for pair in ranks for rate in (1e-3, 5e-3)}
    assert len(rows) == len(tried) == 10
    best = next(row for row in summary["rows"] if (row["group"], row["attribute"]) == ("test", "mean"))
    assert best["exact_match"] == max(row["exact_match"] for row in rows)
    page = write_report([folder], tmp_path / "page.html").read_text()
    assert "ranks beside full finetuning" in page
    assert "4 beams" in page


def test_what_was_learnt_of_next_tokens_is_recorded_and_printed(made: tuple[Path, dict]) -> None:
    _, summary = made
    read, *finetunings = summary["training"]
    assert 0 <= read["value_token"] <= 1
    assert 0 <= read["next_token"] <= 1
    assert not any("value_token" in row for row in finetunings)
    console = Console(width=160, record=True)
    print_summary(json.loads(json.dumps(summary)), console)
    assert "criterion: above 99 %" in console.export_text()


def test_curves_of_whole_values_are_written_along_training(made: tuple[Path, dict]) -> None:
    lines = (made[0] / "single" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    entries = [row for row in map(json.loads, lines) if row.get("corpus") == "bio"]
    assert entries
    assert all(row["whole"] <= row["first_token"] for row in entries)
