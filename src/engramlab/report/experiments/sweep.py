"""The sections of a sweep's report: the paper's main figure, a map by attribute, and Q-probing against extraction.

Everything is read from the sweep's own `summary.json`; the cells are ordinary run folders with reports of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.extraction_rows import ABOVE, NOT_RECORDED, ExtractionRows, Key
from engramlab.report.parts.figures import GREY, PALETTE, Bar, Line, bars, curves, draw, escaped, percent, share_axes
from engramlab.report.parts.maps import COLOURS
from engramlab.report.parts.paper import SOURCE, Published, made_with
from engramlab.report.parts.verdicts import of_seeds
from engramlab.report.parts.words import TARGETS, duration, fixed, ranged
from engramlab.report.rows import Row, RunData, distinct, label, number, words
from engramlab.report.shapes import Maybe

_CORRELATION = {"points": float, "rho": Maybe(float)}
#: Of a summary.
NEEDS = {
    "cells": Maybe([{"cell": str, "state": str}]),
    "means": Maybe([{"seeds": float, "dataset": Maybe(str), "mode": Maybe(str), "attribute": Maybe(str)}]),
    "points": Maybe([{"target": str, "dataset": str, "attribute": str, "accuracy": float, "extraction": float}]),
    "correlations": Maybe([{"target": str, **_CORRELATION, "by_dataset": Maybe(_CORRELATION)}]),
}
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "x", "cross")
_LISTED = 200  # rows of a table of means of another experiment
_PRINTED = 40  # of them in a terminal
READING = (
    "Each cell is a run of its own; cells of a dataset differ in seed alone and are averaged. Read a share beside its interval "
    "and, where it is recorded, beside what the commonest values would have."
)


def headline(runs: Sequence[RunData]) -> str:
    """How many cells are done, and the best and the worst dataset."""
    return " ".join(_headline(run) for run in runs)


def _headline(run: RunData) -> str:
    cells = run.summary.get("cells") or []
    if not cells:
        return f"{run.name} is unfinished."
    done, failed = ([cell["cell"] for cell in cells if cell["state"] == state] for state in ("done", "failed"))
    text = f"{len(done)} of {len(cells)} cells of {run.summary.get('of')} are done"
    text += f"; failed: {', '.join(failed)}" if failed else ""
    measured = _extraction(run.summary)
    ranking = measured.ranking()
    shares = [(measured.name(key), measured.spread(key, "test"), measured.judged(key)) for key in ranking]
    if shares:
        each = [
            f"{name} {percent(share.mean)} ({share.ends()})"
            + ("" if judged in (ABOVE, NOT_RECORDED) else f", {judged}")
            for name, share, judged in distinct([shares[0], shares[-1]])
            if share is not None
        ]
        text += f"; held-out questions answered exactly: {', '.join(each)}"
    for row in run.summary.get("correlations") or []:
        if row.get("rho") is not None:
            text += f"; {_rho(row)}"
    return text + "."


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything a sweep has to show, in reading order."""
    found: list[Section] = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        if _extraction(run.summary).ranking():
            found += [_main_figure(run, of), *_over(run, of), _map(run, of)]
        elif run.summary:
            found.append(_means(run, of))
        if run.summary.get("points"):
            found.append(_probing(run, of))
        found.append(_cells(run, of))
    return found


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """Tables for the terminal: P_test by dataset beside the paper's, or the means of another experiment, and the cells."""
    run = RunData(Path(), "", summary=dict(summary))
    tables = [_beside(run, "Exact match, mean over seeds; chance: P_train's commonest value")]
    tables = tables if tables[0].rows else _told(run)
    correlations = [row for row in summary.get("correlations") or [] if row.get("rho") is not None]
    if correlations:
        cells = [
            [TARGETS.get(r["target"], r["target"]), str(one["points"]), ranged(one, "rho", 3, "")]
            for r in correlations
            for one in (r, r.get("by_dataset"))
            if one and one.get("rho") is not None
        ]
        title = "Q-probing and extraction over datasets and attributes, and over datasets alone"
        tables.append(Table(["target", "points", "Spearman's rho"], cells, title, numbers_from=1))
    states = distinct(cell["state"] for cell in summary.get("cells") or [])
    counts = [[state, str(sum(cell["state"] == state for cell in summary.get("cells") or []))] for state in states]
    return [*tables, Table([f"cells of {summary.get('of')}", ""], counts, "Sweep", numbers_from=1)]


