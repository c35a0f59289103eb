"""The sections of a sweep's report: the paper's main figure, a map by attribute, and Q-probing against extraction.

Everything is read from the sweep's own `summary.json`; the cells are ordinary run folders with reports of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from engramlab.base.rows import ATTRIBUTES
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, escaped, percent, share_axes, style
from engramlab.report.parts.paper import SOURCE, Published, published
from engramlab.report.parts.words import TARGETS, duration, ranged
from engramlab.report.rows import Row, RunData, distinct, number, words

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "x", "cross")
_LISTED = 200  # rows of a table of means of another experiment


def headline(runs: Sequence[RunData]) -> str:
    """How many cells are done, and the best and the worst dataset."""
    return " ".join(_headline(run) for run in runs)


def _headline(run: RunData) -> str:
    cells = run.summary.get("cells", [])
    if not cells:
        return f"{run.name} is unfinished."
    done, failed = ([cell["cell"] for cell in cells if cell["state"] == state] for state in ("done", "failed"))
    text = f"{len(done)} of {len(cells)} cells of {run.summary.get('of')} are done"
    text += f"; failed: {', '.join(failed)}" if failed else ""
    extraction = sorted(_extraction(run), key=lambda row: -row["exact_match"])
    if extraction:
        best, worst = extraction[0], extraction[-1]
        text += (
            f"; held-out questions answered exactly: {best['dataset']} {percent(best['exact_match'])}, {worst['dataset']} "
            f"{percent(worst['exact_match'])}"
        )
    for row in run.summary.get("correlations", []):
        if row["rho"] is not None:
            text += f"; {_rho(row)}"
    return text + "."


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything a sweep has to show, in reading order."""
    found: list[Section] = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        if _extraction(run):
            found += [_main_figure(run, of), _map(run, of)]
        elif run.summary:
            found.append(_means(run, of))
        if run.summary.get("points"):
            found.append(_probing(run, of))
        found.append(_cells(run, of))
    return found


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """Tables for the terminal: P_test by dataset beside the paper's, or the means of another experiment, and the cells."""
    run = RunData(Path(), "", summary=dict(summary))
    tables = [_beside(run)] if _extraction(run) else []
    correlations = [row for row in summary.get("correlations", []) if row["rho"] is not None]
    if correlations:
        cells = [
            [TARGETS.get(r["target"], r["target"]), str(one["points"]), ranged(one, "rho", 3, "")]
            for r in correlations
            for one in (r, r.get("by_dataset"))
            if one and one["rho"] is not None
        ]
        title = "Q-probing and extraction over datasets and attributes, and over datasets alone"
        tables.append(Table(["target", "points", "Spearman's rho"], cells, title, numbers_from=1))
    states = distinct(cell["state"] for cell in summary["cells"])
    counts = [[state, str(sum(cell["state"] == state for cell in summary["cells"]))] for state in states]
    return [*tables, Table([f"cells of {summary.get('of')}", ""], counts, "Sweep", numbers_from=1)]


def _extraction(run: RunData, attribute: str = "mean") -> list[Row]:
    """Means of P_test exact match, one row a dataset and mode, in the order of the sweep."""
    return [
        row
        for row in run.summary.get("means", [])
        if (row.get("group"), row.get("attribute")) == ("test", attribute)
        and number(row.get("exact_match")) is not None
    ]


def _paper(run: RunData, row: Row) -> Published | None:
    """The published figure for the same texts and training; None for people other than the paper's."""
    asked = {str(one.get("attribute")) for one in run.summary.get("means", [])} - {"mean"}
    return published(row["dataset"], str(row.get("mode", "finetune"))) if asked <= set(ATTRIBUTES) else None


def _spread(row: Row, name: str = "exact_match") -> str:
    text = percent(row[name])
    return text if row["seeds"] == 1 else f"{text} ({100 * row[name + '_low']:.1f}–{100 * row[name + '_high']:.1f})"


def _main_figure(run: RunData, of: str) -> Section:
    groups = []
    for row in _extraction(run):
        low, high = (row["exact_match_low"], row["exact_match_high"]) if row["seeds"] > 1 else (None, None)
        members = [Bar("this sweep", row["exact_match"], PALETTE[0], low, high, hover=_spread(row))]
        if paper := _paper(run, row):
            hover = f"{percent(paper.exact_match)} ({paper.source})"
            members.append(Bar("paper", paper.exact_match, GREY, published=True, hover=hover))
        groups.append((row["dataset"], members))
    figure = bars(groups, "questions answered exactly", bar="P_test", paper=f"P_test in the paper ({SOURCE})")
    seeds = max(row["seeds"] for row in _extraction(run))
    note = (
        f"Mean over {seeds} seeds, whiskers the lowest and the highest. " if seeds > 1 else ""
    ) + "The paper's are for N = 100k people and 124M parameters: compare the shape, not the numbers."
    return Section(f"Can it be asked? P_test by dataset{of}", [Figures([("", figure)], note), _beside(run)])


