"""The sections of the knowledge-capacity report: bits a parameter, against people and against parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, Line, bars, curves, styles
from engramlab.report.parts.training import missing, training_section
from engramlab.report.parts.words import count, fixed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2404.05405"
CAPACITY = {1000: 2.0, 100: 1.0}  # bits a parameter by exposures, as the paper finds them
#: How many times less is stored in the paper, by exposures: beside 7/8 of junk, and where its facts have a domain token; with a
#: gated MLP in the place of a plain one; and rounded (int4: 0.7 bits a parameter of the 2 that 1000 exposures give).
LESS: dict[str, dict[int, float]] = {
    "junk": {100: 20, 300: 3, 600: 1.5, 1000: 1.3},
    "junk+domain": {100: 2, 300: 1},
    "gated": {100: 1.3},
    "int8": {1000: 1.0},
    "int4": {1000: 2 / 0.7},
}
FILLED, MOST = 1.8, 2.3  # where R is to be Rmax, and what no R is to pass
ADVISED = 50_000  # steps, at least
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
                # Runs of before have none of these.
                **dict.fromkeys(("arm", "numbers", "corpus", "network", "mixture"), Maybe(str)),
                **dict.fromkeys(("ratio", "ratio_theorem", "ratio_unclamped", "ratio_most", "steps"), Maybe(float)),
                "parameters_all": Maybe(float),
                **dict.fromkeys(("paper_name", "paper_value", "paper_diversity"), Maybe(float)),
            }
        ]
    )
}
_TITLE = "Bits of knowledge stored, at least"
_ALONG = "Along training"
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
    corpus = f" of {best['corpus']}" if best.get("corpus") else ""
    return (
        f"At most {best['bits_per_parameter']:.2f} bits a parameter ({_series(best)}, {count(best['people'])} people{corpus}, "
        f"{best['exposures']} exposures); the paper finds 2 after 1000 exposures and 1 after 100 ({SOURCE})."
    )


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    found = [_capacity(runs), _beside(runs), _checks(runs), _decomposed(runs), _along(runs), training_section(runs)]
    return [section for section in found if section.blocks or section.title in (_TITLE, _ALONG)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The table for the terminal."""
    cells = [
        [
            _series(row),
            *(count(row[name]) for name in ("people", "parameters", "bits")),
            f"{100 * row['share']:.0f} %",
            f"{row['bits_per_parameter']:.3f}",
            fixed(row.get("ratio")),
        ]
        for row in summary.get("rows") or []
    ]
    columns = ["size", "people", "parameters", "bits stored", "of all there is", "bits a parameter", "R"]
    exposures = ", ".join(map(str, distinct(row["exposures"] for row in summary.get("rows") or [])))
    return [Table(columns, cells, f"{_TITLE}, after {exposures} exposures", numbers_from=1)] if cells else []


def _rows(runs: Sequence[RunData]) -> list[Row]:
    return [row for run in runs for row in run.rows if number(row.get("bits_per_parameter")) is not None]


def _series(row: Row) -> str:
    """A model's size, and what else sets it apart."""
    return ", ".join(filter(None, (row["size"], row.get("arm"))))


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
    looks = styles(distinct(map(_series, _rows(runs))))
    lines = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for size, (colour, _) in looks.items():
            chosen = sorted((row for row in _rows([run]) if _series(row) == size), key=lambda row: row["people"])
            people = [row["people"] for row in chosen]
            if chosen:
                lines.append(Line(f"{size}{of}", people, [row["bits_per_parameter"] for row in chosen], colour))
                most = [row["possible_per_parameter"] for row in chosen]
                lines.append(Line(f"{size}{of}, all there is", people, most, colour, "dot"))
    return _with_paper(runs, lines, "people", "people")


def _by_parameters(runs: Sequence[RunData]) -> go.Figure:
    groups = distinct((row["people"], row.get("arm")) for row in _rows(runs))
    names = [", ".join(filter(None, (f"{count(people)} people", arm))) for people, arm in groups]
    looks = styles(names)
    lines = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for group, name in zip(groups, names, strict=True):
            rows = [row for row in _rows([run]) if (row["people"], row.get("arm")) == group]
            chosen = sorted(rows, key=lambda row: row["parameters"])
            if chosen:
                xs, ys = [row["parameters"] for row in chosen], [row["bits_per_parameter"] for row in chosen]
                lines.append(Line(f"{name}{of}", xs, ys, looks[name][0]))
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
    return curves([*lines, *paper], x=x, y="bits a parameter", log_x=True, yaxis={"rangemode": "tozero"})


