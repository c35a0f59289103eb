"""Biographies that a chat model wrote through the whole experiment: first texts, full names, celebrities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tests.corpora.test_sources import written_by_a_model
from tests.support.extraction import smallest

from engramlab.experiments import knowledge_extraction as extraction
from engramlab.experiments.knowledge_extraction.shared import Run
from engramlab.experiments.knowledge_extraction.work import Part
from engramlab.report.page import write_report


def test_one_corpus_gives_the_minority_alone_and_beside_celebrities(tmp_path: Path) -> None:
    config = smallest(
        pretrain_steps=3,
        finetune_batch=4,
        corpus=written_by_a_model(tmp_path / "bior"),
        variants=("bior1", "bior1+fullname+CEL"),
        minority_share=0.5,
    )
    config = replace(config, first_templates=None)
    run = Run(config, tmp_path / "seen", console=Console(quiet=True))
    part = Part(run, run.datasets[1])
    source = part._entries().take(400).source
    assert (source == 0).mean() == pytest.approx(0.5, abs=0.08)
    about = part.data.corpus.subject(np.arange(len(part.data.corpus)))
    assert about.tolist() == [0, 1, 2, 3, 2, 3]
    summary = extraction.run(config, tmp_path / "run")
    people = {(r["dataset"], r["group"]): r.get("people") for r in summary["rows"]}
    assert people["bior1", "test"] is None
    assert people["bior1+fullname+CEL", "test"] == "minority"
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "bioR, N = 100k" in page  # the paper's figures for bioR single and single+fullname+CEL
    assert "82.2" in page
