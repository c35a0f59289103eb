"""Figures of probing: Q-probing against extraction, and closer P-probing of entries whose sentences come in ordered pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.figures import (
    GREY,
    PAPER,
    Bar,
    bars,
    draw,
    escaped,
    legend_mark,
    percent,
    share_axes,
    styles,
)
from engramlab.report.parts.maps import COLOURS
from engramlab.report.rows import Row, distinct, words

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "x")


def cloud(rows: Sequence[Row], every: Sequence[Row], what: str, name: Callable[[Row], str]) -> go.Figure:
    """Extraction against Q-probing, a mark a dataset and attribute, in the colours of `every` row of the page."""
    colours = styles(distinct(row["part"] for row in every))
    attributes = distinct(row["attribute"] for row in rows)
    symbols = {attribute: _SYMBOLS[i % len(_SYMBOLS)] for i, attribute in enumerate(attributes)}
    equal = {"type": "scatter", "x": [0, 100], "y": [0, 100], "mode": "lines", "line": {"color": GREY, "dash": "dot"}}
    traces: list[dict[str, Any]] = [{**equal, "hoverinfo": "skip", "showlegend": False}]
    for part in distinct(row["part"] for row in rows):
        of = [row for row in rows if row["part"] == part]
        traces.append(
            {
                "type": "scatter",
                "x": [100 * row["accuracy"] for row in of],
                "y": [100 * row["extraction"] for row in of],
                "mode": "markers",
                "name": escaped(part),
                "marker": {
                    "size": 10,
                    "color": colours[part][0],
                    "symbol": [symbols[row["attribute"]] for row in of],
                    "line": {"width": 1, "color": PAPER},
                },
                "hovertext": [
                    f"{escaped(name(row))}, {escaped(words(row['attribute']))}: Q {percent(row['accuracy'])}, "
                    f"extraction {percent(row['extraction'])}"
                    for row in of
                ],
                "hoverinfo": "text",
            }
        )
    traces += [legend_mark(words(attribute), symbols[attribute], 10) for attribute in attributes]
    return share_axes(traces, f"Q-probing, {what}", "extraction", height=520)


def pairs(rows: Sequence[Row]) -> go.Figure:
    """Of each attribute, with its partner seen and not seen."""
    groups = []
    for attribute in distinct(row["attribute"] for row in rows):
        of_it = [row for row in rows if row["attribute"] == attribute]
        partner, members = of_it[0].get("partner"), []
        for seen, said, colour in ((True, "seen", "#0072B2"), (False, "not seen", "#E69F00")):
            of = [row for row in of_it if (partner in row["seen"]) == seen]
            count = sum(row["examples"] for row in of)
            if count and partner:
                share = sum(row["accuracy"] * row["examples"] for row in of) / count
                hover = f"{percent(share)} of {count} places"
                members.append(Bar(f"{words(partner)} {said}", share, colour, hover=hover))
        if members:
            which = "second" if of_it[0]["second"] else "first"
            groups.append((f"{words(attribute)} ({which} of its pair)", members))
    return bars(groups, "entries of held-out subjects", bar="P-probing")


def subsets(rows: Sequence[Row]) -> go.Figure:
    """Of each attribute after every set of others."""
    sets = sorted(distinct(tuple(row["seen"]) for row in rows), key=lambda one: (len(one), one))
    found = {(row["attribute"], tuple(row["seen"])): row["accuracy"] for row in rows}
    asked = distinct(row["attribute"] for row in rows)
    shares = {
        "type": "heatmap",
        "z": [[found.get((attribute, one)) for attribute in asked] for one in sets],
        "x": [escaped(words(attribute), 18) for attribute in asked],
        "y": [f"{k} " + escaped(", ".join(map(words, one)) or "nothing", 60) for k, one in enumerate(sets)],
        "zmin": 0,
        "zmax": 1,
        "colorscale": list(COLOURS),
        "texttemplate": "%{z:.2f}",
        "hovertemplate": "%{x} after %{y}: %{z:.2f}<extra></extra>",
    }
    return draw(
        [shares],
        22 * len(sets) + 120,
        x={"title": {"text": "read"}, "showgrid": False},
        y={"title": {"text": "seen"}, "autorange": "reversed", "showgrid": False},
    )
