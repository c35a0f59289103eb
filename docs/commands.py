"""The page of all commands, from their --help.

python docs/commands.py --write
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reference" / "commands.md"
COMMANDS = (
    (),
    *((name,) for name in ("run", "sweep", "report", "corpus", "probe", "plan", "edit", "undo", "merge")),
    ("corpus", "bios"),
    ("corpus", "tables"),
    ("corpus", "passages"),
    *(("run", f"knowledge-{name}") for name in ("extraction", "acquisition", "editing", "capacity")),
    ("run", "hidden-state-probing"),
    ("run", "token-overfitting"),
)


def said(words: tuple[str, ...]) -> str:
    """What ``engramlab WORDS --help`` prints, at 100 columns, without colours."""
    from engramlab.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    parts = ["# Commands\n\nDrawn from `--help` of each.\n"]
    for words in COMMANDS:
        name = " ".join(("engramlab", *words))
        parts.append(f"## `{name}`\n\n```text\n{said(words)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    text = page()
    if "--write" in sys.argv:
        PAGE.write_text(text)
    else:
        print(text)
