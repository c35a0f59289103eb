"""One passage's facts along a run: pick it, see its queries' curves, its encounters and its local maxima."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.base.rows import DEPTHS
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import DASHES, INK, draw, escaped, upright
from engramlab.report.parts.words import signed
from engramlab.report.rows import distinct

_COLOURS = dict(zip(DEPTHS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
_DASHES = (*DASHES, "longdash")
MOST = 120  # passages on a page, and fewer where they would weigh more than that many bytes
ROOM, _A_VALUE, _A_QUERY = 550_000, 7, 500


def facts_section(parts: Sequence[tuple[str, Mapping[str, Any]]], missing: str) -> Section:
    """The section to pick a passage in.

    Args:
        parts: (name, its curves.json).
        missing: said when there is nothing to pick.
    """
    blocks = []
    for label, document in parts:
        facts = document.get("facts") or []
        names = distinct((fact["group"], fact["passage"]) for fact in facts)
        weight = len(facts) * (_A_VALUE * len(document.get("fact_steps") or ()) + _A_QUERY) / max(1, len(names))
        each = max(1, min(MOST, int(ROOM / max(weight, 1))) // len(parts))
        # Some of every group, in their order.
        kept = {
            key
            for group in distinct(group for group, _ in names)
            for key in [key for key in names if key[0] == group][: max(1, each // len({g for g, _ in names}))]
        }
        chosen = [key for key in names if key in kept]
        if chosen:
            left = len(names) - len(chosen)
            note = "Lines are queries (their targets in the legend), dotted lines encounters, crosses local maxima (t_LAM)."
            note += f" Left out here: {left} more passages." if left else ""
            title = "" if len(parts) == 1 else label
            texts = document.get("texts") or {}
            beside = [_beside(key, facts, str(texts.get(key[1], ""))) for key in chosen]
            blocks.append(Figures([(title, _figure(chosen, facts, document.get("fact_steps") or []))], note, beside))
    return Section("One passage: pick it", blocks, missing)


def _beside(key: tuple[str, str], facts: Sequence[Mapping[str, Any]], text: str) -> list[Block]:
    """What stands beside a passage's curves: its text, where the run kept it, and its questions."""
    rows = [
        [fact["depth"], fact["prompt"], fact["target"], *(signed(fact["y"][k]) if fact["y"] else "–" for k in (0, -1))]
        for fact in facts
        if (fact["group"], fact["passage"]) == key
    ]
    columns = ["depth", "asked", "target", "before", "at the end"]
    table = Table(columns, rows, f"{key[0]}: {key[1]}. Log-probabilities of the target in nats.", 3)
    return [*([Text(text, quoted=True)] if text else []), table]


def _figure(chosen: Sequence[tuple[str, str]], facts: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> go.Figure:
    of: dict[tuple[str, str], list[Mapping[str, Any]]] = {key: [] for key in chosen}
    for fact in facts:
        if (fact["group"], fact["passage"]) in of:
            of[fact["group"], fact["passage"]].append(fact)
    most = max(len(queries) for queries in of.values())
    views = [_view(of[key], most) for key in chosen]
    traces = []
    first = views[0]
    for k in range(most + 1):
        crosses = k == most
        line = {"color": first["traces"]["line.color"][k], "dash": first["traces"]["line.dash"][k], "width": 1.6}
        traces.append(
            {
                "type": "scatter",
                "x": first["traces"]["x"][k] if crosses else list(steps),
                "y": first["traces"]["y"][k],
                "name": first["traces"]["name"][k],
                "hovertext": first["traces"]["hovertext"][k],
                "hovertemplate": "%{hovertext}<br>state %{x}: %{y:.2f}<extra></extra>",
                "mode": "markers" if crosses else "lines",
                "line": line,
                "marker": {"symbol": "x", "size": 7, "color": INK},
            }
        )
    buttons = [
        {
            "label": escaped(f"{group}: {passage}", 60),
            "method": "update",
            "args": [view["traces"], {"shapes": view["shapes"]}],
        }
        for (group, passage), view in zip(chosen, views, strict=True)
    ]
    return draw(
        traces,
        560,
        x={"title": {"text": "state (updates made)"}},
        y={"title": {"text": "log-probability of the target (nats)"}},
        shapes=first["shapes"],
        updatemenus=[{"buttons": buttons}] if len(buttons) > 1 else [],  # the page's script makes a list of it
        legend={"font": {"size": 11}},
    )


def _view(queries: Sequence[Mapping[str, Any]], most: int) -> dict[str, Any]:
    """What the figure shows of one passage: values of every trace (None: as in all), and a line for each encounter."""
    names = ("x", "y", "name", "hovertext", "line.color", "line.dash")
    traces: dict[str, list[Any]] = {name: [] for name in names}
    peaks: dict[str, list[Any]] = {"x": [], "y": [], "hovertext": []}
    counts = dict.fromkeys(DEPTHS, 0)
    for k in range(most):
        query = queries[k] if k < len(queries) else None
        if query is None:
            for name, empty in zip(names, ([], [], "", [], "#000000", "solid"), strict=True):
                traces[name].append(None if name == "x" else empty)
            continue
        depth = str(query["depth"])
        said = escaped(f"{query['prompt']} → {query['target']}", 160)
        traces["x"].append(None)  # the same for all
        traces["y"].append([None if value is None else round(value, 2) for value in query["y"]])
        traces["name"].append(escaped(f"{depth[:4]}.: {query['target']}", 30))
        traces["hovertext"].append(said)
        traces["line.color"].append(_COLOURS.get(depth, "#000000"))
        traces["line.dash"].append(_DASHES[counts.get(depth, 0) % len(_DASHES)])
        counts[depth] = counts.get(depth, 0) + 1
        peaks["x"] += query["t_lam"]
        peaks["y"] += query["y_lam"]
        peaks["hovertext"] += [f"t_LAM: {said}"] * len(query["t_lam"])
    for name in ("x", "y", "hovertext"):
        traces[name].append(peaks[name])
    traces["name"].append("t_LAM")
    traces["line.color"].append(INK)
    traces["line.dash"].append("solid")
    shapes = list(map(upright, queries[0]["injections"] if queries else []))
    return {"traces": traces, "shapes": shapes}
