"""report RUN [RUN ...]       one HTML page about a run, or about several side by side

One self-contained HTML page about one run or several side by side. It opens from a file, without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse
from engramlab.files.locks import place


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab report``."""

    runs: tuple[Path, ...]
    """Run folders."""
    out: Path | None = None
    """Where to write the page; by default report.html in the first run's folder, or report.html here for several."""


def main(given: list[str]) -> None:
    """Writes the page and prints where it is."""
    from engramlab.report import write_report

    options = parse(Options, "report", given, positional=True, description=help_of(__doc__))
    if not options.runs:
        raise UserError("engramlab report needs at least one run folder, for example engramlab report runs/demo")
    first = options.runs[0] / "report.html" if len(options.runs) == 1 else Path("report.html")
    print(write_report(options.runs, place(options.out or first, folder=False)).resolve())
