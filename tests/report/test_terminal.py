"""The table in the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console
from tests.support.synthetic import write_run

from engramlab.report import print_summary


def printed(summary: dict, width: int = 120) -> str:
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=width, color_system=None))
    return out.getvalue()


def summary(path: Path, **options: object) -> dict:
    return json.loads((write_run(path / "demo", **options) / "summary.json").read_text())  # type: ignore[arg-type]


def test_means_and_attributes(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in printed(summary(tmp_path)).splitlines()]
    assert "multi5+permute 99.0 87.0 83.0 85.0 87.0 89.0 91.0 93.0" in lines
    assert "single 99.0 6.0 low 2.0 4.0 6.0 8.0 10.0 12.0" in lines
    assert lines.index("multi5+permute 99.0 87.0 83.0 85.0 87.0 89.0 91.0 93.0") < len(lines) - 2


def test_a_narrow_terminal_gets_two_tables(tmp_path: Path) -> None:
    text = printed(summary(tmp_path, modes=["finetune", "mixed"]), width=80)
    assert max(map(len, text.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "single mixed 99.0 6.0 low" in lines
    assert "single mixed 2.0 4.0 6.0 8.0 10.0 12.0" in lines


def test_markup_is_text_and_nothing_is_said_to_be_nothing(tmp_path: Path) -> None:
    assert "[red]x[/red]" in printed(summary(tmp_path, scores={"[red]x[/red]": 0.5}))
    assert "unfinished" in printed({})


def test_an_experiment_without_tables_of_its_own_prints_its_rows() -> None:
    lines = printed({"experiment": "some-other", "rows": [{"size": "tiny", "label": "x", "bits": 0.5}]}).split()
    assert [word for word in lines if not word.startswith("─")] == ["size", "bits", "tiny", "0.5"]
