"""The page of all commands, from their --help.

python docs/commands.py --write
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest.mock import patch

PAGE = Path(__file__).parent / "reference" / "commands.md"


def commands() -> list[tuple[str, ...]]:
    """The words of every command, and of those that have commands or experiments below them."""
    from engramlab import cli, experiments
    from engramlab.base import registry

    below = [("corpus", name) for name in ("bios", "bior", "tables", "passages")]
    return [(), *((name,) for name in registry.names(cli)), *below, *(("run", name) for name in experiments.names())]


def said(words: tuple[str, ...]) -> str:
    """What ``engramlab WORDS --help`` (of an experiment or corpus ``--help-all``) prints, at 100 columns, without colours."""
    from engramlab.cli import main

    out = io.StringIO()
    plain = patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"})
    with plain, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help-all" if len(words) > 1 else "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [
        "# Commands\n\nDrawn from `--help` of each; of experiments from `--help-all`, as `--help` shows fewer options.\n"
    ]
    for words in commands():
        name = " ".join(("engramlab", *words))
        parts.append(f"## `{name}`\n\n```text\n{said(words)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = page()
    if "--write" in sys.argv:
        PAGE.write_text(text)
    else:
        print(text)
