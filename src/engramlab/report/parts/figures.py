"""Bars and curves in one style, from plain values. Shares go in as 0..1 and are drawn as percentages."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, product

from plotly import graph_objects as go

# Okabe & Ito's palette, told apart with any colour vision, without its yellow, which is lost on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555", "#000000")
DASHES = ("solid", "dash", "dot", "dashdot")
GREY, INK = "#767676", "#444444"
MOST_POINTS = 800
_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Bar:
    """One bar: its value, its range over runs, and a ring at a second value (`ring`) for comparison.

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


def bars(
    groups: Sequence[tuple[str, Sequence[Bar]]], axis: str, *, bar: str, ring: str = "", paper: str = ""
) -> go.Figure:
    """Horizontal bars under headings, every bar with its own label, so that nothing depends on colour alone.

    `axis` titles the axis of percentages; `bar`, `ring`, `paper` are the legend's words for the three marks.
    """
    placed: list[tuple[float, Bar]] = []
    figure = go.Figure()
    at = 0.0
    for heading, members in groups:
        figure.add_annotation(
            text=f"<b>{escaped(heading, 60)}</b>",
            x=0,
            y=at,
            xanchor="left",
            xshift=2,
            yshift=-2,
            showarrow=False,
        )
        placed += [(at + 1 + i, member) for i, member in enumerate(members)]
        at += 1.4 + len(members)

    for published in (False, True):
        chosen = [(y, one) for y, one in placed if one.published == published and one.value is not None]
        if chosen:
            figure.add_trace(_bar_trace(chosen, published, paper if published else bar))
            if not published:
                # Bars have the colours of their datasets; the legend explains the mark in a neutral one.
                figure.add_bar(x=[None], y=[None], name=bar, marker_color=INK)
    rings = [(y, one) for y, one in placed if one.ring is not None]
    if rings:
        figure.add_scatter(
            x=[100 * (one.ring or 0) for _, one in rings],
            y=[y for y, _ in rings],
            mode="markers",
            name=ring,
            marker={
                "symbol": "circle",
                "size": 12,
                "color": "white",
                "line": {"width": 2.5, "color": "#8fa3b3"},
            },
            hovertext=[f"{ring}: {percent(one.ring)}" for _, one in rings],
            hoverinfo="text",
        )
    _values(figure, placed)
    style(figure, height=int(24 * at + 110))
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(title=axis, range=[0, 112], dtick=20, ticksuffix=" %", fixedrange=True)
    figure.update_yaxes(
        range=[at - 0.3, -0.7],
        tickvals=[y for y, _ in placed],
        ticktext=[escaped(one.label) for _, one in placed],
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        ticks="outside",
        tickcolor="rgba(0,0,0,0)",
    )
    return figure


def _bar_trace(chosen: Sequence[tuple[float, Bar]], published: bool, name: str) -> go.Bar:
    values = [one.value or 0.0 for _, one in chosen]
    above = [0.0 if one.high is None else 100 * (one.high - (one.value or 0.0)) for _, one in chosen]
    below = [0.0 if one.low is None else 100 * ((one.value or 0.0) - one.low) for _, one in chosen]
    return go.Bar(
        orientation="h",
        x=[100 * value for value in values],
        y=[y for y, _ in chosen],
        width=0.5 if published else 0.8,
        name=name,
        showlegend=published,
        marker={
            "color": [one.colour for _, one in chosen],
            "line": {"color": [one.colour for _, one in chosen], "width": 1},
            "pattern": {"shape": "/" if published else "", "fillmode": "replace", "size": 6},
        },
        error_x={
            "type": "data",
            "array": above,
            "arrayminus": below,
            "visible": any(above) or any(below),
            "color": "#222",
        },
        hovertext=[escaped(one.hover or f"{one.label}: {percent(one.value)}", 200) for _, one in chosen],
        hoverinfo="text",
    )


def _values(figure: go.Figure, placed: Sequence[tuple[float, Bar]]) -> None:
    """Print each value inside the end of its bar, or after a bar that is short, hatched or has whiskers."""
    for y, one in placed:
        if one.value is None:
            figure.add_annotation(
                text="not measured", x=0, y=y, xanchor="left", xshift=2, showarrow=False, font_color=GREY
            )
            continue
        inside = one.value >= 0.2 and not one.published and one.high in (None, one.value)
        figure.add_annotation(
            text=percent(one.value),
            x=100 * (one.value if inside else max(one.value, one.high or 0.0)),
            y=y,
            xanchor="right" if inside else "left",
            # Room for the ring, which often sits at the end of a long bar.
            xshift=4 if not inside else -4 if one.ring is None else -12,
            showarrow=False,
            font={"color": _ink(one.colour) if inside else "#222", "size": 12},
        )


