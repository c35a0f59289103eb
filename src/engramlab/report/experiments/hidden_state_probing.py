"""The sections of the hidden-state-probing report: what the name alone says (Q), what the text before each attribute says (P),
and how Q-probing goes together with extraction.

Accuracy is on P_test, the subjects that no probe was trained on; beside every number stands that of always saying P_train's
commonest class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import GREY, Bar, bars, escaped, legend_mark, percent, share_axes, style, styles
from engramlab.report.parts.maps import Map, Scale, heat, pick
from engramlab.report.parts.paper import SOURCE
from engramlab.report.parts.training import missing
from engramlab.report.parts.words import TARGETS, ranged
from engramlab.report.rows import Row, RunData, distinct, number, words

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "x")
_MOST_MAPS = 4  # datasets under one another; more go behind a menu


def headline(runs: Sequence[RunData]) -> str:
    """One sentence: how Q-probing and extraction go together, or what Q-probing reads best."""
    for run in runs:
        for row in run.summary.get("spearman", ()):
            if (row["target"], row["measure"]) == ("whole", "accuracy") and row["rho"] is not None:
                return (
                    f"Q-probing and extraction: Spearman's ρ = {row['rho']:.2f} over {row['points']} points "
                    "(one a dataset and attribute, whole values)."
                )
    # Q-probing, or P-probing before anything is stated: later in a text a value may be about to be written.
    rows = [row for row in _rows(runs) if not row["position"] and not row["control"]]
    rows = [row for row in rows if row["probe"] == "Q"] or rows
    if not rows:
        return missing(runs, "Nothing was probed")
    best = max(rows, key=lambda row: row["accuracy"] - row["majority"])
    where = "the name alone" if best["probe"] == "Q" else "what stands before the first attribute"
    return (
        f"Read best of held-out subjects from {where}: the {TARGETS[best['target']]} of {words(best['attribute'])} "
        f"({_name(best, runs)}), {percent(best['accuracy'])} where the commonest class has {percent(best['majority'])}."
    )


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_together(runs), _q(runs), _p(runs), _closer(runs), _every_row(runs), _skipped(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """What the command line prints at the end: Q-probing, and P-probing at its first place."""
    found, controls = [], _controls(summary["rows"])
    for probe, title in (
        ("Q", "Q-probing: the name alone"),
        ("P", "P-probing before the first attribute (position 0)"),
    ):
        rows = [r for r in summary["rows"] if r["probe"] == probe and not r["control"] and not r["position"]]
        if rows:
            found.append(_narrow(rows, controls, f"{title} (P_test)"))
    rhos = [
        [
            TARGETS[r["target"]],
            "classes in P_train" if "reachable" in r["measure"] else "all",
            str(r["points"]),
            ranged(r, "rho", 2, ""),
        ]
        for r in summary.get("spearman", ())
    ]
    if rhos:
        found.append(Table(["target", "P_test", "points", "ρ"], rhos, "Q-probing and extraction, Spearman's ρ", 2))
    return found


def _narrow(rows: Sequence[Row], controls: Mapping[tuple[Any, ...], Row], title: str) -> Table:
    """What fits a terminal: the page has the rest. Columns that would be empty, or all alike, are left out."""
    several = len({row["part"] for row in rows}) > 1
    extracted = any(row.get("extraction") is not None for row in rows)
    heads = [*(["dataset"] if several else []), "attribute", "read", "accuracy", "majority"]
    heads += [*(["shuffled"] if controls else []), *(["extraction"] if extracted else [])]
    cells = []
    for row in rows:
        accuracy, interval, majority, shuffled, *_, extraction = (
            part.removesuffix(" %") for part in _numbers(row, controls)
        )
        line = [*([row["part"]] if several else []), words(row["attribute"]), row["target"]]
        line += [f"{accuracy} ({interval})", majority]
        cells.append([*line, *([shuffled] if controls else []), *([extraction] if extracted else [])])
    return Table(heads, cells, title, 2 + several)


_NUMBERS = ("accuracy", "95 % interval", "majority", "shuffled", "reachable", "of reachable", "extraction")


def _numbers(row: Row, controls: Mapping[tuple[Any, ...], Row]) -> list[str]:
    control = controls.get(_task(row))
    return [
        percent(row["accuracy"]),
        f"{100 * row['low']:.1f}–{100 * row['high']:.1f}",
        percent(row["majority"]),
        percent(control["accuracy"] if control else None),
        percent(row["reachable"]),
        percent(row["accuracy_reachable"]),
        percent(row.get("extraction")),
    ]


def _task(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("run", "part", "probe", "target", "attribute", "position"))


def _controls(rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """The tasks with shuffled labels, by the task that each stands beside."""
    return {_task(row): row for row in rows if row["control"]}


def _rows(runs: Sequence[RunData]) -> list[Row]:
    return [row for run in runs for row in run.rows if number(row.get("accuracy")) is not None]


def _name(row: Row, runs: Sequence[RunData]) -> str:
    return f"{row['part']} ({row['run']})" if len(runs) > 1 else str(row["part"])


def _together(runs: Sequence[RunData]) -> Section:
    """Extraction against Q-probing: one point a dataset and attribute."""
    title = "Q-probing and extraction"
    figures, texts = [], []
    for target, what in TARGETS.items():
        rows = [
            row
            for row in _rows(runs)
            if (row["probe"], row["target"], row["control"]) == ("Q", target, False)
            and number(row.get("extraction")) is not None
        ]
        if rows:
            figures.append((f"P_test, {what}", _cloud(rows, runs, what)))
    for run in runs:
        for row in run.summary.get("spearman", ()):
            which = ", of subjects whose class occurs in P_train" if "reachable" in row["measure"] else ""
            texts.append(
                f"{TARGETS[row['target']]}{which}: ρ = {ranged(row, 'rho', 2, '')} ({row['points']} points, run {run.name})"
            )
    if not figures:
        why = "No extraction accuracy stands beside these numbers: only finished knowledge-extraction runs have it."
        if not any(row["probe"] == "Q" for row in _rows(runs)):
            why = "Q-probing was not measured."
        return Section(title, [], why if _rows(runs) else missing(runs))
    note = (
        "Each point is one dataset and attribute: the share of held-out subjects for whom a classifier of the hidden state at "
        "the end of the name gives the value, against the share of questions about them that the finetuned model answers. "
        f"In the paper the two agree ({SOURCE}, section 5). Spearman's ρ: " + "; ".join(texts) + "."
    )
    return Section(title, [Figures(figures, note)])


def _cloud(rows: Sequence[Row], runs: Sequence[RunData], what: str) -> go.Figure:
    figure = go.Figure()
    colours = styles(distinct(row["part"] for row in _rows(runs)))
    attributes = distinct(row["attribute"] for row in rows)
    symbols = {attribute: _SYMBOLS[i % len(_SYMBOLS)] for i, attribute in enumerate(attributes)}
    figure.add_scatter(
        x=[0, 100], y=[0, 100], mode="lines", line={"color": "#ccc", "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    for part in distinct(row["part"] for row in rows):
        of = [row for row in rows if row["part"] == part]
        figure.add_scatter(
            x=[100 * row["accuracy"] for row in of],
            y=[100 * row["extraction"] for row in of],
            mode="markers",
            name=escaped(part),
            marker={
                "size": 10,
                "color": colours[part][0],
                "symbol": [symbols[row["attribute"]] for row in of],
                "line": {"width": 1, "color": "white"},
            },
            hovertext=[
                f"{escaped(_name(row, runs))}, {escaped(words(row['attribute']))}: Q {percent(row['accuracy'])}, "
                f"extraction {percent(row['extraction'])}"
                for row in of
            ],
            hoverinfo="text",
        )
    for attribute in attributes:
        legend_mark(figure, words(attribute), symbols[attribute], 10)
    return share_axes(figure, f"Q-probing, {what}", "extraction", height=520)


def _q(runs: Sequence[RunData]) -> Section:
    """Bars with intervals and baselines, for each dataset and attribute."""
    title = "Q-probing: what the name alone says"
    rows = [row for row in _rows(runs) if row["probe"] == "Q"]
    if not rows:
        return Section(title, [], missing(runs))
    colours = styles(distinct(row["part"] for row in _rows(runs)))
    figures = []
    for target, what in TARGETS.items():
        groups = []
        for name in distinct(_name(row, runs) for row in rows):
            members = []
            for row in rows:
                if _name(row, runs) == name and row["target"] == target:
                    label = words(row["attribute"]) + (", shuffled labels" if row["control"] else "")
                    colour = GREY if row["control"] else colours[row["part"]][0]
                    hover = f"{name}, {label}: {percent(row['accuracy'])}, majority {percent(row['majority'])}"
                    members.append(
                        Bar(label, row["accuracy"], colour, row["low"], row["high"], ring=row["majority"], hover=hover)
                    )
            if members:
                groups.append((name, members))
        if groups:
            figures.append((what, bars(groups, "held-out subjects", bar="probe", ring="commonest class of P_train")))
    note = "Whiskers are 95 % bootstrap intervals over subjects; rings are the accuracy of P_train's commonest class."
    return Section(title, [Figures(figures, note)])


def _p(runs: Sequence[RunData]) -> Section:
    """Attribute by position, one map a dataset, whole values beside first tokens."""
    title = "P-probing: what the text says before each attribute"
    rows = [row for row in _rows(runs) if row["probe"] == "P" and not row["control"]]
    if not rows:
        return Section(title, [], missing(runs))
    names = distinct(_name(row, runs) for row in rows)
    targets = [target for target in TARGETS if any(row["target"] == target for row in rows)]

    def maps(chosen: Sequence[str]) -> list[tuple[Scale, list[Map]]]:
        return [
            (
                Scale(TARGETS[target], 0, 1),
                [_map(name, [r for r in rows if _name(r, runs) == name], target) for name in chosen],
            )
            for target in targets
        ]

    x = "position (0 is before the first attribute that the text states)"
    many = len(names) > _MOST_MAPS
    figure = pick([(name, maps([name])) for name in names], x=x) if many else heat(maps(names), x=x)
    note = (
        "Accuracy on entries of held-out subjects. A position is the token just before an attribute, in the order in which an "
        "entry states them; an attribute that was stated before it can be read off the text."
    )
    return Section(title, [Figures([("", figure)], note)])


def _map(name: str, rows: Sequence[Row], target: str) -> Map:
    of = [row for row in rows if row["target"] == target]
    places = sorted({row["position"] for row in rows})
    attributes = distinct(row["attribute"] for row in of)
    found = {(row["attribute"], row["position"]): row["accuracy"] for row in of}
    values = [[found.get((attribute, place), float("nan")) for place in places] for attribute in attributes]
    return Map(name, [words(attribute) for attribute in attributes], places, values)


def _closer(runs: Sequence[RunData]) -> Section:
    """coupleC: accuracy by what has been seen, and the second of each pair with and without its first."""
    title = "Closer P-probing: by the attributes already seen"
    rows = [{**row, "run": run.name} for run in runs for row in run.summary.get("closer", ())]
    if not rows:
        return Section(title, [], "Only coupleC datasets, whose sentences come in ordered pairs, have this.")
    blocks: list[Block] = []
    for name in distinct(_name(row, runs) for row in rows):
        of = [row for row in rows if _name(row, runs) == name]
        figures = []
        for target, what in TARGETS.items():
            chosen = [row for row in of if row["target"] == target]
            if chosen:
                figures.append((f"{name}, {what}: the partner seen or not", _pairs(chosen)))
                figures.append((f"{name}, {what}: every set", _subsets(chosen)))
        blocks.append(Figures(figures))
    blocks.append(
        Text(
            "An entry's sentences come in ordered pairs, the pairs in any order. Where an attribute is stored with what was "
            "read before it, the second of a pair can be read once the first has been seen, and hardly before."
        )
    )
    return Section(title, blocks)


def _pairs(rows: Sequence[Row]) -> go.Figure:
    groups = []
    for attribute in distinct(row["attribute"] for row in rows):
        of_it = [row for row in rows if row["attribute"] == attribute]
        partner, members = of_it[0]["partner"], []
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


def _subsets(rows: Sequence[Row]) -> go.Figure:
    sets = sorted(distinct(tuple(row["seen"]) for row in rows), key=lambda one: (len(one), one))
    found = {(row["attribute"], tuple(row["seen"])): row["accuracy"] for row in rows}
    asked = distinct(row["attribute"] for row in rows)
    figure = go.Figure()
    figure.add_heatmap(
        z=[[found.get((attribute, one)) for attribute in asked] for one in sets],
        x=[escaped(words(attribute), 18) for attribute in asked],
        y=[f"{k} " + escaped(", ".join(map(words, one)) or "nothing", 60) for k, one in enumerate(sets)],
        zmin=0,
        zmax=1,
        colorscale="Blues",
        hovertemplate="%{x} after %{y}: %{z:.2f}<extra></extra>",
    )
    style(figure, height=22 * len(sets) + 120)
    figure.update_xaxes(title="read", showgrid=False)
    figure.update_yaxes(title="seen", autorange="reversed", showgrid=False)
    return figure


def _every_row(runs: Sequence[RunData]) -> Section:
    rows, controls = [row for row in _rows(runs) if not row["control"]], _controls(_rows(runs))
    cells = [
        [
            _name(row, runs),
            row["probe"],
            TARGETS[row["target"]],
            words(row["attribute"]),
            "–" if row["position"] is None else str(row["position"]),
            str(row["classes"]),
            *_numbers(row, controls),
        ]
        for row in rows
    ]
    columns = ["dataset", "probe", "target", "attribute", "position", "classes", *_NUMBERS]
    caption = (
        "Reachable: the share of P_test whose class occurs in P_train; no probe can be right about the others. Shuffled: the "
        "same task with labels shuffled over subjects."
    )
    return Section("Every number", [Table(columns, cells, caption, 4)] if cells else [], missing(runs))


def _skipped(runs: Sequence[RunData]) -> Section:
    rows = [
        [run.name, row["dataset"], TARGETS[row["target"]], words(row["attribute"]), row["reason"]]
        for run in runs
        for row in run.summary.get("skipped", ())
    ]
    table = Table(["run", "dataset", "target", "attribute", "why"], rows)
    return Section("Not probed", [table] if rows else [], "Every task could be probed.")
