"""The tables in the terminal."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.test_damaged import RUNS
from tests.support.synthetic import write_run

from engramlab.report import print_summary
from engramlab.report.parts.blocks import Table
from engramlab.report.parts.words import big
from engramlab.report.terminal import fitted


def printed(summary: dict, width: int = 120) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width, color_system=None))
    return out.getvalue()


def summary(path: Path, **options: object) -> dict:
    return json.loads((write_run(path / "demo", **options) / "summary.json").read_text())  # type: ignore[arg-type]


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_means_and_attributes(tmp_path: Path) -> None:
    found = lines(printed(summary(tmp_path)))
    assert "multi5+permute 99.0 87.0 81–91 5.0 above the commonest value" in found
    assert "single 99.0 6.0 3–11 5.0 within noise of the commonest value" in found
    assert "single 2.0 4.0 6.0 8.0 10.0 12.0" in found
    assert "commonest 5.0 5.0 5.0 5.0 5.0 5.0" in found


def test_markup_is_text_and_nothing_is_said_to_be_nothing(tmp_path: Path) -> None:
    assert "[red]x[/red]" in printed(summary(tmp_path, scores={"[red]x[/red]": 0.5}))
    assert "unfinished" in printed({})


def test_an_experiment_without_tables_of_its_own_prints_its_rows() -> None:
    found = printed({"experiment": "some-other", "rows": [{"size": "tiny", "label": "x", "bits": 0.5}]}).split()
    assert [word for word in found if not word.startswith("─")] == ["size", "bits", "tiny", "0.5"]


@pytest.mark.parametrize("experiment", RUNS)
def test_no_word_is_broken_at_eighty_columns(experiment: str, tmp_path: Path) -> None:
    RUNS[experiment](tmp_path / "run")
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    narrow, wide = printed(found, 80), printed(found, 400)
    assert max(map(len, narrow.splitlines())) <= 80
    words = [set(re.findall(r"[^\s─]+", text)) for text in (narrow, wide)]
    assert words[0] - words[1] <= {"(continued)", "In", "every", "row,"} | {
        w for w in words[0] if w.endswith((".", ";", ":"))
    }


def test_a_table_too_wide_is_several() -> None:
    names = ["state-1200-batch8", "paraphrase", "compositional"]
    table = Table(
        ["part", "group", "depth", "a", "b"], [[*names, "1.74 (1.62 to 1.86)", "0.79 (0.64 to 0.93)"]], "T", 3
    )
    parts = fitted(table, 80)
    assert [part.columns for part in parts] == [["part", "group", "depth", "a"], ["part", "group", "depth", "b"]]
    assert [part.caption for part in parts] == ["T", "T (continued)"]
    assert fitted(table, 120) == [table]


def test_absurd_numbers_are_bounds() -> None:
    assert [big(value, 1e6) for value in (5.6e28, 111, "infinite", None)] == ["> 10⁶", "111", "∞", "–"]


def test_the_heads_of_numbers_fold_before_they_are_cut() -> None:
    rows = [{"size": "1x8", "arm": f"llama+untied+plain, {k}", "people": 10, "parameters": 9} for k in ("int4", "int8")]
    more = {"bits": 4.0, "share": 0.5, "bits_per_parameter": 0.25, "exposures": 100, "body": 5, "possible_bits": 8.0}
    more |= {"possible_per_parameter": 0.5, "bits_per_body_parameter": 0.8, "loss_name": 1.0}
    found = {"experiment": "knowledge-capacity", "rows": [row | more for row in rows]}
    for width in range(50, 100, 2):
        narrow = printed(found, width).split()
        for word in ("parameters", "stored", "parameter", "0.250"):
            assert word in narrow, width
