"""Finds a command, runs it, and says how it ended."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engramlab import cli
from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.interrupts import terminable
from engramlab.base.terminal import guarded, visible
from engramlab.cli._help import Option, columns, paragraphs

_START = """engramlab: how language models store, acquire and edit facts

usage: engramlab COMMAND ...

commands
"""
_END = """First steps:

    engramlab run knowledge-extraction --preset tiny --out runs/demo
    engramlab edit --model MODEL --prompt "The capital of France is" --subject France --target Rome --out edited/
    engramlab example facts > my_facts.csv
    engramlab audit --quick --model MODEL --facts my_facts.csv

engramlab COMMAND --help says what a command does and shows its options.
"""


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Inside the block the package's own warnings are lines of the command line, without the file that gives them."""
    usual, own = warnings.showwarning, str(Path(cli.__file__).parents[1])

    def shown(message: Warning | str, category: type[Warning], filename: str, *more: Any, **others: Any) -> None:
        if category is UserWarning and filename.startswith(own):
            print(f"engramlab: note: {message}", file=sys.stderr)
        else:
            usual(message, category, filename, *more, **others)

    with warnings.catch_warnings():
        warnings.showwarning = shown
        yield


@_notes()
def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 a cell of a sweep failed, 2 something the user can put right (one line says what),
    130 interrupted, 143 told to end (SIGTERM), 141 nobody reads the output any more."""
    name, *given = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    module = None
    try:
        if name in ("-h", "--help", "help"):
            print(_help())
            return
        module = registry.load(cli, "version" if name == "--version" else name, "command")
        with terminable(), guarded():
            module.main(given)
    except UserError as error:
        print(f"engramlab: {visible(str(error)).removeprefix('engramlab ')}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        goes_on = getattr(module, "GOES_ON", False)
        more = "the same command goes on from the last checkpoint" if goes_on else "nothing is half written"
        if str(stop):
            more = f"{stop}; the same command goes on from there"
        print(f"\nengramlab: interrupted; {more}", file=sys.stderr)
        sys.exit(getattr(stop, "code", 130))
    except BrokenPipeError:  # whoever read our output has had enough of it, as in `engramlab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush is quiet too
        sys.exit(141)


def _help() -> str:
    """The first paragraphs of all commands' docstrings, in two columns."""
    lines: list[str] = []
    for name in registry.names(cli):
        first = (registry.about(cli, name) or name).split("\n\n")[0]
        for line in first.strip().splitlines():
            usage, _, about = line.partition("  ")
            lines += Option(usage.strip(), "", about.strip()).lines(columns(), at=30)
    return _START + "\n".join([*lines, "", *paragraphs(_END, columns())])
