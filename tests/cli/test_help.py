"""What --help says, at the width of a terminal."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from tests.cli.test_cli import refused

from engramlab import cli, experiments
from engramlab.base import registry
from engramlab.cli import _help
from engramlab.cli._edit_options import EditOptions
from engramlab.cli._words import parse
from engramlab.experiments import fact_lifecycle, knowledge_editing, knowledge_extraction


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with contextlib.suppress(SystemExit):
        cli.main(words)
    return capsys.readouterr().out


def test_no_line_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pages = [(), *((name, "--help") for name in registry.names(cli)), ("list",), ("corpus", "tables", "--help")]
    pages += [("run", name, word) for name in experiments.names() for word in ("--help", "--help-all")]
    for words in pages:
        for line in helped(capsys, *words).splitlines():
            whole = line.lstrip().startswith(("--", "usage: engramlab list")) and len(line.split()) <= 3
            assert len(line) <= 80 or whole, (words, line)


def test_an_experiment_s_help_begins_with_few_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name in experiments.names():
        brief, whole = helped(capsys, "run", name, "--help"), helped(capsys, "run", name, "--help-all")
        shown = [line for line in brief.splitlines() if line.startswith("  --")]
        assert 8 <= len(shown) <= 16
        assert "--help-all" in brief
        assert f"usage: engramlab run {name}" in brief
        written = {line.split()[0] for line in whole.splitlines() if line.startswith("  --")}
        assert {line.split()[0] for line in shown} <= written
        assert len(written) > len(shown)


def test_every_option_that_help_shows_is_one() -> None:
    for name in experiments.names():
        module = experiments.load(name)
        for preset in module.PRESETS.values():
            for option in _help._options(module.Config, preset, False):
                if not option.value:  # a flag, by its place in the tree: front.no-name
                    made = parse(module.Config, "x", [option.name], default=preset)
                    for part in option.field.split("."):
                        made = getattr(made, part)
                    assert made is not (".no-" in option.name or option.name.startswith("--no-"))


def test_every_option_is_explained() -> None:
    for name in experiments.names():
        config = next(iter(experiments.load(name).PRESETS.values()))
        for option in _help._options(type(config), config, False):
            assert option.text.split(" [")[0], option.name


def test_defaults_types_and_needs() -> None:
    @dataclasses.dataclass
    class Made:
        needed: int
        path: Path | None = None
        several: tuple[int | str, ...] = (1, 2)

    lines = [" ".join(line.split()) for one in _help._options(Made, None, False) for line in one.lines(80)]
    assert lines == ["--needed N (needed)", "--path PATH", "--several N|TEXT ... [1 2]"]


def test_probe_speaks_of_the_user_s_table(capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(capsys, "probe", "--help")
    assert said.startswith("usage: engramlab probe ")
    assert "bioS" not in said
    assert "table" in said.split("options")[0] or "TABLE" in said


def test_plan_and_run_list_the_options_they_take_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "--out FILE" in helped(capsys, "plan", "--help")
    said = helped(capsys, "run", "knowledge-extraction", "--help")
    assert "--out DIR" in said
    assert "--preset NAME" in said
    assert all(f" {name}" in said for name in knowledge_extraction.PRESETS)
    assert all(len(line) <= 80 for line in said.splitlines())


def test_list_takes_what_to_list_or_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = helped(capsys, "list", "methods")
    assert "rome" in said
    assert "couple" not in said
    assert "did you mean 'methods'" in refused(capsys, "list", "method")


def test_lists_of_numbers_and_of_choices_take_commas_or_spaces() -> None:
    config = parse(knowledge_editing.Config, "x", ["--counts", "1,10,100", "--methods", "lora"])
    assert config.counts == (1, 10, 100)
    assert parse(knowledge_editing.Config, "x", ["--counts=100,1000"]).counts == (100, 1000)
    assert parse(knowledge_editing.Config, "x", ["--counts", "1,", "2"]).counts == (1, 2)
    assert parse(fact_lifecycle.Config, "x", ["--parts", "name,wordings"]).parts == ("name", "wordings")


def test_text_keeps_its_commas() -> None:
    found = parse(EditOptions, "x", ["--target", "1,000", "--aliases", "Washington, D.C.", "1,5"])
    assert found.target == "1,000"
    assert found.aliases == ("Washington, D.C.", "1,5")
