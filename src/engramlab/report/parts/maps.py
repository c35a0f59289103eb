"""Heat maps of values by row and step, several under one another, and a picker that shows one set of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from engramlab.report.parts.figures import draw, escaped

# From bad to good: one hue from light to dark, told apart with any colour vision and on paper.
COLOURS = ("#f7fbff", "#c6dbef", "#6baed6", "#2171b5", "#08306b")
_MOST_VALUES = 12  # columns of a map whose cells have room for their values


@dataclass(frozen=True)
class Scale:
    """What a map shows: the colours run from `low` to `high`, and `best` says whether high is good."""

    name: str
    low: float
    high: float
    best: bool = True


@dataclass(frozen=True)
class Map:
    """A heat map: `values[row][column]`; `rows` are names, `x` the columns' numbers."""

    title: str
    rows: Sequence[str]
    x: Sequence[float]
    values: Sequence[Sequence[float]]


def heat(columns: Sequence[tuple[Scale, Sequence[Map]]], *, x: str, rows: int | None = None) -> go.Figure:
    """Maps in columns side by side, each column with a scale of its own; all columns have as many maps.

    Args:
        x: what the columns of a map are.
        rows: room for so many rows a map; as many as the largest has by default.
    """
    return pick([("", columns)], x=x, rows=rows)


def pick(
    choices: Sequence[tuple[str, Sequence[tuple[Scale, Sequence[Map]]]]], *, x: str, rows: int | None = None
) -> go.Figure:
    """`heat` of the first choice, and a menu for the others; all have the same scales, and maps of the same titles."""
    columns = choices[0][1]
    count = len(columns[0][1])
    most = rows or max(len(one.rows) for _, of in choices for _, maps in of for one in maps)
    each = 22 * most + 70
    height = each * count + 100
    # One range for all: a map that is shorter than the others ends early.
    last = max(place for _, of in choices for _, maps in of for one in maps for place in one.x)
    along: dict[str, Any] = {"showgrid": False, "zeroline": False, "tickformat": "d"}
    along |= {"range": [-0.5, last + 0.5]} | ({"dtick": 1} if last <= 2 * _MOST_VALUES else {})
    titles = [f"{escaped(maps[i].title, 44)}: {escaped(scale.name)}" for i in range(count) for scale, maps in columns]
    layout: dict[str, Any] = deepcopy(_grid(count, len(columns), 64 / height if count > 1 else 0))
    for key, axis in layout.items():
        if key.startswith("xaxis"):
            axis |= along
        elif key.startswith("yaxis"):
            axis |= {"autorange": "reversed", "showgrid": False}
    for column in range(1, len(columns) + 1):
        layout[_nth("xaxis", (count - 1) * len(columns) + column)]["title"] = {"text": x}
    for place, text in zip(layout["annotations"], titles, strict=True):
        place |= {"text": text, "font": {"size": 13}}
    traces, owners = [], []
    for number, (_, of) in enumerate(choices):
        for column, (scale, maps) in enumerate(of, 1):
            for row, one in enumerate(maps, 1):
                # The number before the name keeps equal names apart.
                names = [f"{k} {escaped(name, 18)}" for k, name in enumerate(one.rows, 1)]
                place = (row - 1) * len(columns) + column
                traces.append(
                    {
                        "type": "heatmap",
                        "z": [list(values) for values in one.values],
                        "x": list(one.x),
                        "y": names,
                        "xaxis": _nth("x", place),
                        "yaxis": _nth("y", place),
                        "coloraxis": _nth("coloraxis", column),
                        "visible": number == 0,
                        "hovertemplate": f"%{{y}}, {x} %{{x}}: %{{z:.2f}} ({escaped(scale.name)})<extra></extra>",
                        "texttemplate": "%{z:.2f}" if len(one.x) <= _MOST_VALUES else None,
                    }
                )
                owners.append(number)
    for column, (scale, _) in enumerate(columns, 1):
        right = layout[_nth("xaxis", column)]["domain"][1]
        layout[_nth("coloraxis", column)] = {
            "cmin": scale.low,
            "cmax": scale.high,
            "colorbar": {"x": right + 0.005, "thickness": 10},
            "colorscale": list(COLOURS if scale.best else COLOURS[::-1]),
        }
    if len(choices) > 1:
        buttons = [
            {"label": escaped(label, 90), "method": "restyle", "args": [{"visible": [owner == n for owner in owners]}]}
            for n, (label, _) in enumerate(choices)
        ]
        layout["updatemenus"] = [{"buttons": buttons}]  # the page's script makes a list of it
    return draw(traces, height, **layout)


@cache
def _grid(rows: int, columns: int, gap: float) -> dict[str, Any]:
    """The layout of so many maps: their axes, and the places of their titles. Kept, for Plotly takes long over it."""
    titles = ["-"] * (rows * columns)
    made = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=gap, horizontal_spacing=0.16)
    return {key: value for key, value in made.to_plotly_json()["layout"].items() if key != "template"}


def _nth(name: str, place: int) -> str:
    """What Plotly calls the axis of this name at a place, from 1."""
    return f"{name}{place if place > 1 else ''}"
