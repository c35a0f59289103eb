"""The page of hidden-state probing: the correlation, both probes, closer probing, several runs, hostile text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.report.test_page import HOSTILE, Page, render, strings
from tests.support.synthetic import write_json

from engramlab.base.rows import ATTRIBUTES
from engramlab.report import print_summary
from engramlab.report.experiments import hidden_state_probing as report
from engramlab.report.parts.probed import pairs
from engramlab.report.rows import read_runs

DATASETS = {"single": 0.05, "multi5+permute": 0.9, "couple2": 0.4}


def summary(datasets: dict[str, float] = DATASETS, *, extraction: bool = True, text: str = "") -> dict[str, Any]:
    rows = []
    for dataset, level in datasets.items():
        for probe, places in (("Q", [None]), ("P", range(6))):
            for target, attributes in (("first", ATTRIBUTES), ("whole", ATTRIBUTES[1:])):
                for attribute in attributes:
                    for place in places:
                        for control in (False, True):
                            share = 0.1 if control else min(1.0, level + 0.1 * (place or 0))
                            row = {"model": "runs/demo", "dataset": dataset, "part": dataset, "probe": probe}
                            row |= {"target": target, "attribute": attribute + text, "control": control}
                            row |= {"position": place, "accuracy": share, "low": share / 2, "high": share}
                            row |= {"majority": 0.1, "classes": 20, "reachable": 0.97, "accuracy_reachable": share}
                            rows.append({**row, "examples": 150, "extraction": level if extraction else None})
    closer = []
    for seen in ([], ["birth_date"], ["university", "major"], ["birth_date", "birth_city", "university"]):
        closer += [
            {"dataset": "couple2", "part": "couple2", "target": target, "attribute": attribute, "seen": seen,
             "partner": ATTRIBUTES[ATTRIBUTES.index(attribute) ^ 1], "second": ATTRIBUTES.index(attribute) % 2 == 1,
             "accuracy": 0.9 if "birth_date" in seen and attribute == "birth_city" else 0.2, "examples": 40}
            for target in ("first", "whole")
            for attribute in ATTRIBUTES
            if attribute not in seen
        ]  # fmt: skip
    rho = (
        [{"target": "whole", "measure": "accuracy", "points": 15, "rho": 0.93, "low": 0.8, "high": 0.97}]
        if extraction
        else []
    )
    skipped = [{"dataset": "single", "target": "whole", "attribute": "name" + text, "reason": "one class" + text}]
    more = {"closer": closer if not text else [], "skipped": skipped, "spearman": rho, "training": [], "seconds": 3.0}
    return {"experiment": "hidden-state-probing", "seed": 0, "rows": rows, **more}


def write(path: Path, **more: Any) -> Path:
    path.mkdir()
    write_json(path / "config.json", {"experiment": "hidden-state-probing", "config": {"seed": 0}})
    write_json(path / "summary.json", summary(**more))
    return path


def test_page(tmp_path: Path) -> None:
    page: Page = render(tmp_path, write(tmp_path / "run"))
    assert "ρ = 0.93 (0.80 to 0.97) over 15 points" in page.text
    for words in ("Q-probing and extraction", "what the name alone says", "Closer P-probing", "one class", "shuffled"):
        assert words in page.text
    said = " ".join(strings(page.figures))
    assert "birth city" in said
    assert "birth date seen" in said
    assert "birth date not seen" in said
    clouds = [f for f in page.figures if any(t.get("name") == "multi5+permute" for t in f["data"])]
    points = next(t for t in clouds[0]["data"] if t.get("name") == "multi5+permute")
    assert points["x"] == pytest.approx([90.0] * 5)
    assert len(points["x"]) == len(points["y"]) == 5


def test_the_second_of_a_pair_is_drawn_by_whether_its_first_was_seen(tmp_path: Path) -> None:
    rows = [row for row in summary()["closer"] if row["target"] == "whole"]
    figure = pairs(rows)
    (bars,) = (t for t in figure.data if t.type == "bar" and t.orientation == "h" and len(t.x or ()) > 1)
    assert sorted(set(bars.x)) == pytest.approx([20.0, 90.0])


def test_two_runs_and_many_datasets(tmp_path: Path) -> None:
    many = {f"multi{k}": k / 20 for k in range(1, 8)}
    page = render(tmp_path, write(tmp_path / "a", datasets=many), write(tmp_path / "b"))
    assert "multi3 (a)" in " ".join(strings(page.figures))
    assert "run b" in page.text


def test_without_extraction_and_hostile_text(tmp_path: Path) -> None:
    page = render(tmp_path, write(tmp_path / "run", extraction=False, text=HOSTILE))
    assert "No extraction accuracy stands beside" in page.text
    assert "22 of 33 tasks are read above the commonest value from the name alone; best the first token of" in page.text
    assert page.scripts == 2
    assert not {"b", "i", "s", "u", "img"} & {tag for tag, _ in page.elements}


def test_a_share_within_noise_of_the_commonest_class_is_no_finding(tmp_path: Path) -> None:
    page = render(tmp_path, write(tmp_path / "run", datasets={"single": 0.12}, extraction=False))
    assert "Nothing beats the commonest value: read from the name alone, the best is" in page.text
    assert "12.0 % (6–12) where the commonest class has 10.0 % and shuffled labels 10.0 %" in page.text


def test_unfinished_and_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {"experiment": "hidden-state-probing", "config": {"seed": 0}})
    assert "unfinished" in render(tmp_path, tmp_path / "run").text


def test_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=160)
    print_summary(summary(), console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Q-probing: the name alone" in said
    assert "90.0" in said
    assert "0.93" in said
    assert report.headline(read_runs([write(tmp_path / "run")])).startswith("Q-probing and extraction")
