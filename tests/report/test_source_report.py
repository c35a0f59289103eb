"""The page and the terminal table of source attribution, from a small summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.synthetic import write_json

from engramlab.report import print_summary, write_report


def row(strategy: str, copies: int, group: str, hits: float, **more: Any) -> dict[str, Any]:
    name = f"{strategy}-{copies}" + ("-thought" if more.get("thought") else "")
    shares = {"answered": 0.6, "f1": 0.7, "hits1": hits, "hits10": min(1, hits + 0.2), "right1": hits, "right10": hits}
    shares |= {"told1": hits, "told10": hits, "guess1": 0.01, "guess10": 0.1}
    found: dict[str, Any] = {}
    for key, value in shares.items():
        found |= {key: value, f"{key}_low": max(0, value - 0.05), f"{key}_high": min(1, value + 0.05)}
    about = {"dataset": name, "strategy": strategy, "copies": copies, "thought": False, "group": group, "ids": "all"}
    counts = {"questions": 200, "documents": 60, "candidates": 120, "chance1": 1 / 120, "chance10": 1 / 12}
    return {**about, **counts, **found, **more}


def write_run(path: Path, best: float = 0.5, recital: float = 0.99) -> None:
    groups = ("trained", "in-domain", "out-of-document")
    rows = [row("no-id", 1, group, share) for group, share in zip(groups, (1.0, 0.2, 0.01), strict=True)]
    rows += [row("repeat", 3, group, share) for group, share in zip(groups, (1.0, 0.9, best), strict=True)]
    rows += [row("end", 3, "out-of-document", 0.2, thought=True, right1=None, right1_low=None, right1_high=None)]
    rows += [row("repeat", 3, "out-of-document", 0.6, ids="group", candidates=60)]
    texts = [{"dataset": name, "recital": recital, "read": 0.3, "unread": 2.5} for name in ("no-id-1", "repeat-3")]
    training = [{"dataset": "repeat-3", "stage": "mixed", "steps": 4, "tokens": 400, "loss": 0.1, "seconds": 9.0}]
    about = {"experiment": "source-attribution", "seed": 0, "seconds": 9.0, "model": "2x128", "documents": 120}
    write_json(path / "summary.json", {**about, "best": "repeat-3", "rows": rows, "texts": texts, "training": training})
    write_json(path / "config.json", {"experiment": "source-attribution", "config": {"seed": 0}})


def test_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "repeat, 3 copies names the right one of 120 documents for 50.0" in page
    assert "(more than both)" in page
    assert "end, 3 copies, chain of thought" in page
    assert "recite less" not in page


@pytest.mark.parametrize(("best", "words"), [(0.04, "within noise"), (0.5, "2 of 2 models recite less than 95")])
def test_a_headline_never_ignores_its_control(best: float, words: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", best, 0.99 if best < 0.1 else 0.5)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    summary["rows"] = [r for r in summary["rows"] if r["strategy"] != "end"]
    write_json(tmp_path / "run" / "summary.json", summary)
    assert words in write_report([tmp_path / "run"], tmp_path / "page.html").read_text()


def test_eighty_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    print_summary(json.loads((tmp_path / "run" / "summary.json").read_text()), Console(width=80))
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "repeat" in said
