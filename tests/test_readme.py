"""The README's tables are what the kept results say, and every kept result says how it was made."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def tables(request: pytest.FixtureRequest) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "results"))
        return runpy.run_path(str(ROOT / "results" / "tables.py"))["TABLES"]


def test_tables_are_drawn_from_results(tables: dict) -> None:
    markers = re.findall(r"<!-- (.+?) table -->", README)
    assert len(markers) > 5
    assert len(set(markers)) == len(markers)
    for name in markers:
        assert f"<!-- {name} table -->\n{tables[name]()}\n<!-- end -->" in README, (
            f"the {name} table is out of date: python results/tables.py --write"
        )


def test_results_that_the_readme_names_are_kept() -> None:
    for name in re.findall(r"`results/([\w-]+)`", README):
        assert (ROOT / "results" / name).is_dir(), f"results/{name} is named in the README and not there"


@pytest.mark.parametrize("folder", sorted(p.name for p in (ROOT / "results").iterdir() if (p / "config.json").exists()))
def test_results_say_how_they_were_made(folder: str) -> None:
    config = json.loads((ROOT / "results" / folder / "config.json").read_text())
    assert config["command"].startswith("engramlab ")
    assert config["commit"]
    assert config["versions"]["torch"]
    assert isinstance(json.loads((ROOT / "results" / folder / "summary.json").read_text())["seed"], int)
