"""What the command line prints never steers the terminal."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import engramlab
from engramlab import cli
from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.base.terminal import Console, visible

HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9bd\rE\u202ef"


def harmless(said: str) -> bool:
    return not any(letter in said for letter in "\x07\x9b\r\u202e") and "\x1b]" not in said and "\x1b[2J" not in said


def test_control_characters_are_shown() -> None:
    assert visible("two\nlines\tand Tōkyō") == "two\nlines\tand Tōkyō"
    assert visible(HOSTILE) == r"a\x1b]0;owned\x07b\x1b[2Jc\x9bd\x0dE\u202ef"
    assert visible("half \ud800") == r"half \ud800"


def test_tables_lines_and_bars_show_them_and_keep_their_own_colours() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=200)
    table = Table("prompt", title=Text(HOSTILE))
    table.add_row(Text(HOSTILE, style="red"))

    def bar() -> None:
        with ProgressBar(HOSTILE, 1, console=console) as shown:
            shown.update(1, HOSTILE)

    # Title and cell, the line, label and note of the bar: how often a bar is drawn is up to the clock.
    for show, least in (
        (lambda: console.print(table), 2),
        (lambda: console.print(HOSTILE, markup=False, highlight=False), 1),
        (bar, 1),
    ):
        start = len(out.getvalue())
        show()
        assert out.getvalue()[start:].count(r"\x1b]0;owned") >= least
    said = out.getvalue()
    assert "\x1b[31m" in said
    assert "\x1b]" not in said
    assert "\x07" not in said
    assert "\x1b[2J" + "c" not in said
    assert "\u202e" not in said


@pytest.mark.parametrize("ends", [False, True])
def test_whatever_a_command_prints(
    ends: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printing(given: list[str]) -> None:
        print(HOSTILE)
        Console().print(Text(HOSTILE))
        if ends:
            raise UserError(f"file.csv: {HOSTILE}")

    monkeypatch.setattr(registry.load(cli, "version", "command"), "main", printing)
    if ends:
        with pytest.raises(SystemExit):
            cli.main(["version"])
    else:
        cli.main(["version"])
    said = capsys.readouterr()
    assert harmless(said.out)
    assert r"\x1b]0;owned\x07" in said.out
    assert harmless(said.err)
    assert ends == (r"\x1b]0;owned\x07" in said.err)


def test_edits_with_hostile_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    from engramlab.cli import _edit_tables as tables

    row = {
        "role": "reliability",
        "group": "",
        "prompt": HOSTILE,
        "target": HOSTILE,
        "written_before": HOSTILE,
        "written_after": HOSTILE,
        "logprobs_before": [-1.0],
        "logprobs_after": [-0.5],
        "tokens": 1,
        "generated": True,
        "aliases": [],
    }
    tables.show_edit([row], [HOSTILE], [HOSTILE], "ft-m")
    said = capsys.readouterr().out
    assert harmless(said)
    assert r"\x1b" in said


def test_only_one_console_is_made() -> None:
    """Every console is that of base/terminal, which shows control characters."""
    for path in Path(engramlab.__file__).parent.rglob("*.py"):
        made = any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
            for node in ast.walk(ast.parse(path.read_text()))
        )
        assert not made or "from engramlab.base.terminal import Console" in path.read_text(), path
