"""The popularity simulation against the planner's own course, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.acquisition.test_forecast import LAW, write_run

from engramlab import cli
from engramlab.acquisition.laws import Law, course
from engramlab.acquisition.popularity import PopularityOptions, popularity, simulate
from engramlab.base.errors import UserError


def test_courses_are_those_of_the_planner() -> None:
    met = np.sort(np.random.default_rng(0).uniform(0, 400, (5, 9)), axis=1)
    found = simulate(LAW, met, 450.0)
    np.testing.assert_allclose(found, [course(LAW, row, [450.0])[0] for row in met])


def test_rare_facts_never_accumulate_and_forgetting_slower_needs_fewer_statements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    from engramlab.acquisition import popularity as module

    parts = module.read_run_parts(run)
    laws = parts["tiny"].laws
    fast = laws["duplicate", "semantic"]
    slow = Law(1.0, -0.2, 0.1, 0.8, peak=3)  # paraphrases, forgotten at less than half the rate
    laws["paraphrase", "semantic"] = type(fast)(slow, fast.before)
    monkeypatch.setattr(module, "read_run_parts", lambda folder: parts)
    made = popularity(PopularityOptions(run, steps=10_000, most=1_000, draws=40, duplicates=0.5))
    shares = {row["condition"]: row for row in made["shares"]}
    same, removed, other = shares.values()
    assert same["threshold"] == pytest.approx(fast.law.threshold_steps)
    assert same["half"] > removed["half"] > other["half"]
    assert same["learnt"] < removed["learnt"] < other["learnt"]
    by_count = [row for row in made["rows"] if row["condition"] == same["condition"]]
    assert by_count[0]["learnt"] == 0  # once in 10,000 steps
    assert by_count[-1]["learnt"] > 0.8
    assert by_count[0]["gain"] < by_count[len(by_count) // 2]["gain"] < by_count[-1]["gain"]


def test_the_command_keeps_it_with_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "popularity"
    words = ["plan", "--popularity", "--run", str(run), "--draws", "20", "--most", "100", "--out", str(out)]
    cli.main(words)
    said = capsys.readouterr().out
    assert "facts learnt" in said.casefold()
    assert "50% duplicates removed" in " ".join(said.split()) or "duplicates" in said
    first = json.loads((out / "summary.json").read_text())
    assert "Popularity and deduplication" in (out / "report.html").read_text()
    cli.main(words)
    assert json.loads((out / "summary.json").read_text()) == first


def test_what_cannot_be_simulated_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(UserError, match="duplicates must be at least 0 and below 1"):
        PopularityOptions(run, duplicates=1.0)
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        popularity(PopularityOptions(run, part="tin"))
