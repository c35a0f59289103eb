"""The tables of README and docs are what the kept results say, and every kept result says how it was made."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def tables() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "results"))
        return runpy.run_path(str(ROOT / "results" / "tables.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_drawn_from_results(page: Path, tables: dict) -> None:
    text = page.read_text()
    assert tables["drawn"](text) == text, "out of date: python results/tables.py --write"


def test_every_table_stands_on_some_page(tables: dict) -> None:
    drawn = [name for page in PAGES for name in re.findall(r"<!-- ([\w -]+?) table -->", page.read_text())]
    assert set(drawn) >= set(tables["TABLES"]) - {"acquisition batches"}


def test_a_table_that_differs_by_a_digit_is_seen(tables: dict) -> None:
    page = (ROOT / "docs" / "storage.md").read_text()
    wrong = page.replace("96.6 % |", "96.7 % |", 1)
    assert wrong != page
    assert tables["drawn"](wrong) == page


def test_the_picture_is_drawn_from_results(tables: dict) -> None:
    assert tables["FILE"].read_text() == tables["picture"](), "out of date: python results/tables.py --write"


def test_results_that_pages_name_are_kept() -> None:
    for page in PAGES:
        for name in re.findall(r"`results/([\w-]+)`", page.read_text()):
            assert (ROOT / "results" / name).is_dir(), f"results/{name} is named in {page.name} and not there"


@pytest.mark.parametrize("folder", sorted(p.name for p in (ROOT / "results").iterdir() if (p / "config.json").exists()))
def test_results_say_how_they_were_made(folder: str) -> None:
    config = json.loads((ROOT / "results" / folder / "config.json").read_text())
    assert config["command"].startswith("engramlab ")
    assert config["commit"]
    assert config["versions"]["torch"]
    assert isinstance(json.loads((ROOT / "results" / folder / "summary.json").read_text())["seed"], int)