def _extraction(summary: Mapping[str, Any]) -> ExtractionRows:
    """Exact match of all cells; those of a dataset (and value of what is swept over) differ in seed alone."""
    rows = [row for row in summary.get("rows") or [] if "cell" in row]
    return ExtractionRows(
        [{**row, "run": str(row["cell"]), "label": label(row.get("dataset"), row.get("family"))} for row in rows],
        {str(row["cell"]): str(row.get("over") or "") for row in rows},
    )


def _main_figure(run: RunData, of: str) -> Section:
    groups = []
    measured = _extraction(run.summary)
    for key in measured.ranking():
        test, train = measured.spread(key, "test"), measured.spread(key, "train")
        assert test is not None
        ring = train.mean if train else None
        bar = Bar("this sweep", test.mean, PALETTE[0], ring=ring, hover=f"{key.dataset}: {test}")
        members = [bar.judged(test.interval, test.chance)]
        if paper := _paper(measured, key):
            hover = f"{percent(paper.exact_match)} ({paper.source})"
            members.append(Bar("paper", paper.exact_match, GREY, published=True, hover=hover))
        groups.append((measured.name(key), members))
    figure = bars(
        groups,
        "questions answered exactly",
        bar="P_test",
        ring="P_train",
        paper=f"P_test in the paper ({SOURCE})",
        chance="always P_train's commonest value",
    )
    note = (
        "Mean over seeds, whiskers 95 % intervals, widened to the lowest and highest seed. P_test are held out: read about, "
        "never asked about in training. The paper's are for N = 100k people and 124M parameters, answers written with 4 beams: "
        "compare the shape, not the numbers."
    )
    return Section(f"Can it be asked? P_test by dataset{of}", [Figures([("", figure)], note), _beside(run)])


def _paper(measured: ExtractionRows, key: Key) -> Published | None:
    """The published figure, where it is for the values that the line's cells were swept over."""
    return measured.paper(key) if made_with(key.series) else None


def _over(run: RunData, of: str) -> list[Section]:
    """P_test against the one numeric option that is swept over, a line a dataset; nothing where there is none."""
    measured, colours = _extraction(run.summary), cycle(PALETTE)
    options = {key.series.partition("=")[0] for key in measured.ranking()}
    lines: list[Line] = []
    for name in distinct((key.dataset, key.mode) for key in measured.ranking()):
        points = sorted(
            (value, share.mean)
            for key in measured.ranking()
            if (key.dataset, key.mode) == name
            and (value := _number(key.series.partition("=")[2])) is not None
            and (share := measured.spread(key, "test")) is not None
        )
        if len(points) > 1:
            lines.append(Line(" · ".join(name), [x for x, _ in points], [y for _, y in points], next(colours)))
    if len(options) != 1 or not lines:
        return []
    option = words(options.pop().replace("-", "_"))
    figure = curves(lines, x=option, y="P_test, questions answered exactly", shares=True)
    return [Section(f"P_test by {option}{of}", [Figures([("", figure)], "Means over seeds.")])]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _beside(run: RunData, caption: str = "") -> Table:
    rows = []
    measured = _extraction(run.summary)
    for key in measured.ranking():
        test, paper = measured.spread(key, "test"), _paper(measured, key)
        assert test is not None
        chance = "–" if test.chance is None else percent(test.chance)
        shares = [str(measured.spread(key, "train") or "–"), str(test), test.ends(), chance]
        published = percent(paper.exact_match) if paper else "–"
        over = [key.series or "–"] if measured.several else []
        rows.append([key.dataset, key.mode, *over, str(test.runs), *shares, published, measured.judged(key)])
    columns = [
        "dataset",
        "mode",
        *(["swept"] if measured.several else []),
        "seeds",
        "P_train",
        "P_test",
        "95 %",
        "chance",
        "paper, P_test",
        "P_test is",
    ]
    caption = caption or (
        "Exact match, mean over seeds (lowest–highest), beside the chance level, the share that P_train's commonest value "
        f"would have; the paper's: {SOURCE}, N = 100k, 124M parameters"
    )
    return Table(columns, rows, caption, numbers_from=2 + measured.several, words=(len(columns) - 1,))


