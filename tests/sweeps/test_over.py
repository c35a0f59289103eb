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
from engramlab.report.experiments import sweep as page_of
from engramlab.report.page import write_report
from engramlab.report.parts.paper import made_with
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
    # What the paper prints of mixed training is at QA_r 0.8 and beside no other value.
    (table,) = [table for table in page_of.terminal(whole) if "P_test" in table.columns]
    published = table.columns.index("paper, P_test")
    assert {row[2]: row[published] for row in table.rows} == {"qa-ratio=0.8": "86.6\u00a0%", "qa-ratio=0.2": "–"}
    print_summary(json.loads(json.dumps(whole)), Console(width=160, record=True))


@pytest.mark.parametrize(
    ("over", "theirs"),
    [
        ("", True),
        ("qa-ratio=0.8", True),
        ("qa-ratio=.80, people=100000", True),
        ("qa-ratio=0.8, people=500", False),
        ("pretrain.steps=80000", False),
        ("model.objective=masked", False),
    ],
)
def test_a_published_figure_is_for_the_values_it_was_made_with(over: str, theirs: bool) -> None:
    assert made_with(over) == theirs


def _swept(of: str, rows: list[dict]) -> dict:
    return {"experiment": "sweep", "of": of, "cells": [{"cell": "a", "state": "done"}], "rows": rows}


def test_a_sweep_of_capacities_prints_bits_a_parameter_over_seeds() -> None:
    rows = [
        {"size": "2x8", "arm": "", "corpus": "bioS", "people": 250, "exposures": 100, "bits_per_parameter": bits, "share": bits,
         "cell": f"seed{seed}", "seed": seed}
        for seed, bits in enumerate((0.4, 0.5, 0.6))
    ]  # fmt: skip
    table, _ = page_of.terminal(_swept("knowledge-capacity", rows))
    # Student's t with two degrees of freedom is 4.303: 0.5 -+ 4.303 x 0.1 / sqrt(3); a share ends at 1 and 0.
    assert table.rows == [["2x8", "bioS", "250", "100", "3", "0.500 (0.252 to 0.748)", "50.0\u00a0% (25 to 75)"]]
    assert "bits per parameter" in table.columns
    (single, _) = page_of.terminal(_swept("knowledge-capacity", rows[:1]))
    assert single.rows == [["2x8", "bioS", "250", "100", "1", "0.400", "40.0\u00a0%"]]


def test_a_sweep_of_probes_prints_means_over_attributes_and_seeds_by_what_is_swept() -> None:
    rows = [
        {"part": "single", "probe": "Q", "target": "whole", "attribute": a, "control": False, "position": None,
         "accuracy": share + 0.2 * (a == "major") + seed / 10, "majority": 0.1,
         "cell": f"{over}{seed}", "seed": seed, "over": over}
        for over, share in (("q.rank=0", 0.2), ("q.rank=16", 0.4)) for seed in (0, 1) for a in ("major", "employer")
    ]  # fmt: skip
    rows += [row | {"control": True, "accuracy": 0.0} for row in rows]
    table, _ = page_of.terminal(_swept("hidden-state-probing", rows))
    assert table.columns == ["swept", "part", "probe", "target", "seeds", "accuracy", "majority"]
    assert [row[0] for row in table.rows] == ["q.rank=0", "q.rank=16"]
    # Of seeds 0 and 1 the means over attributes are 0.3 and 0.4, Student's t 12.7: the interval is wider than a share can be.
    assert table.rows[0][1:] == ["single", "Q", "whole value", "2", "35.0\u00a0% (0 to 99)", "10.0\u00a0% (10 to 10)"]


def test_a_sweep_of_anything_else_prints_what_it_measured_first() -> None:
    rows = [
        {"method": m, "kind": "x", "seen": ["a"], "success": s, "kept": 0.5, "cell": f"{m}{seed}", "seed": seed}
        for m, s in (("rome", 0.2), ("memit", 0.6)) for seed in (0, 1)
    ]  # fmt: skip
    table, counted = page_of.terminal(_swept("knowledge-editing", rows))
    assert table.columns == ["method", "seeds", "success", "kept"]
    assert table.rows[1] == ["memit", "2", "0.600 (0.600 to 0.600)", "0.500 (0.500 to 0.500)"]
    assert counted.rows == [["done", "1"]]
