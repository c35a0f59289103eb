"""compare RUN RUN             two audits of the same facts side by side: what the second model won and lost

usage: engramlab compare RUN RUN [options]

Takes two finished runs of engramlab audit on one table, and shows fact by fact what became of it: a table of classes, an exact
test for each depth, and the facts that moved. Facts that either model may have guessed are left out. To ask both models in one
run, and have it on a page, use engramlab audit --beside.

    engramlab audit --model MODEL --facts countries.csv --out runs/before
    engramlab audit --model edited/ --facts countries.csv --out runs/after
    engramlab compare runs/before runs/after
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse


@dataclass(frozen=True)
class CompareOptions:
    """Options of ``engramlab compare``."""

    runs: tuple[Path, Path]
    """Two runs of engramlab audit."""
    most: int = 20
    """Facts won and lost that are listed, each."""
    json: bool = False
    """Print everything as one JSON object instead."""


def main(given: list[str]) -> None:
    """Compares and prints."""
    about = help_of(__doc__)
    options = parse(CompareOptions, "compare", given or ["--help"], positional=True, description=about)
    from engramlab.experiments.fact_audit.work import comparison

    one, other = map(_facts, options.runs)
    found = comparison(one, other)
    if options.json:
        import json

        print(json.dumps(found, ensure_ascii=False))
        return
    _show(found, options.runs, options.most)


def _facts(folder: Path) -> list[dict[str, Any]]:
    """The facts of a run's own model with their classes."""
    from engramlab.files import records
    from engramlab.files.writing import name_of

    if not (folder / "summary.json").is_file():
        raise UserError(f"{folder} is no finished run: give two runs of engramlab audit")
    summary = records.read_record(folder / "summary.json", ("experiment",))
    if summary["experiment"] != "fact-audit":
        raise UserError(f"{folder} is a run of {summary['experiment']!r}: give two runs of engramlab audit")
    relations = [row["relation"] for row in summary["rows"] if not row["part"]]
    return [
        fact
        for name in relations
        for fact in records.read_record(folder / "relations" / name_of(name) / "done.json", ("facts",))["facts"]
    ]


def _show(found: dict[str, Any], runs: tuple[Path, Path], most: int) -> None:
    from engramlab.base.terminal import Console
    from engramlab.measuring.audit import CLASSES
    from engramlab.report import print_tables
    from engramlab.report.parts.blocks import Table
    from engramlab.report.parts.words import short

    one, other = (run.resolve().name for run in runs)
    tables = [
        Table(
            [one, *CLASSES],
            [[name, *map(str, line)] for name, line in zip(CLASSES, found["classes"], strict=True)],
            f"{found['facts']} facts by class in {one} (rows) and {other} (columns)",
            numbers_from=1,
        ),
        Table(
            ["at least", "won", "lost", "p"],
            [[t["at_least"], str(t["won"]), str(t["lost"]), short(t["p"])] for t in found["tests"]],
            "Exact test (McNemar)",
            numbers_from=1,
        ),
    ]
    columns = ("subject", "relation", "object", "from", "to")
    for name in ("won", "lost"):
        if found[name]:
            rows = [[str(row[k]) for k in columns] for row in found[name][:most]]
            tables.append(Table(columns, rows, f"{name}: {len(found[name])} facts"))
    print_tables(tables, Console())
