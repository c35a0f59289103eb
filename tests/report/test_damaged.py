"""No summary or config, however damaged, is a traceback: the page is made, or one sentence names the file and the key."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.report import (
    test_acquisition_report,
    test_cloze_report,
    test_decoding_report,
    test_editing_report,
    test_entity_report,
    test_estimation_reports,
    test_folding_report,
    test_learning_report,
    test_lifecycle_report,
    test_pitfalls_report,
    test_plug_report,
    test_probing_report,
    test_retrieval_report,
    test_source_report,
    test_teaching_report,
    test_timed_report,
    test_where_report,
)
from tests.support.synthetic import write_json
from tests.support.synthetic import write_run as write_extraction

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.report import experiments, print_summary, shapes, write_report

RESULTS = Path(__file__).parents[2] / "results"
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, 10**400, float("nan"), float("inf"), "", "x" * 5000, "nowhere", [], {},
                           [[1], "a"], {"a": {"b": []}}, "</script>", "2\ud800")  # fmt: skip


def kept(path: Path, name: str) -> None:
    """A result of this repository as a run folder, its lists cut short."""
    for file in ("summary.json", "config.json"):
        document = json.loads((RESULTS / name / file).read_text())
        write_json(path / file, {k: v[:8] if isinstance(v, list) else v for k, v in document.items()})


def with_grid(path: Path) -> None:
    """A knowledge-extraction run that tried several finetunings, and measured how well it had read."""
    write_extraction(path, attributes=("major", "employer"))
    summary = json.loads((path / "summary.json").read_text())
    tried = {"dataset": "single", "group": "test", "attribute": "mean", "exact_match": 0.5, "learning_rate": 0.001}
    summary["grid"] = [{**tried, "lora_rank": rank, "embedding_rank": e} for rank, e in ((0, 0), (8, 128), (8, "full"))]
    summary["training"] = [{**row, "next_token": 0.5, "value_token": 0.99} for row in summary["training"]]
    write_json(path / "summary.json", summary)


RUNS = {
    "knowledge-extraction": with_grid,
    "knowledge-acquisition": test_acquisition_report.write_run,
    "knowledge-popularity": test_acquisition_report.write_popularity,
    "hidden-state-probing": lambda path: test_probing_report.write(path, datasets={"couple2": 0.4}),
    "knowledge-editing": lambda path: test_editing_report.write_turns(path, test_editing_report.BOTH),
    "token-overfitting": test_editing_report.write_course,
    "knowledge-capacity": lambda path: kept(path, "capacity"),
    "fact-audit": test_estimation_reports.write_audit,
    "knowledge-estimation": test_estimation_reports.write_estimation,
    "cloze-questions": test_cloze_report.write_run,
    "factual-decoding": test_decoding_report.write_decoding,
    "plug-in-memory": test_plug_report.write_run,
    "teaching": test_teaching_report.write_run,
    "knowledge-folding": test_folding_report.write_run,
    "source-attribution": test_source_report.write_run,
    "retrieval-tokens": test_retrieval_report.write_run,
    "editing-pitfalls": test_pitfalls_report.write_run,
    "entity-propagation": test_entity_report.write_run,
    "time-sensitive-editing": test_timed_report.write_run,
    "learning-to-edit": test_learning_report.write_run,
    "fact-lifecycle": test_lifecycle_report.write_run,
    "where-knowledge-lives": test_where_report.write_run,
    "sweep": lambda path: kept(path, "sweep-1"),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value, of alike members of a list the first and the last."""
    if isinstance(value, dict):
        members: list[Any] = list(value)
    elif isinstance(value, list):
        members = sorted({0, len(value) - 1}) if value else []
    else:
        return [path]
    return [*([path] if path else []), *(place for key in members for place in places(value[key], (*path, key)))]


def damaged(document: Any, rng: random.Random) -> Any:
    """The document with one value gone, or another in its place."""
    changed = json.loads(json.dumps(document))
    *way, last = rng.choice(places(changed))
    inside = changed
    for key in way:
        inside = inside[key]
    if rng.random() < 0.3:
        del inside[last]
    else:
        inside[last] = rng.choice(VALUES)
    return changed


def told(file: str, act: Callable[[], Any]) -> None:
    with pytest.raises((UserError, Fine)) as caught:
        act()
        raise Fine
    assert isinstance(caught.value, Fine) or file in str(caught.value)


class Fine(Exception):
    """Nothing was raised."""


def survive(run: Path, file: str, each: int, seed: int) -> None:
    rng, good = random.Random(seed), json.loads((run / file).read_text())
    for _ in range(each):
        bad = damaged(good, rng)
        write_json(run / file, bad)
        told(file, lambda: write_report([run], run.parent / "page.html"))
        if file == "summary.json":
            told(file, lambda bad=bad: print_summary(bad, Console(file=io.StringIO(), width=80)))
    write_json(run / file, good)


def test_every_page_is_attacked() -> None:
    assert set(RUNS) == set(registry.names(experiments))


@pytest.mark.parametrize("experiment", RUNS)
def test_damage_is_told(experiment: str, tmp_path: Path) -> None:
    RUNS[experiment](tmp_path / "run")
    survive(tmp_path / "run", "summary.json", 24, 1)
    survive(tmp_path / "run", "config.json", 8, 2)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RUNS)
def test_much_damage_is_told(experiment: str, tmp_path: Path) -> None:
    RUNS[experiment](tmp_path / "run")
    for file in ("summary.json", "config.json"):
        survive(tmp_path / "run", file, 250, 3)


def test_the_file_and_the_key_are_named() -> None:
    needs = {"rows": shapes.Maybe([{"size": str, "bits": float, "loss_*": float}]), "kind": shapes.OneOf(("a", "b"))}
    good = {"rows": [{"size": "1x8", "bits": 1, "loss_a": 0.5, "more": []}], "kind": "a"}
    shapes.check(good, needs, Path("summary.json"))
    for change, words in (
        ({"kind": "c"}, r"summary\.json: kind must be one of a, b, not 'c'"),
        ({"rows": 3}, "rows must be a list, not 3"),
        ({"rows": [{"size": "1x8", "bits": float("nan")}]}, r"rows\[0\]\.bits must be a finite number, not nan"),
        ({"rows": [{"bits": 1.0}]}, r"rows\[0\]\.size must be text, not None"),
        ({"rows": [{"size": "1x8", "bits": 1, "loss_a": "x" * 999}]}, "loss_a must be a finite number, not 'xxx.*…;"),
    ):
        with pytest.raises(UserError, match=words):
            shapes.check(good | change, needs, Path("summary.json"))
