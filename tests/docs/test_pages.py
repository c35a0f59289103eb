"""The documentation says what is: names in the glossary exist, commands are their --help, what pages tell to run runs."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", re.findall(r"\(`(engramlab[\w.]+)`\)", (DOCS / "glossary.md").read_text()))
def test_what_the_glossary_names_exists(name: str) -> None:
    room, _, last = name.rpartition(".")
    assert hasattr(importlib.import_module(room), last)


def test_the_glossary_says_each_word_once() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 40
    assert len(words) == len(set(words))


def test_the_commands_page_is_what_help_says() -> None:
    drawn = runpy.run_path(str(DOCS / "commands.py"))["page"]()
    assert (DOCS / "reference" / "commands.md").read_text() == drawn, "out of date: python docs/commands.py --write"


def test_every_local_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text()):
            if not link.startswith(("http://", "https://")):
                assert (page.parent / link).exists(), f"{page.relative_to(ROOT)} links to {link}"


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of a tutorial's code blocks, in order; a block after ``<!-- not run -->`` is left out."""
    text = re.sub(r"<!-- not run.*?-->\n```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"```(bash|python|csv .+?)\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_tutorials_run_as_they_stand(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    assert found
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    names: dict = {"__name__": page.stem}
    for language, text in found:
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    command = {"engramlab": [sys.executable, "-m", "engramlab"], "python": [sys.executable]}[words[0]]
                    done = subprocess.run([*command, *words[1:]], capture_output=True, text=True)
                    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        else:
            (tmp_path / language.split('"')[1]).write_text(text)