def _map(run: RunData, of: str) -> Section:
    measured = _extraction(run.summary)
    attributes, keys = [*measured.attributes, "mean"], measured.ranking()
    values = [
        [None if (found := measured.spread(key, "test", a)) is None else 100 * found.mean for a in attributes]
        for key in keys
    ]
    shares = {
        "type": "heatmap",
        "z": values,
        "x": [escaped(words(a)) for a in attributes],
        "y": [f"{k} {escaped(measured.name(key))}" for k, key in enumerate(keys, 1)],
        "texttemplate": "%{z:.0f}",
        "zmin": 0,
        "zmax": 100,
        "colorscale": list(COLOURS),
        "colorbar": {"ticksuffix": " %", "thickness": 12},
        "hovertemplate": "%{y}, %{x}: %{z:.1f} %<extra></extra>",
    }
    drawn = draw(
        [shares],
        26 * len(keys) + 110,
        x={"side": "top", "showgrid": False},
        y={"autorange": "reversed", "showgrid": False},
    )
    note = "Held out (P_test), percent of questions answered exactly, mean over seeds."
    return Section(f"Exact match by dataset and attribute{of}", [Figures([("", drawn)], note)])


def _rho(row: Row) -> str:
    what = TARGETS.get(row["target"], row["target"])
    return f"Spearman's rho of {what} Q-probing and extraction {ranged(row, 'rho', 3, '')}"


def _probing(run: RunData, of: str) -> Section:
    blocks: list[Block] = []
    for row in run.summary.get("correlations") or []:
        what = TARGETS.get(row["target"], row["target"])
        chosen = [point for point in run.summary.get("points") or [] if point["target"] == row["target"]]
        note = f"{row['points']} points, one a dataset and attribute, means over seeds." + (
            f" {_rho(row)}: 95 % percentile bootstrap over points." if row.get("rho") is not None else ""
        )
        averaged = row.get("by_dataset")
        if averaged and averaged.get("rho") is not None:
            note += f" Over the {averaged['points']} datasets, attributes averaged: {ranged(averaged, 'rho', 3, '')}."
        blocks.append(Figures([("", _cloud(chosen, what))], note))
    return Section(f"Where the knowledge sits: Q-probing against extraction{of}", blocks)


def _cloud(points: Sequence[Row], what: str) -> go.Figure:
    """A mark a dataset and attribute; colour and shape tell the attribute, the hover text the dataset."""
    traces = []
    looks = zip(cycle(PALETTE), cycle(_SYMBOLS), strict=True)
    for attribute, (colour, symbol) in zip(distinct(point["attribute"] for point in points), looks, strict=False):
        members = [point for point in points if point["attribute"] == attribute]
        name = escaped(words(attribute))
        traces.append(
            {
                "type": "scatter",
                "x": [100 * point["accuracy"] for point in members],
                "y": [100 * point["extraction"] for point in members],
                "mode": "markers",
                "name": name,
                "marker": {"color": colour, "symbol": symbol, "size": 10},
                "hovertext": [
                    f"{escaped(p['dataset'])}, {name}: {percent(p['accuracy'])}, {percent(p['extraction'])}"
                    for p in members
                ],
                "hoverinfo": "text",
            }
        )
    return share_axes(traces, f"Q-probing accuracy, {what}", f"extraction on P_test, {what}", height=460)


@dataclass(frozen=True)
class _Told:
    """What a sweep says first of an experiment.

    by: what a line is about. values: what is averaged, over the line's rows of a seed and then over seeds: a share, an amount
    (at least 0), or any number. of: which rows.
    """

    by: tuple[str, ...]
    values: Mapping[str, Literal["share", "amount", "number"]]
    of: Callable[[Row], bool] = bool


_TOLD = {
    "hidden-state-probing": _Told(
        ("part", "probe", "target"),
        {"accuracy": "share", "majority": "share", "extraction": "share"},
        lambda row: not row.get("control") and not row.get("position"),
    ),
    "knowledge-capacity": _Told(
        ("size", "arm", "corpus", "people", "exposures"),
        {"bits_per_parameter": "amount", "share": "share"},
    ),
}


