"""Write the report of one or several runs as one HTML file that works offline.

An experiment adds its part by the file name: `report/experiments/knowledge_extraction.py` serves runs whose config names
the experiment `knowledge-extraction`, through `headline(runs) -> str` and `sections(runs) -> list[Section]`, and says in
`NEEDS` what it takes from a summary without asking (see `shapes`); `READING`, if it has it, says how to read the page. Runs of
an experiment without such a file still get their rows, curves and config.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly import graph_objects as go

import engramlab.report.experiments as package
from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.base.rows import Row
from engramlab.files.writing import write_text
from engramlab.report import shapes
from engramlab.report.alike import differences, strip
from engramlab.report.parts.blocks import Block, Details, Figures, Section, Table, Text
from engramlab.report.parts.figures import described
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.words import duration
from engramlab.report.rows import RunData, distinct, number, pretty, read_runs

#: plotly.js with the charts of two axes alone (npm: plotly.js-cartesian-dist-min), compressed: a page carries it all. It has
#: everything that the figures made here use, in a ninth of the room of the whole library.
PLOTLY = "plotly-cartesian-4.1.1.min.js.gz"
_ANY = {"rows": shapes.Maybe([dict]), "training": shapes.Maybe([dict])}  # of every summary


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Read the run folders and write one self-contained HTML file, whole or not at all; returns `out`.

    Raises:
        UserError: a folder is missing, holds no run or a broken file, or `out` cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"report file {out} is a folder: give a file name, such as {out / 'report.html'}")
    page = render(read_runs(runs))
    # A lone half of a surrogate pair, which JSON can carry, has no UTF-8; it becomes a question mark.
    write_text(out, page.encode("utf-8", errors="replace").decode())
    return out


def render(runs: Sequence[RunData]) -> str:
    """The whole page as a string."""
    headlines: list[tuple[str, str]] = []
    sections: list[Section] = []
    for experiment in distinct(run.experiment for run in runs):
        members = [run for run in runs if run.experiment == experiment]
        module = sections_module(experiment)
        if unlike := differences(members):
            sections.append(Section("Runs beside each other", unlike))
        for run in members:
            check(module, run.summary, run.path / "summary.json")
        if module is not None:
            headlines.append((module.headline(members), getattr(module, "READING", "")))
            sections += module.sections(members)
        else:
            sections += any_experiment(members)
    notes = [note for run in runs for note in run.notes]
    names = distinct(run.experiment or "run" for run in runs)
    sections = [*_filled(sections), *(provenance(run) for run in runs)]
    return _template().render(
        title=", ".join(names).replace("-", " ").capitalize() + ": " + ", ".join(run.name for run in runs),
        headlines=headlines,
        notes=notes,
        strips=[(run.name if len(runs) > 1 else "", strip(run)) for run in runs],
        sections=sections,
        drawn=any(isinstance(block, Figures) for section in sections for block in section.blocks),
        plotlyjs=Markup(plotly()),
    )


@cache
def _template() -> Template:
    """The page's template; compiled once, which takes longer than filling it."""
    environment = Environment(
        loader=PackageLoader("engramlab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"described": described, "figure_json": figure_json, "data_json": data_json}
    return environment.get_template("page.html.j2")


@cache
def plotly() -> str:
    """The library that draws the figures, in base64."""
    packed = resources.files("engramlab.report").joinpath("templates", PLOTLY).read_bytes()
    return base64.b64encode(packed).decode()


def check(module: ModuleType | None, summary: Mapping[str, Any], path: Path) -> None:
    """Raises UserError, naming file and key, where a summary lacks what its page needs; before a run ends it lacks nothing."""
    shapes.check(summary, _ANY, path)
    if set(summary) - {"experiment"}:
        shapes.check(summary, getattr(module, "NEEDS", {}), path)


def _filled(sections: Sequence[Section]) -> list[Section]:
    """The sections that have something to show, and behind them what was left out and why."""
    empty: dict[str, list[str]] = {}
    for section in sections:
        if not section.blocks:
            empty.setdefault(section.missing, []).append(section.title)
    said: list[Block] = [Text(f"{why} ({'; '.join(titles)})") for why, titles in empty.items()]
    left = [Section("Not on this page", said)] if said else []
    return [*(section for section in sections if section.blocks), *left]


def sections_module(experiment: str) -> ModuleType | None:
    """The module that serves an experiment, or None. Only files of this folder are imported."""
    if experiment not in registry.names(package):
        return None
    module = registry.load(package, experiment, "report")
    return module if hasattr(module, "headline") and hasattr(module, "sections") else None


def any_experiment(runs: Sequence[RunData]) -> list[Section]:
    """What can be shown of runs whose experiment has no sections of its own: rows and training."""
    tables = every_row([row for run in runs for row in run.rows])
    return [Section("Measurements", tables, missing(runs)), training_section(runs)]


def every_row(rows: Sequence[Row]) -> list[Table]:
    """Rows as they are: a table of all their columns; none without rows."""
    columns = [column for column in distinct(key for row in rows for key in row) if column != "label"]
    return [Table(columns, [[_cell(row.get(column, "–")) for column in columns] for row in rows])] if rows else []


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def provenance(run: RunData) -> Section:
    """What would be needed to do the run again."""
    config, seconds = run.config, number(run.summary.get("seconds"))
    nested = config.get("config")
    seed = run.summary.get("seed", nested.get("seed") if isinstance(nested, dict) else None)
    versions = config.get("versions")
    facts = {
        "command": config.get("command"),
        "preset": config.get("preset"),
        "seed": seed,
        "created": config.get("created"),
        "time": duration(seconds) if seconds is not None else None,
        "commit": config.get("commit"),
        "folder": run.path,
        **(versions if isinstance(versions, dict) else {"versions": versions}),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    blocks: list[Block] = [Table(["", ""], rows)]
    if nested:
        blocks.append(Details("Config, as resolved", pretty(nested)))
    else:
        blocks.append(Text("The run folder holds no config."))
    return Section(f"How run {run.name} was made", blocks)


def figure_json(figure: go.Figure) -> Markup:
    """A figure as JSON that may stand inside a script element: no character in it can end the element."""
    return _inside_script(figure.to_json() or "{}")


def data_json(value: object) -> Markup:
    """A plain value as JSON that may stand inside a script element."""
    return _inside_script(json.dumps(value, separators=(",", ":"), allow_nan=False))


def _inside_script(text: str) -> Markup:
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
