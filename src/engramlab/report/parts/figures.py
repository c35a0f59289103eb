"""Bars and curves in one style, from plain values. Shares go in as 0..1 and are drawn as percentages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, product
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.verdicts import Interval
from engramlab.report.rows import number

# Okabe & Ito's palette, told apart with any colour vision, without its yellow, which is lost on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot")
# Colours of text, grid and paper have one spelling each: the page's script swaps them for a dark theme.
GREY, INK, TEXT, GRID, PAPER = "#767676", "#444444", "#222222", "#e6e6e6", "#ffffff"
LOGARITHMIC = {"type": "log", "rangemode": "normal", "minor": {"showgrid": False}}  # an axis
MOST_POINTS = 800
MOST_WORDS = 1200  # characters of a figure told in words
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


_CLEAR = "rgba(0,0,0,0)"
_AXIS = {"automargin": True, "gridcolor": GRID, "zerolinecolor": "#999999", "title_font_size": 13}
# A template, for it is checked once: Plotly takes a dozen times as long over the same words in each figure's layout.
_STYLE = go.layout.Template(
    layout=go.Layout(
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        font={"family": _FONT, "size": 13, "color": TEXT},
        margin={"l": 10, "r": 14, "t": 34, "b": 10},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "xanchor": "left", "traceorder": "normal"},
        hoverlabel={"align": "left"},
        xaxis=_AXIS,
        yaxis=_AXIS,
    )
)


@dataclass(frozen=True)
class Bar:
    """One bar: its value, its interval, a ring at a second value (`ring`) and a stroke at what chance gives.

    `published` bars are drawn hatched in grey, since nothing here measured them.
    """

    label: str
    value: float | None
    colour: str = GREY
    low: float | None = None
    high: float | None = None
    ring: float | None = None
    published: bool = False
    hover: str = ""
    chance: float | None = None

    def judged(self, ends: Interval | None, chance: float | None) -> Bar:
        """This bar with whiskers and a stroke at what chance gives."""
        low, high = (ends.low, ends.high) if ends else (None, None)
        return replace(self, low=low, high=high, chance=chance)


@dataclass(frozen=True)
class Line:
    """One curve: `x` and `y` of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dash: str = "solid"


@dataclass(frozen=True)
class Point:
    """A point of shares 0..1: `name` says what it is and gives its line, `mark` which of them on the line."""

    name: str
    mark: str
    x: float
    y: float
    colour: str


