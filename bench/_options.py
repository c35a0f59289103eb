"""What benches share: their options, and the rows of the table that ``run_all.py`` makes of them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from engramlab.files.runs import git_commit, versions


def options(doc: str | None, **defaults: object) -> argparse.Namespace:
    """What the command line says, or else the defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args()


def compared(
    what: str,
    ours: str,
    beside: str,
    ratio: float,
    aim: float | None = None,
    why: str = "",
    bound: float | None = None,
) -> None:
    """A row of the table of all benches, if ``run_all.py`` asks for rows (by a file that $ENGRAMLAB_BENCH names).

    Args:
        ratio: how many times less ours costs.
        aim: the ratio aimed at, if there is one.
        why: arithmetic that says what can be had.
        bound: the ratio that it says this machine allows at most.
    """
    row: dict[str, Any] = {"what": what, "ours": ours, "beside": beside, "ratio": round(float(ratio), 2), "aim": aim}
    row |= {"why": why, "bound": bound}
    if file := os.environ.get("ENGRAMLAB_BENCH"):
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


def kept(path: Path, **figures: Any) -> None:
    """Figures as JSON, with what a reader needs to make them again: versions, the GPU, commit and command."""
    command = shlex.join(["python", *sys.argv])
    made = {"versions": versions(), "commit": git_commit(), "command": command, **figures}
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
