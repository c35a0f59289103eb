"""The sections of the knowledge-acquisition report: how facts rise at each encounter, and how fast they are forgotten.

Source of the measures: arXiv 2406.11813. Log-probabilities are natural; a gain of 0.7 doubles a target's probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.base.rows import DEPTHS
from engramlab.report.parts.acquired_claims import claims_section, power_section, written_section
from engramlab.report.parts.acquired_facts import facts_section
from engramlab.report.parts.acquired_parts import PartRows, by_depth, measured, read_parts
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import DASHES, LOGARITHMIC, TEXT, Line, alike, curves, draw, escaped, upright
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.verdicts import NOISE, Interval, interval, more
from engramlab.report.parts.words import big, count, fixed, ranged, signed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

_COLOURS = {"duplicate": "#D55E00", "paraphrase": "#0072B2", "once": "#009E73", "never": "#767676"}
#: Of a summary.
NEEDS = {
    "parts": Maybe([{"dataset": str, "base": Maybe(float)}]),
    "power": Maybe([{"compared": str, "depth": str}]),
    "rows": Maybe(
        [
            {
                "group": Maybe(str),
                "depth": Maybe(str),
                "by_encounter": Maybe(list),
                "by_encounter_lifted": Maybe(list),
                "written_by_encounter": Maybe(list),
            }
        ]
    ),
}
_DASHES = dict(zip(_COLOURS, DASHES, strict=True))
_PARTS_SHOWN = 6  # parts whose curves are drawn; tables have all


def _named(group: str, part: PartRows, parts: Sequence[PartRows]) -> str:
    return group if len(parts) == 1 else f"{group}, {part.label}"


READING = (
    "Effectivity is how far one reading lifts the log-probability of a fact's target at its best; a control that is never "
    "injected shows what such a maximum has by chance, so read what lies above it. Then the facts are forgotten along the "
    "logarithm of time; where that line reaches 0, nothing is left."
)


def headline(runs: Sequence[RunData]) -> str:
    """What an encounter gains above the control at each depth, with its interval, and how long an interval may be."""
    parts = read_parts(runs)
    texts = []
    for part in parts[:2]:
        group = next((g for g in ("duplicate", "paraphrase", "once") if g in part.groups), "")
        name = "effectivity_net" if "never" in part.groups else "effectivity"
        gains = {depth: interval(part.row(group, depth), name) for depth in DEPTHS}
        said = [f"{depth} {_gained(gain)}" for depth, gain in gains.items() if gain is not None]
        if not said:
            continue
        over = "above the control that was not injected" if name.endswith("net") else "with no control to compare with"
        threshold = big(part.row(group, "memorization").get("threshold_steps"))
        after = (
            f"; forgotten after about {_threshold(part.row(group, 'memorization'))} steps" if threshold != "–" else ""
        )
        texts.append(
            (f"{part.label}: " if len(parts) > 1 else "")
            + f"one encounter ({group}) gains, {over}, in nats: {', '.join(said)}{after}"
        )
    return (
        ". ".join(text[0].upper() + text[1:] for text in texts) + "."
        if texts
        else missing(runs, "Nothing was injected")
    )


def _gained(gain: Interval) -> str:
    """A gain with its interval, and a word where it may be none."""
    return f"{gain.value:+.2f} ({gain.low:.2f} to {gain.high:.2f})" + ("" if more(gain, 0.0) else f", {NOISE}")


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    parts = read_parts(runs)
    return [
        _rise_and_fall(runs, parts),
        _effectivity(runs, parts),
        _forgetting(runs, parts),
        claims_section(runs, parts),
        power_section(runs),
        written_section(runs, parts),
        facts_section([(part.label, part.curves) for part in parts], missing(runs)),
        _chosen(runs, parts),
        training_section(runs),
    ]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """Tables for the terminal: what an encounter gains, and how it is forgotten."""
    rows = [row for row in summary.get("rows") or [] if number(row.get("effectivity")) is not None]
    if not rows:
        return []
    several = len(summary.get("parts") or []) > 1
    lead = ["part"] if several else []

    def first(row: Row) -> list[str]:
        return [*([str(row.get("dataset"))] if several else []), str(row.get("group")), str(row.get("depth"))]

    measured = ("effectivity", "effectivity_net")
    gains = [[*first(row), *(ranged(row, name) for name in measured), signed(row.get("final_gain"))] for row in rows]
    columns = [*lead, "group", "depth", "an encounter", "above control", "in the end"]
    decays = [[*first(row), *_decay(row), _threshold(row, 1e6)] for row in rows if "decay_constant" in row]
    what = "How it is forgotten"
    return [
        Table(columns, gains, "What is gained (nats, 95 % interval)", len(lead) + 2),
        Table([*lead, "group", "depth", "decay constant", "R²", "steps until gone"], decays, what, len(lead) + 2),
    ]


# sections -------------------------------------------------------------------------------------------------------------


def _rise_and_fall(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    title = "Rise at each encounter, decay after it"
    blocks: list[Block] = []
    for part in parts[:_PARTS_SHOWN]:
        figures = []
        for depth in DEPTHS:
            found = [curve for curve in part.curves.get("curves") or [] if curve["depth"] == depth]
            lines = [
                Line(
                    group := curve["group"],
                    curve["x"],
                    curve["y"],
                    _COLOURS.get(group, TEXT),
                    _DASHES.get(group, "solid"),
                )
                for curve in found
            ]
            if not lines:
                continue
            steps = sorted({step for curve in found for step in curve["injections"]})
            drawn = curves(
                lines,
                x="steps since the first injection",
                y="Δ log-probability (nats)",
                shapes=list(map(upright, steps)),
            )
            figures.append((depth, drawn))
        if figures:
            note = "Mean over queries of the log-probability of the target, less that before the first injection"
            where = f" ({part.label})" if len(parts) > 1 else ""
            blocks.append(Figures(alike(figures), f"{note}{where}. Dotted: injections."))
    if len(parts) > _PARTS_SHOWN:
        blocks.append(Text(f"Drawn are the first {_PARTS_SHOWN} parts of {len(parts)}; the tables have all."))
    return Section(title, blocks, missing(runs))


def _effectivity(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    bars = []
    names = [depth for depth in DEPTHS if any(part.row(group, depth) for part in parts for group in part.groups)]
    shades = ("", "/", "x", ".", "-", "+")
    for k, part in enumerate(parts[:_PARTS_SHOWN]):
        for group in part.groups:
            rows = [part.row(group, depth) for depth in names]
            values = [number(row.get("effectivity")) for row in rows]
            high = [_span(row, "effectivity", "high") for row in rows]
            low = [_span(row, "effectivity", "low") for row in rows]
            bars.append(
                {
                    "type": "bar",
                    "x": names,
                    "y": values,
                    "name": escaped(_named(group, part, parts), 44),
                    "marker": {
                        "color": _COLOURS.get(group, "#000000"),
                        "pattern": {"shape": shades[k % len(shades)]},
                    },
                    "error_y": {"type": "data", "array": high, "arrayminus": low, "color": TEXT},
                }
            )
    blocks: list[Block] = []
    if bars:
        drawn = draw(bars, 400, y={"title": {"text": "effectivity (nats)"}}, barmode="group")
        note = "Mean over queries and encounters, whiskers 95 % intervals over passages."
        if any("never" in part.groups for part in parts):
            note += " never: the control, which is not injected; what a maximum over a window gains by chance."
        blocks.append(Figures([("", drawn)], note))
        if turns := _by_encounter(parts):
            blocks.append(
                Figures(turns, "Effectivity of each encounter in turn; the first one gains most in the paper.")
            )
    lines: list[list[str]] = []
    for start, row in measured(parts):
        each = row.get("by_encounter") or [None]
        cells = [ranged(row, "effectivity"), ranged(row, "effectivity_net"), signed(each[0]), signed(each[-1])]
        cells += [fixed(row.get("before")), fixed(row.get("after")), signed(row.get("final_gain"))]
        cells += [ranged(row, "effectivity_all"), count(row.get("effectivity_outliers"))]
        cells += [signed(lifted[0] if (lifted := row.get("by_encounter_lifted")) else None), _sum(row.get("failed"))]
        lines.append([*start, *cells, str(row.get("queries"))])
    columns = "effectivity|above the control|first encounter|last|before|at the end|gain|with outliers|outliers"
    columns += "|first without failed ones|failed|queries"
    caption = (
        "Log-probabilities in nats: what an encounter gains at its best, how much of that lies above what the control gains by "
        "chance, and where targets stand before and after. A gain taken off the control's drift (see below) is after less "
        "before, less the same of the control. Outliers by the rule of interquartile ranges are left out, as in "
        "the paper; the mean with them stands beside. An encounter has failed where its maximum lies below the state before: "
        "the paper leaves those out encounter by encounter (app. H), here both are given."
    )
    blocks += by_depth(parts, columns, lines, caption)
    return Section("Effectivity: what an encounter gains", blocks, missing(runs))


def _by_encounter(parts: Sequence[PartRows]) -> list[tuple[str, go.Figure]]:
    figures = []
    for depth in DEPTHS:
        lines = []
        for part in parts[:_PARTS_SHOWN]:
            for group in part.groups:
                values = part.row(group, depth).get("by_encounter") or []
                points = [(i, v) for i, value in enumerate(values, 1) if (v := number(value)) is not None]
                if len(points) > 1:
                    name, dash = _named(group, part, parts), DASHES[parts.index(part) % 4]
                    xs, ys = [i for i, _ in points], [v for _, v in points]
                    lines.append(Line(name, xs, ys, _COLOURS.get(group, "#000"), dash))
        if lines:
            ticks = max(1, round(max(len(line.x) for line in lines) / 10))
            axis = {"rangemode": "normal", "tickformat": "d", "dtick": ticks}
            figures.append((depth, curves(lines, x="encounter", y="effectivity (nats)", xaxis=axis)))
    return list(alike(figures))


def _sum(values: Any) -> str:
    return str(sum(values)) if isinstance(values, list) and all(isinstance(v, int) for v in values) else "–"


def _forgetting(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    blocks: list[Block] = []
    for part in parts[:_PARTS_SHOWN]:
        figures = [(depth, drawn) for depth in DEPTHS if (drawn := _retained(part, depth)) is not None]
        if figures:
            where = f" ({part.label})" if len(parts) > 1 else ""
            note = f"Part of what all encounters gained that is left t steps after the last maximum{where}; dashed: the fit."
            blocks.append(Figures(alike(figures), note))
    rows = []
    for start, row in measured(parts):
        if "decay_constant" in row:
            cells = [*_decay(row), _threshold(row), big(row.get("threshold_tokens"))]
            cells.insert(1, fixed(row.get("stderr"), 4))
            cells.append(fixed(row.get("log10_threshold_tokens")))
            cells.append(f"{count(row.get('undefined'))} / {fixed(row.get('outliers_mean'), 1)}")
            cells[0] = "poor fit" if row.get("poor_fit") else cells[0]
            rows.append([*start, *cells, str(row.get("queries"))])
    columns = "decay constant a|fit's error|R²|threshold, steps|tokens|log₁₀ tokens|without gain / outliers|queries"
    caption = (
        "a: the part lost each time t grows by the logarithm's base, with a 95 % interval from resampled passages; the fit's "
        "own standard error ignores the spread between queries and is too small. Threshold: where the fitted line reaches 0, "
        "the longest interval between encounters at which something is left; it is extrapolated where it lies beyond the run. "
        "Without gain: queries left out because no encounter lifted them; outliers: mean over t. Poor fit: the line explains "
        "too little of the curve for its slope to be a decay constant."
    )
    blocks += by_depth(parts, columns, rows, caption)
    return Section("Forgetting: retainability against log t", blocks, missing(runs))


def _retained(part: PartRows, depth: str) -> go.Figure | None:
    lines = []
    for found in part.curves.get("retainability") or []:
        if found["depth"] != depth:
            continue
        colour = _COLOURS.get(found["group"], "#000000")
        points = [(t, r) for t, r in zip(found["t"], found["r"], strict=True) if r is not None]
        if len(points) < 2:
            continue
        lines.append(Line(found["group"], [t for t, _ in points], [r for _, r in points], colour))
        row = part.row(found["group"], depth)
        slope, intercept = number(row.get("decay_constant")), number(row.get("intercept"))
        if slope is not None and intercept is not None:
            ends = [points[0][0], points[-1][0]]
            base = number(part.about.get("base")) or 10.0
            base = base if base > 1 else 10.0
            fit = [intercept - slope * math.log(max(t, 1)) / math.log(base) for t in ends]
            lines.append(Line(f"{found['group']}: fit", ends, fit, colour, "dash"))
    if not lines:
        return None
    nothing = {"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "y0": 0, "y1": 0, "yref": "y"}
    return curves(
        lines,
        x="t, steps after the last maximum",
        y="retainability",
        markers=False,
        xaxis={**LOGARITHMIC, "dtick": 1},
        shapes=[{**nothing, "line": {"color": "#999999", "width": 1}}],
    )


def _chosen(runs: Sequence[RunData], parts: Sequence[PartRows]) -> Section:
    blocks: list[Block] = []
    for run in runs:
        chosen = run.summary.get("choices")
        if isinstance(chosen, dict):
            caption = f"Run {run.name}" if len(runs) > 1 else ""
            blocks.append(
                Table(["what the definitions leave open", "here"], [[k, str(v)] for k, v in chosen.items()], caption)
            )
    rows = []
    for part in parts:
        about = part.about.get("optimizer")
        if isinstance(about, dict):
            rates = [number(about.get(name)) for name in ("first_rate", "last_rate")]
            rate = " to ".join(f"{value:.3g}" for value in distinct(rates) if value is not None)
            size = f"{part.about.get('batch')} × {part.about.get('window')}"
            cells = [part.label, str(part.about.get("model")), size, str(part.about.get("interval"))]
            rows.append([*cells, str(part.about.get("steps")), rate, str(about.get("moments"))])
    if rows:
        columns = ["part", "model", "batch × window", "interval", "steps", "learning rate", "AdamW's moments"]
        blocks.append(Table(columns, rows, "How each part was trained."))
    return Section("What was chosen", blocks, missing(runs))


# words ----------------------------------------------------------------------------------------------------------------


def _span(row: Row, name: str, end: str) -> float:
    value, bound = number(row.get(name)), number(row.get(f"{name}_{end}"))
    return 0.0 if value is None or bound is None else abs(bound - value)


def _decay(row: Row) -> list[str]:
    return [ranged(row, "decay_constant", 3, "decay_"), fixed(row.get("r_squared"))]


def _threshold(row: Row, most: float = 1e9) -> str:
    text = big(row.get("threshold_steps"), most)
    ends = [big(row.get(f"threshold_steps_{end}"), most) for end in ("low", "high")]
    return text if "–" in ends else f"{text} ({ends[0]} to {ends[1]})"
