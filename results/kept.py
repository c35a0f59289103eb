"""What is kept under results/, and Markdown made of it: shared by the tables of every line of research."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Kept = tuple[dict[str, Any], dict[str, Any]]  # a run's summary and config


def load(name: str) -> Kept:
    folder = HERE / name
    # Runs spell the protocol in two ways; the tables are named after the older one.
    text = (folder / "summary.json").read_text().replace('"teacher_forced"', '"teacher-forced"')
    return json.loads(text), json.loads((folder / "config.json").read_text())


ABSENT = "*Not measured yet.*"


def if_kept(draw: Callable[..., str], *names: str) -> str:
    """A table of runs that may not have been made yet."""
    return draw(*names) if all((HERE / name / "summary.json").exists() for name in names) else ABSENT


def if_any(draw: Callable[[], str], prefix: str) -> str:
    """A table of runs of which there may be none yet."""
    return draw() if kept(prefix) else ABSENT


def share(value: float) -> str:
    return f"{100 * value:.0f} %"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def kept(prefix: str) -> list[Kept]:
    return [load(path.name) for path in sorted(HERE.glob(f"{prefix}*"))]


def made_by(found: list[Kept]) -> str:
    """The commands and commits of some runs, folded: in a README nobody scrolls past ten commands to the next line."""
    commands = "<br>".join(f"<code>{config['command']}</code>" for _, config in found)
    commits = ", ".join(sorted({config["commit"] for _, config in found}))
    gpus = ", ".join(sorted({gpu for _, config in found if (gpu := config.get("versions", {}).get("gpu"))}))
    where = f", on a GPU: {gpus}" if gpus else ""
    return f"<details><summary>Commands; engramlab {commits}{where}</summary>{commands}</details>"


def table(heads: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|", *("| " + " | ".join(r) + " |" for r in lines)]


def interval(row: dict[str, Any], name: str, digits: int = 2) -> str:
    """A value with its 95 % interval."""
    if row.get(name) is None:
        return "–"
    return f"{row[name]:.{digits}f} [{row[name + '_low']:.{digits}f}, {row[name + '_high']:.{digits}f}]"
