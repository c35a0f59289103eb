"""The sections of the knowledge-capacity report: bits a parameter, against people and against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import GREY, Line, curves, styles
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.words import count
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2404.05405"
CAPACITY = {1000: 2.0, 100: 1.0}  # bits a parameter by exposures, as the paper finds them
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {
                "size": str,
                **dict.fromkeys(("people", "exposures", "parameters", "body", "bits", "possible_bits", "share"), float),
                **dict.fromkeys(("bits_per_parameter", "possible_per_parameter", "bits_per_body_parameter"), float),
                "loss_*": float,
                "loss_name": float,
            }
        ]
    )
}
_TITLE = "Bits of knowledge stored, at least"
READING = (
    "Bits stored at least: how much less of a surprise the facts are to the model than to somebody who knows only how they are "
    "drawn. More people than a size can hold show its capacity; fewer only show that it has room."
)


def headline(runs: Sequence[RunData]) -> str:
    """The most bits a parameter, and on what."""
    rows = _rows(runs)
    if not rows:
        return missing(runs)
    best = max(rows, key=lambda row: row["bits_per_parameter"])
    return (
        f"At most {best['bits_per_parameter']:.2f} bits a parameter ({best['size']}, {count(best['people'])} people, "
        f"{best['exposures']} exposures); the paper finds 2 after 1000 exposures and 1 after 100 ({SOURCE})."
    )


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_capacity(runs), _along(runs), training_section(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal."""
    cells = [
        [
            row["size"],
            *(count(row[name]) for name in ("people", "parameters", "bits")),
            f"{100 * row['share']:.0f} %",
            f"{row['bits_per_parameter']:.3f}",
        ]
        for row in summary.get("rows") or []
    ]
    columns = ["size", "people", "parameters", "bits stored", "of all there is", "bits a parameter"]
    exposures = ", ".join(map(str, distinct(row["exposures"] for row in summary.get("rows") or [])))
    return [Table(columns, cells, f"{_TITLE}, after {exposures} exposures", numbers_from=1)] if cells else []


def _rows(runs: Sequence[RunData]) -> list[Row]:
    return [row for run in runs for row in run.rows if number(row.get("bits_per_parameter")) is not None]


def _capacity(runs: Sequence[RunData]) -> Section:
    rows = _rows(runs)
    if not rows:
        return Section(_TITLE, [], missing(runs))
    note = (
        f"Dotted, in a size's colour: all there is to know, by its parameters. Grey: what the paper finds ({SOURCE}), for "
        "models trained long enough on more than they can hold."
    )
    blocks: list[Block] = [
        Figures([("by people", _by_people(runs)), ("by parameters", _by_parameters(runs))], note),
        _table(runs),
    ]
    return Section(_TITLE, blocks)


def _by_people(runs: Sequence[RunData]) -> go.Figure:
    looks = styles(distinct(row["size"] for row in _rows(runs)))
    lines = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for size, (colour, _) in looks.items():
            chosen = sorted((row for row in _rows([run]) if row["size"] == size), key=lambda row: row["people"])
            people = [row["people"] for row in chosen]
            if chosen:
                lines.append(Line(f"{size}{of}", people, [row["bits_per_parameter"] for row in chosen], colour))
                most = [row["possible_per_parameter"] for row in chosen]
                lines.append(Line(f"{size}{of}, all there is", people, most, colour, "dot"))
    return _with_paper(runs, lines, "people", "people")


def _by_parameters(runs: Sequence[RunData]) -> go.Figure:
    groups = distinct(row["people"] for row in _rows(runs))
    looks = styles(map(count, groups))
    lines = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for people in groups:
            chosen = sorted((row for row in _rows([run]) if row["people"] == people), key=lambda row: row["parameters"])
            if chosen:
                xs, ys = [row["parameters"] for row in chosen], [row["bits_per_parameter"] for row in chosen]
                lines.append(Line(f"{count(people)} people{of}", xs, ys, looks[count(people)][0]))
    return _with_paper(runs, lines, "parameters", "parameters")


def _with_paper(runs: Sequence[RunData], lines: list[Line], key: str, x: str) -> go.Figure:
    """The curves and the paper's levels: 2 bits a parameter, and where exposures are the paper's, what it finds for them."""
    rows = _rows(runs)
    ends = [min(row[key] for row in rows), max(row[key] for row in rows)]
    levels = {1000, *(row["exposures"] for row in rows)} & CAPACITY.keys()
    paper = [
        Line(f"{CAPACITY[n]:g} bits: {n} exposures in {SOURCE}", ends, [CAPACITY[n]] * 2, GREY, dash)
        for n, dash in zip(sorted(levels, reverse=True), ("solid", "dash"), strict=False)
    ]
    figure = curves([*lines, *paper], x=x, y="bits a parameter", log_x=True)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _table(runs: Sequence[RunData]) -> Table:
    cells = []
    for row in _rows(runs):
        values = sum(v for k, v in row.items() if k.startswith("loss_") and k not in ("loss_name", "loss_work_city"))
        cells.append(
            [
                *([row["run"]] if len(runs) > 1 else []),
                row["size"],
                *(count(row[name]) for name in ("people", "exposures", "parameters", "body", "bits", "possible_bits")),
                f"{100 * row['share']:.0f}\u00a0%",
                *(f"{row[name]:.3f}" for name in ("bits_per_parameter", "bits_per_body_parameter")),
                *(f"{value:.2f}" for value in (row["loss_name"], values)),
            ]
        )
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("size", "people", "exposures", "parameters", "without embedding", "bits", "possible", "share"),
        *("bits a parameter", "a parameter without embedding", "loss on names", "on values"),
    ]
    caption = "Bits stored at least, out of all there is to know; losses in nats a person."
    return Table(columns, cells, caption, numbers_from=len(columns) - 11)


def _along(runs: Sequence[RunData]) -> Section:
    lines = []
    looks = styles(distinct(row["label"] for run in runs for row in run.curves))
    for run in runs:
        for label, (colour, dash) in looks.items():
            chosen = [
                row for row in run.curves if row["label"] == label and number(row.get("bits_per_parameter")) is not None
            ]
            exposures = {row["dataset"]: row["exposures"] for row in run.rows}.get(label)
            if chosen and exposures and chosen[-1]["step"]:
                last = chosen[-1]["step"]
                xs = [row["step"] / last * exposures for row in chosen]
                name = f"{label}, {run.name}" if len(runs) > 1 else label
                lines.append(Line(name, xs, [row["bits_per_parameter"] for row in chosen], colour, dash))
    if not lines:
        return Section("Along training", [], missing(runs))
    figure = curves(lines, x="exposures of each person", y="bits a parameter")
    return Section("Along training", [Figures([("", figure)])])