def _table(runs: Sequence[RunData]) -> Table:
    cells = []
    for row in _rows(runs):
        apart = ("loss_name", "loss_work_city", "loss_first_chunk")
        values = sum(v for k, v in row.items() if k.startswith("loss_") and k not in apart)
        cells.append(
            [
                *([row["run"]] if len(runs) > 1 else []),
                _series(row),
                row.get("corpus") or "",
                *(count(row[name]) for name in ("people", "exposures", "parameters", "body", "bits", "possible_bits")),
                f"{100 * row['share']:.0f}\u00a0%",
                *(f"{row[name]:.3f}" for name in ("bits_per_parameter", "bits_per_body_parameter")),
                *(fixed(row.get(name)) for name in ("ratio_unclamped", "ratio_theorem", "ratio", "ratio_most")),
                *(f"{value:.2f}" for value in (row["loss_name"], values)),
            ]
        )
    columns = [
        *(["run"] if len(runs) > 1 else []),
        *("model", "corpus", "people", "exposures", "parameters", "without embedding", "bits", "possible", "share"),
        *(
            "bits a parameter",
            "a parameter without embedding",
            "unclamped",
            "the theorem's",
            "the paper's R",
            "its Rmax",
        ),
        *("loss on names", "on values"),
    ]
    steps = [row["steps"] for row in _rows(runs) if row.get("steps")]
    caption = (
        "Bits stored at least, out of all there is to know; losses in nats (on values a person's, of bioD one value's). Bits "
        f"are counted exactly and no attribute's below zero; unclamped, with N0 - N (the theorem) and with N0 (R), by {SOURCE}."
    )
    whole = [row for row in _rows(runs) if (number(row.get("parameters_all")) or 0) > row["parameters"]]
    if whole:
        caption += (
            f" Parameters are those of tokens that occur; the first model has {count(whole[0]['parameters_all'])} with the "
            "embeddings of all tokens."
        )
    if steps and min(steps) < ADVISED:
        caption += f" The paper advises at least {ADVISED:,} steps; here they are {min(steps):,} to {max(steps):,}."
    return Table(columns, cells, caption, numbers_from=len(columns) - 14)


def _published(row: Row, first: Row) -> float | None:
    """How many times less than the first the paper finds; None where it does not say, or the two differ in more."""
    gated, plain = (_gated(one.get("network") or "") for one in (row, first))
    kinds = [str(row.get(key)) for key in ("numbers", "mixture") if row.get(key) != first.get(key)]
    kinds += ["gated"] if gated and not plain else []
    return LESS.get(kinds[0], {}).get(row["exposures"]) if len(kinds) == 1 else None


def _gated(network: str) -> bool:
    return "gated" in network or (network.startswith("llama") and "plain" not in network and "nomlp" not in network)


def _beside(runs: Sequence[RunData]) -> Section:
    """Every kind beside the first of its size and people in the run."""
    title = "Kinds of models and texts"
    cells: list[list[str]] = []
    groups: list[tuple[str, list[Bar]]] = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        rows = _rows([run])
        for size, people, exposures in distinct((row["size"], row["people"], row["exposures"]) for row in rows):
            same = [row for row in rows if (row["size"], row["people"]) == (size, people)]
            first, base = same[0], same[0]["bits_per_parameter"]
            if len(same) < 2:
                continue
            drawn: list[Bar] = []
            for row in same:
                ours, theirs = row["bits_per_parameter"], _published(row, first)
                label = row.get("arm") or "plain"
                drawn.append(Bar(label, ours / base if base else None, PALETTE[0]))
                if theirs is not None:
                    drawn.append(Bar(f"{label}, in the paper", 1 / theirs, published=True))
                less = "–" if row is first or not ours or not base else f"{base / ours:.2f} × less"
                said = "" if theirs is None else "as much" if theirs == 1 else f"{theirs:.2g} × less"
                mine = [run.name] if len(runs) > 1 else []
                cells.append([*mine, label, size, count(people), count(exposures), f"{ours:.3f}", less, said])
            groups.append((f"{size}, {count(people)} people, {count(exposures)} exposures{of}", drawn))
    if not cells:
        return Section(title, [])
    columns = [*(["run"] if len(runs) > 1 else []), "kind", "size", "people", "exposures", "bits a parameter"]
    table = Table(
        [*columns, "than the first", f"in {SOURCE}"], cells, "Every kind beside the first of its size and people."
    )
    figure = bars(groups, "bits a parameter, % of the first kind's", bar="here", paper=SOURCE)
    return Section(title, [Figures([("", figure)]), table])


def _checks(runs: Sequence[RunData]) -> Section:
    """What the paper holds of every model that was trained long enough."""
    rows = [row for row in _rows(runs) if row.get("ratio") is not None and row.get("ratio_most")]
    if not rows:
        return Section("The paper's checks", [])
    plain = [row for row in rows if row.get("numbers") == "float32" and row.get("mixture") == "alone"]
    free = [row["ratio"] / row["ratio_most"] for row in plain if row["ratio_most"] <= FILLED]
    filled = f"{min(free):.2f} to {max(free):.2f} in {len(free)} models" if free else "no such model"
    cells = [
        [f"R is about Rmax where Rmax is at most {FILLED}", f"R / Rmax: {filled}"],
        [f"R is at most {MOST}", f"the largest R: {max(row['ratio'] for row in rows):.2f}"],
    ]
    caption = f"By the paper's own definitions ({SOURCE}); the first holds of models trained for 1000 exposures."
    return Section("The paper's checks", [Table(["in the paper", "here"], cells, caption)])


def _decomposed(runs: Sequence[RunData]) -> Section:
    """Of bioD: the theorem's three terms."""
    cells = [
        [
            *([row["run"]] if len(runs) > 1 else []),
            _series(row),
            count(row["people"]),
            *(count(row[f"paper_{name}"]) for name in ("name", "value", "diversity")),
            count(row["bits"]),
        ]
        for row in _rows(runs)
        if row.get("paper_diversity") is not None
    ]
    columns = ["model", "people", "names", "values", "diversity", "ours in all"]
    columns = (["run"] if len(runs) > 1 else []) + columns
    caption = (
        f"Bits by the three terms of the theorem ({SOURCE}), which may lie below zero, and ours, which needs no third."
    )
    return Section("What of bioD is stored", [Table(columns, cells, caption)] if cells else [])


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
        return Section(_ALONG, [], missing(runs))
    figure = curves(lines, x="exposures of each person", y="bits a parameter")
    return Section(_ALONG, [Figures([("", figure)])])