def escaped(text: object, limit: int = 34) -> str:
    """`text` as one line of at most `limit` characters that plotly draws as it stands.

    Plotly reads a subset of HTML in every label, so the characters that would start a tag are escaped.
    """
    line = " ".join(str(text).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    return html.escape(line, quote=False)


def percent(share: float | None) -> str:
    """0.866 as `86.6 %`, with a space that does not break; an en dash for None."""
    return "–" if share is None else f"{100 * share:.1f}\u00a0%"


def styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a dash for each name, in order, so that a dataset looks the same in every figure."""
    looks = cycle(product(DASHES, PALETTE))
    return {name: (colour, dash) for name, (dash, colour) in zip(names, looks, strict=False)}


def draw(
    traces: Iterable[Mapping[str, Any]],
    height: int,
    *,
    x: Mapping[str, Any] | None = None,
    y: Mapping[str, Any] | None = None,
    **layout: Any,
) -> go.Figure:
    """A figure in the common style, from what Plotly calls traces, axes and layout: its words, each trace with its `type`.

    In one call, for then Plotly checks every value once; `update_xaxes` and its kin were most of the time of a page.

    Raises:
        ValueError: Plotly does not know a key, or refuses its value.
    """
    style = {"template": _STYLE, "height": height, "xaxis": dict(x or {}), "yaxis": dict(y or {})}
    return go.Figure(data=[dict(trace) for trace in traces], layout={**style, **layout})


def bars(
    groups: Sequence[tuple[str, Sequence[Bar]]],
    axis: str,
    *,
    bar: str,
    ring: str = "",
    paper: str = "",
    chance: str = "chance",
) -> go.Figure:
    """Horizontal bars under headings, every bar with its own label, so that nothing depends on colour alone.

    `axis` titles the axis of percentages; `bar`, `ring`, `paper`, `chance` are the legend's words for the marks.
    """
    placed: list[tuple[float, Bar]] = []
    traces: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    at = 0.0
    for heading, members in groups:
        texts.append({"text": f"<b>{escaped(heading, 60)}</b>", "x": 0, "y": at, "xshift": 2, "yshift": -2})
        placed += [(at + 1 + i, member) for i, member in enumerate(members)]
        at += 1.4 + len(members)

    for published in (False, True):
        chosen = [(y, one) for y, one in placed if one.published == published and one.value is not None]
        if chosen:
            traces.append(_bar_trace(chosen, published, paper if published else bar))
            if not published:
                # Bars have the colours of their datasets; the legend explains the mark in a neutral one.
                traces.append({"type": "bar", "x": [None], "y": [None], "name": bar, "marker": {"color": INK}})
    for name, symbol, colour, size, marks in (
        (ring, "circle", "#8fa3b3", 12, [(y, one.ring) for y, one in placed if one.ring is not None]),
        (chance, "line-ns", TEXT, 14, [(y, one.chance) for y, one in placed if one.chance is not None]),
    ):
        if marks:
            traces.append(
                {
                    "type": "scatter",
                    "x": [100 * share for _, share in marks],
                    "y": [y for y, _ in marks],
                    "mode": "markers",
                    "name": name,
                    "marker": {
                        "symbol": symbol,
                        "size": size,
                        "color": PAPER,
                        "line": {"width": 2.5, "color": colour},
                    },
                    "hovertext": [f"{name}: {percent(share)}" for _, share in marks],
                    "hoverinfo": "text",
                    "cliponaxis": False,
                }
            )
    return draw(
        traces,
        int(24 * at + 110),
        x={
            **_titled(axis),
            "range": [0, 104],
            "dtick": 20,
            "tickangle": 0,
            "ticksuffix": " %",
            "fixedrange": True,
        },
        y={
            "range": [at - 0.3, -0.7],
            "tickvals": [y for y, _ in placed],
            "ticktext": [escaped(one.label) for _, one in placed],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "ticks": "outside",
            "tickcolor": _CLEAR,
        },
        annotations=[{"xanchor": "left", "showarrow": False, **text} for text in [*texts, *_values(placed)]],
        barmode="overlay",
        margin={"r": 62},  # of the values, which stand beside the bars, where no mark hides them
    )


def _titled(text: str) -> dict[str, Any]:
    return {"title": {"text": text}}


def _bar_trace(chosen: Sequence[tuple[float, Bar]], published: bool, name: str) -> dict[str, Any]:
    values = [one.value or 0.0 for _, one in chosen]
    above = [0.0 if one.high is None else 100 * (one.high - (one.value or 0.0)) for _, one in chosen]
    below = [0.0 if one.low is None else 100 * ((one.value or 0.0) - one.low) for _, one in chosen]
    return {
        "type": "bar",
        "orientation": "h",
        "x": [100 * value for value in values],
        "y": [y for y, _ in chosen],
        "width": 0.5 if published else 0.8,
        "name": name,
        "showlegend": published,
        "marker": {
            "color": [one.colour for _, one in chosen],
            "line": {"color": [one.colour for _, one in chosen], "width": 1},
            "pattern": {"shape": "/" if published else "", "fillmode": "replace", "size": 6},
        },
        "error_x": {
            "type": "data",
            "array": above,
            "arrayminus": below,
            "visible": any(above) or any(below),
            "color": TEXT,
        },
        "hovertext": [escaped(one.hover or f"{one.label}: {percent(one.value)}", 200) for _, one in chosen],
        "hoverinfo": "text",
    }


def _values(placed: Sequence[tuple[float, Bar]]) -> list[dict[str, Any]]:
    """Each value beside its bar, in the margin."""
    found: list[dict[str, Any]] = []
    for y, one in placed:
        text = "not measured" if one.value is None else percent(one.value)
        place = {"x": 0, "xref": "x", "xshift": 2} if one.value is None else {"x": 1, "xref": "paper", "xshift": 8}
        found.append({"text": text, "y": y, "font": {"size": 12}, **place})
    return found


def curves(
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    shares: bool = False,
    log: bool = False,
    log_x: bool = False,
    markers: bool = True,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    **layout: Any,
) -> go.Figure:
    """Curves over training, thinned to 800 points.

    Args:
        shares: y is 0..1, drawn as percentages.
        markers: a mark at each point where a curve has few.
        xaxis, yaxis, layout: what the figure has besides, in Plotly's words.
    """
    traces = []
    for line in lines:
        every = -(-len(line.x) // MOST_POINTS) or 1
        # Counted from the end, so that the last point, the one a reader looks for, always stays.
        xs, ys = list(line.x)[::-every][::-1], list(line.y)[::-every][::-1]
        traces.append(
            {
                "type": "scatter",
                "x": xs,
                "y": [100 * value for value in ys] if shares else ys,
                "mode": "lines+markers" if markers and len(xs) < 40 else "lines",
                "name": escaped(line.name, 44),
                "line": {"color": line.colour, "dash": line.dash, "width": 2},
                "marker": {"size": 5},
                "showlegend": True,
            }
        )
    along: dict[str, Any] = {**_titled(x), "rangemode": "tozero"}
    if log_x:
        places = sorted({place for line in lines for place in line.x})
        along |= LOGARITHMIC | {"tickvals": places, "ticktext": [f"{place:,g}" for place in places]}
    up = _titled(y)
    if shares:
        up |= {"range": [-3, 103], "ticksuffix": " %"}
    elif log:
        ticks = [digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5)]
        up |= {"type": "log", "minor": {"showgrid": False}}
        up |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    else:
        up["type"] = "linear"
    height = 400 if len(lines) <= 8 else 400 + 11 * len(lines)
    return draw(traces, height, x=along | dict(xaxis or {}), y=up | dict(yaxis or {}), **layout)


def scatter(points: Sequence[Point], *, x: str, y: str) -> go.Figure:
    """Shares against shares. Points of one `name` are joined by a line, in their order; `mark` tells them apart on it."""
    traces: list[dict[str, Any]] = []
    marks = list(dict.fromkeys(point.mark for point in points))
    symbols = dict(zip(marks, cycle(("circle-open", "diamond", "square", "triangle-up", "star")), strict=False))
    for name in dict.fromkeys(point.name for point in points):
        members = [point for point in points if point.name == name]
        traces.append(
            {
                "type": "scatter",
                "x": [100 * point.x for point in members],
                "y": [100 * point.y for point in members],
                "mode": "lines+markers+text",
                "name": escaped(name),
                "cliponaxis": False,
                "text": ["", *[""] * (len(members) - 2), escaped(name)] if len(members) > 1 else [escaped(name)],
                "textposition": "top center",
                "line": {"color": members[0].colour, "width": 1.5},
                "marker": {"size": 11, "symbol": [symbols[point.mark] for point in members], "line": {"width": 2}},
                "hovertext": [f"{escaped(name)}, {escaped(p.mark)}: {percent(p.x)}, {percent(p.y)}" for p in members],
                "hoverinfo": "text",
                "showlegend": False,
            }
        )
    traces += [legend_mark(mark, symbols[mark], 11) for mark in marks]  # names stand at the points
    return share_axes(traces, x, y, height=420)


def upright(x: float) -> dict[str, Any]:
    """A dotted line from bottom to top at one place of the x axis: a shape of the layout."""
    line = {"color": "#999999", "width": 1.5, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "above"}


def legend_mark(name: str, symbol: str, size: int) -> dict[str, Any]:
    """What a mark means, said by the legend in a neutral colour: a trace."""
    marker = {"symbol": symbol, "color": INK, "size": size}
    return {"type": "scatter", "x": [None], "y": [None], "mode": "markers", "name": escaped(name), "marker": marker}


def share_axes(traces: Iterable[Mapping[str, Any]], x: str, y: str, height: int) -> go.Figure:
    """A figure with two axes of per cent."""
    common = {"ticksuffix": " %", "tick0": 0, "dtick": 20}
    return draw(
        traces, height, x={**_titled(x), "range": [-8, 108], **common}, y={**_titled(y), "range": [-6, 112], **common}
    )


def alike(figures: Sequence[tuple[str, go.Figure]]) -> Sequence[tuple[str, go.Figure]]:
    """Figures that stand side by side, with one range for all their y axes, so that they can be compared by eye."""
    logged = any(figure.layout.yaxis.type == "log" for _, figure in figures)
    found = [v for _, f in figures for trace in f.data for y in trace.y or () if (v := number(y)) is not None]
    if len(figures) > 1 and found and not logged:
        room = 0.05 * (max(found) - min(found) or 1.0)
        for _, figure in figures:
            figure.update_yaxes(range=[min(found) - room, max(found) + room])
    return figures


def described(figure: go.Figure, title: str) -> str:
    """A figure in words, for those who do not see it: its axes, and of every mark its values or where it begins and ends."""
    layout = figure.layout
    axes = [axis.title.text for axis in (layout.xaxis, layout.yaxis) if axis.title.text]
    texts = [html.unescape(text) for text in [title, " against ".join(axes[::-1])] if text]
    for trace in figure.data:
        if trace.visible is False or trace.x is None or trace.x[0:1] == (None,) or not len(trace.x):
            continue
        texts.append(html.unescape(_trace_in_words(trace)))
    text = ". ".join(texts)
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 1] + "…"


def _trace_in_words(trace: go.Scatter | go.Bar | go.Heatmap) -> str:
    if trace.type == "heatmap":
        known = [v for row in trace.z for value in row if (v := number(value)) is not None]
        span = f"values from {min(known):.3g} to {max(known):.3g}" if known else "no values"
        return f"{len(trace.y)} rows by {len(trace.x)} columns, {span}"
    if isinstance(trace.hovertext, tuple) and "lines" not in str(trace.to_plotly_json().get("mode")):
        return "; ".join(map(str, trace.hovertext))
    name = f"{trace.name}: " if trace.name else ""
    if trace.type == "bar":
        return name + ", ".join(f"{x} {_short(y)}" for x, y in zip(trace.x, trace.y, strict=False))
    ends = [f"{_short(trace.y[k])} at {_short(trace.x[k])}" for k in dict.fromkeys((0, len(trace.x) - 1))]
    return name + " to ".join(ends)


def _short(value: object) -> str:
    found = number(value)
    return str(value) if found is None else f"{found:.3g}"
