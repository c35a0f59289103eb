"""``engramlab example``: each sample is read by what takes such files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.test_cli import engramlab, refused

from engramlab.cli.example import SAMPLES
from engramlab.corpora.facts import FactTable
from engramlab.editing import benchmarks
from engramlab.editing.requests import subject_span
from engramlab.reading import read_passages
from engramlab.reading.defects import defects

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    endings = {"edits": "csv", "facts": "csv", "passages": "jsonl", "questions": "tsv", "templates": "txt"}
    for kind, ending in endings.items():
        engramlab(capsys, "example", kind, "--out", str(tmp_path / f"{kind}.{ending}"))
    return {kind: tmp_path / f"{kind}.{ending}" for kind, ending in endings.items()}


def test_each_sample_is_read_back(files: dict[str, Path]) -> None:
    assert set(files) == set(SAMPLES)
    table = FactTable.read(files["facts"], templates=files["templates"], questions=files["questions"])
    assert len(table) == 8
    assert "What do people in Japan pay with? Answer:" in [query.prompt for query in table.queries()]
    edits = benchmarks.load(str(files["edits"])).cases
    assert [case.edits[0].target for case in edits] == ["Rome", "Christopher Marlowe"]
    assert all(subject_span(case.edits[0]) for case in edits)
    (passage,) = read_passages(files["passages"])
    assert len(passage.queries) == 3
    assert defects([passage]) == []


def test_it_prints_or_writes_once(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for kind, path in files.items():
        assert engramlab(capsys, "example", kind) == path.read_text() == SAMPLES[kind]
        assert "already exists" in refused(capsys, "example", kind, "--out", str(path))
    assert "did you mean 'edits'" in refused(capsys, "example", "edit")


def test_the_page_of_formats_names_each() -> None:
    page = (DOCS / "reference" / "formats.md").read_text()
    for kind in SAMPLES:
        assert f"engramlab example {kind}" in page
