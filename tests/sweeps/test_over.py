"""Sweeps over any option: cells of every value, what each reads, and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from engramlab.cli._words import parse
from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.experiments.knowledge_extraction.work import Part
from engramlab.files import writing
from engramlab.report import print_summary
from engramlab.report.page import write_report
from engramlab.sweeps.cells import cells, sweep
from engramlab.sweeps.summary import summary
from engramlab.sweeps.work import Outcome

MIXED = replace(extraction.PRESETS["tiny-mixed"], people=12, first_templates=2)


def made(out: Path, *over: str, seeds: int = 1):
    chosen = sweep("knowledge-extraction", MIXED, variants=["single"], seeds=seeds, over=over)
    return chosen, cells(chosen, out, ["--preset", "x"], None, lambda own: parse(extraction.Config, "t", own, MIXED))


def test_every_value_of_qa_r_is_the_share_of_question_rows_that_its_cell_reads(tmp_path: Path) -> None:
    _, found = made(tmp_path, "qa-ratio=0.2,0.5,0.8")
    assert [cell.name for cell in found] == [f"single-qa-ratio={v}-seed0" for v in ("0.2", "0.5", "0.8")]
    for cell, share in zip(found, (0.2, 0.5, 0.8), strict=True):
        assert cell.config.qa_ratio == share
        assert " ".join(cell.tasks[0].words).endswith(f"--preset x --qa-ratio {share} --seed 0 --variants single")
        run = Run(cell.config, tmp_path / "run", console=Console(quiet=True))
        part = Part(run, run.datasets[0])
        batch = part.mixed().take(2000)
        asked = np.array(["Answer:" in run.tokenizer.decode(row) for row in batch.input_ids.tolist()])
        assert asked.mean() == pytest.approx(share, abs=0.03)
        assert (asked == (batch.source == 1)).all()


def test_several_options_make_every_combination(tmp_path: Path) -> None:
    _, found = made(tmp_path, "finetune.ranks=0,8 16", "qa_ratio=0.2,0.8", seeds=2)
    assert len({cell.folder for cell in found}) == len(found) == 8
    assert {(cell.config.finetune.ranks, cell.config.qa_ratio, cell.seed) for cell in found} == {
        (ranks, share, seed) for ranks in ((0,), (8, 16)) for share in (0.2, 0.8) for seed in (0, 1)
    }


def test_the_page_has_a_line_over_the_values(tmp_path: Path) -> None:
    chosen, found = made(tmp_path / "sweep", "qa-ratio=0.2,0.8", seeds=2)
    for cell in found:
        share = 0.25 if cell.config.qa_ratio < 0.5 else 0.75
        rows = [
            {"dataset": "single", "mode": "mixed", "group": g, "attribute": a, "exact_match": share + cell.seed / 100,
             "questions": 100, "commonest": 0.1}
            for g in ("train", "test") for a in ("major", "mean")
        ]  # fmt: skip
        writing.write_json(cell.folder / "summary.json", {"rows": rows})
    whole = summary(chosen, [Outcome(cell) for cell in found], tmp_path / "sweep")
    means = {r["over"]: r["exact_match"] for r in whole["means"] if (r["group"], r["attribute"]) == ("test", "mean")}
    assert means == {"qa-ratio=0.2": pytest.approx(0.255), "qa-ratio=0.8": pytest.approx(0.755)}
    writing.write_json(tmp_path / "sweep" / "summary.json", whole)
    writing.write_json(tmp_path / "sweep" / "config.json", {"experiment": "sweep", "config": {}})
    page = write_report([tmp_path / "sweep"], tmp_path / "page.html").read_text()
    assert "P_test by qa ratio" in page
    assert "qa-ratio=0.8" in page
    print_summary(json.loads(json.dumps(whole)), Console(width=160, record=True))