def _ink(colour: str) -> str:
    """Black or white, whichever reads better on `colour` (relative luminance as in WCAG)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return "#111" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 else "#fff"


def curves(
    lines: Sequence[Line], *, x: str, y: str, shares: bool = False, log: bool = False, log_x: bool = False
) -> go.Figure:
    """Curves over training, thinned to 800 points. `shares`: y is 0..1, drawn as percentages."""
    figure = go.Figure()
    for line in lines:
        every = -(-len(line.x) // MOST_POINTS) or 1
        # Counted from the end, so that the last point, the one a reader looks for, always stays.
        xs, ys = list(line.x)[::-every][::-1], list(line.y)[::-every][::-1]
        figure.add_scatter(
            x=xs,
            y=[100 * value for value in ys] if shares else ys,
            mode="lines+markers" if len(xs) < 40 else "lines",
            name=escaped(line.name, 44),
            line={"color": line.colour, "dash": line.dash, "width": 2},
            marker={"size": 5},
            showlegend=True,
        )
    style(figure, height=400 if len(lines) <= 8 else 400 + 11 * len(lines))
    figure.update_xaxes(title=x, rangemode="tozero")
    if log_x:
        places = sorted({place for line in lines for place in line.x})
        names = [f"{place:,g}" for place in places]
        figure.update_xaxes(type="log", tickvals=places, ticktext=names, rangemode="normal", minor_showgrid=False)
    if shares:
        figure.update_yaxes(title=y, range=[-3, 103], ticksuffix=" %")
    else:
        figure.update_yaxes(title=y, type="log" if log else "linear")
        if log:
            ticks = [digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5)]
            figure.update_yaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], minor_showgrid=False)
    return figure


def scatter(points: Sequence[Point], *, x: str, y: str) -> go.Figure:
    """Shares against shares. Points of one `name` are joined by a line, in their order; `mark` tells them apart on it."""
    figure = go.Figure()
    marks = list(dict.fromkeys(point.mark for point in points))
    symbols = dict(zip(marks, cycle(("circle-open", "diamond", "square", "triangle-up", "star")), strict=False))
    for name in dict.fromkeys(point.name for point in points):
        members = [point for point in points if point.name == name]
        figure.add_scatter(
            x=[100 * point.x for point in members],
            y=[100 * point.y for point in members],
            mode="lines+markers+text",
            name=escaped(name),
            text=["", *[""] * (len(members) - 2), escaped(name)] if len(members) > 1 else [escaped(name)],
            textposition="top center",
            line={"color": members[0].colour, "width": 1.5},
            marker={"size": 11, "symbol": [symbols[point.mark] for point in members], "line": {"width": 2}},
            hovertext=[f"{escaped(name)}, {escaped(p.mark)}: {percent(p.x)}, {percent(p.y)}" for p in members],
            hoverinfo="text",
            showlegend=False,
        )
    for mark in marks:
        legend_mark(figure, mark, symbols[mark], 11)  # names stand at the points
    return share_axes(figure, x, y, height=420)


def legend_mark(figure: go.Figure, name: str, symbol: str, size: int) -> None:
    """What a mark means, said by the legend in a neutral colour."""
    marker = {"symbol": symbol, "color": INK, "size": size}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=escaped(name), marker=marker)


def share_axes(figure: go.Figure, x: str, y: str, height: int) -> go.Figure:
    """The figure, with two axes of per cent in the common style."""
    style(figure, height=height)
    figure.update_xaxes(title=x, range=[-4, 104], ticksuffix=" %", dtick=20)
    figure.update_yaxes(title=y, range=[-4, 104], ticksuffix=" %", dtick=20)
    return figure


def style(figure: go.Figure, height: int) -> None:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": _FONT, "size": 13, "color": "#222"},
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        legend={
            "orientation": "h",
            "y": 1,
            "yanchor": "bottom",
            "x": 0,
            "xanchor": "left",
            "traceorder": "normal",
        },
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(automargin=True, gridcolor="#e6e6e6", zerolinecolor="#999")
    figure.update_yaxes(automargin=True, gridcolor="#e6e6e6", zerolinecolor="#999")