def _told(run: RunData) -> list[Table]:
    """Means over seeds of what matters most in an experiment, or of the first three things it measures."""
    rows = [row for row in run.summary.get("rows") or [] if "cell" in row]
    told = _TOLD.get(str(run.summary.get("of"))) or _guessed(rows)
    rows = [row for row in rows if told.of(row)]
    by = [name for name in ("over", *told.by) if any(row.get(name) not in (None, "") for row in rows)]
    values = [name for name in told.values if any(number(row.get(name)) is not None for row in rows)]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_word(row.get(name)) for name in by), []).append(row)
    lines = [
        [
            *key,
            str(len({str(row.get("seed")) for row in of})),
            *(_over_seeds(of, name, told.values[name]) for name in values),
        ]
        for key, of in groups.items()
    ]
    more = f" The first {_PRINTED} of {len(lines)} lines; the page has all." if len(lines) > _PRINTED else ""
    caption = f"Means over seeds, with Student's 95 % interval where there are several.{more}"
    columns = [*("swept" if name == "over" else words(name) for name in by), "seeds", *map(words, values)]
    return [Table(columns, lines[:_PRINTED], caption, numbers_from=len(by))] if lines and values else []


def _guessed(rows: Sequence[Row]) -> _Told:
    """Of an experiment that says nothing else: whatever tells rows apart, and the first measurements."""
    measured = distinct(k for row in rows for k, v in row.items() if isinstance(v, float))
    apart = {
        "cell",
        "seed",
        "over",
        *measured,
        *(k for row in rows for k, v in row.items() if isinstance(v, list | dict)),
    }
    names = [k for k in distinct(k for row in rows for k in row) if k not in apart]
    by = [k for k in names if len({str(row.get(k)) for row in rows}) > 1]
    return _Told(tuple(by), dict.fromkeys(measured[:3], "number"))


def _word(value: object) -> str:
    return "–" if value in (None, "") else TARGETS.get(str(value), str(value))


def _over_seeds(rows: Sequence[Row], name: str, kind: str) -> str:
    """The mean over seeds of each one's mean, with its interval where there are several."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if (value := number(row.get(name))) is not None:
            by_seed.setdefault(str(row.get("seed")), []).append(value)
    if not by_seed:
        return "–"
    means = [sum(values) / len(values) for values in by_seed.values()]
    mean = sum(means) / len(means)
    found = of_seeds(means, *{"share": (0.0, 1.0), "amount": (0.0,)}.get(kind, ()))
    if kind == "share":
        return percent(mean) + (f" ({100 * found.low:.0f} to {100 * found.high:.0f})" if found else "")
    return fixed(mean, 3) + (f" ({found.low:.3f} to {found.high:.3f})" if found else "")


def _means(run: RunData, of: str) -> Section:
    rows = run.summary.get("means") or []
    columns = [c for c in distinct(key for row in rows for key in row) if not c.endswith(("_low", "_high", "_sd"))]
    cells = [[_cell(row, column) for column in columns] for row in rows[:_LISTED]]
    more = f" The first {_LISTED} of {len(rows)} rows; all are in summary.json." if len(rows) > _LISTED else ""
    table = Table(columns, cells, f"Means over seeds (lowest–highest).{more}")
    return Section(f"Measurements{of}", [*_told(run), table] if cells else [])


def _cell(row: Row, column: str) -> str:
    value = row.get(column, "–")
    if not isinstance(value, float):
        return str(value)
    low, high = (number(row.get(f"{column}_{end}")) for end in ("low", "high"))
    return f"{value:.4g}" + (f" ({low:.4g}–{high:.4g})" if low != high and None not in (low, high) else "")


def _cells(run: RunData, of: str) -> Section:
    cells = run.summary.get("cells") or []
    rows = [[c["cell"], c["state"], duration(c.get("seconds")), c.get("error") or ""] for c in cells]
    if not rows:
        return Section(f"Cells{of}", [Text("The sweep is unfinished; the same command goes on with it.")])
    return Section(f"Cells{of}", [Table(["cell", "state", "training time", "what went wrong"], rows)])