def _beside(run: RunData) -> Table:
    rows = []
    train = {
        (row["dataset"], row.get("mode")): row
        for row in run.summary["means"]
        if (row.get("group"), row.get("attribute")) == ("train", "mean")
    }
    for row in _extraction(run):
        paper, seen = _paper(run, row), train.get((row["dataset"], row.get("mode")))
        sd = row.get("exact_match_sd")
        rows.append(
            [
                *(row["dataset"], str(row.get("mode", "")), str(row["seeds"])),
                _spread(seen) if seen else "–",
                _spread(row),
                "–" if sd is None else f"{100 * sd:.1f}",
                percent(paper.exact_match) if paper else "–",
            ]
        )
    columns = ["dataset", "mode", "seeds", "P_train", "P_test", "P_test sd", "paper, P_test"]
    caption = (
        f"Exact match: mean over seeds (lowest–highest), in percent; the paper's: {SOURCE}, N = 100k, 124M parameters"
    )
    return Table(columns, rows, caption, numbers_from=2)


def _map(run: RunData, of: str) -> Section:
    attributes = [a for a in distinct(row.get("attribute") for row in run.summary["means"]) if a != "mean"]
    rows = _extraction(run)
    values = [
        [next((r["exact_match"] for r in _extraction(run, a) if _same(r, row)), None) for a in [*attributes, "mean"]]
        for row in rows
    ]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if v is None else 100 * v for v in line] for line in values],
            x=[words(a) for a in [*attributes, "mean"]],
            y=[escaped(row["dataset"]) for row in rows],
            text=[["" if v is None else f"{100 * v:.0f}" for v in line] for line in values],
            texttemplate="%{text}",
            zmin=0,
            zmax=100,
            colorscale="Blues",
            colorbar={"ticksuffix": " %", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:.1f} %<extra></extra>",
        )
    )
    style(figure, height=26 * len(rows) + 110)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showgrid=False)
    note = "Held-out people (P_test), percent of questions answered exactly, mean over seeds."
    return Section(f"Exact match by dataset and attribute{of}", [Figures([("", figure)], note)])


def _same(one: Row, other: Row) -> bool:
    return (one["dataset"], one.get("mode")) == (other["dataset"], other.get("mode"))


def _rho(row: Row) -> str:
    what = TARGETS.get(row["target"], row["target"])
    return f"Spearman's rho of {what} Q-probing and extraction {ranged(row, 'rho', 3, '')}"


def _probing(run: RunData, of: str) -> Section:
    blocks: list[Block] = []
    for row in run.summary["correlations"]:
        what = TARGETS.get(row["target"], row["target"])
        chosen = [point for point in run.summary["points"] if point["target"] == row["target"]]
        note = f"{row['points']} points, one a dataset and attribute, means over seeds." + (
            f" {_rho(row)}: 95 % percentile bootstrap over points." if row["rho"] is not None else ""
        )
        averaged = row.get("by_dataset")
        if averaged and averaged["rho"] is not None:
            note += f" Over the {averaged['points']} datasets, attributes averaged: {ranged(averaged, 'rho', 3, '')}."
        blocks.append(Figures([("", _cloud(chosen, what))], note))
    return Section(f"Where the knowledge sits: Q-probing against extraction{of}", blocks)


def _cloud(points: Sequence[Row], what: str) -> go.Figure:
    """A mark a dataset and attribute; colour and shape tell the attribute, the hover text the dataset."""
    figure = go.Figure()
    looks = zip(cycle(PALETTE), cycle(_SYMBOLS), strict=True)
    for attribute, (colour, symbol) in zip(distinct(point["attribute"] for point in points), looks, strict=False):
        members = [point for point in points if point["attribute"] == attribute]
        name = escaped(words(attribute))
        figure.add_scatter(
            x=[100 * point["accuracy"] for point in members],
            y=[100 * point["extraction"] for point in members],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertext=[
                f"{escaped(p['dataset'])}, {name}: {percent(p['accuracy'])}, {percent(p['extraction'])}"
                for p in members
            ],
            hoverinfo="text",
        )
    return share_axes(figure, f"Q-probing accuracy, {what}", f"extraction on P_test, {what}", height=460)


def _means(run: RunData, of: str) -> Section:
    rows = run.summary.get("means", [])
    columns = [c for c in distinct(key for row in rows for key in row) if not c.endswith(("_low", "_high", "_sd"))]
    cells = [[_cell(row, column) for column in columns] for row in rows[:_LISTED]]
    more = f" The first {_LISTED} of {len(rows)} rows; all are in summary.json." if len(rows) > _LISTED else ""
    table = Table(columns, cells, f"Means over seeds (lowest–highest).{more}")
    return Section(f"Measurements{of}", [table] if cells else [])


def _cell(row: Row, column: str) -> str:
    value = row.get(column, "–")
    if not isinstance(value, float):
        return str(value)
    spread = f" ({row[column + '_low']:.4g}–{row[column + '_high']:.4g})" if row["seeds"] > 1 else ""
    return f"{value:.4g}{spread}"


def _cells(run: RunData, of: str) -> Section:
    cells = run.summary.get("cells", [])
    rows = [[c["cell"], c["state"], duration(c.get("seconds")), c.get("error") or ""] for c in cells]
    if not rows:
        return Section(f"Cells{of}", [Text("The sweep is unfinished; the same command goes on with it.")])
    return Section(f"Cells{of}", [Table(["cell", "state", "training time", "what went wrong"], rows)])
