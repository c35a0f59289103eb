"""The page of all commands, drawn from their docstrings: ``python docs/commands.py --write`` renews it."""

from __future__ import annotations

import sys
from pathlib import Path

from engramlab import cli
from engramlab.base import registry

PAGE = Path(__file__).parent / "reference" / "commands.md"


def page() -> str:
    """The page; every command's `--help` also lists its options."""
    parts = ["# Commands\n\n`engramlab COMMAND --help` says this and lists every option with its default.\n"]
    for name in registry.names(cli):
        first, _, text = (registry.load(cli, name, "command").__doc__ or "").partition("\n\n")
        parts.append(f"## {name}\n\n```text\n{first.strip()}\n\n{text.strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    else:
        print(page())
