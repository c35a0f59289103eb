"""The sections of the hidden-state-probing report: what the name alone says (Q), what the text before each attribute says (P),
and how Q-probing goes together with extraction.

Accuracy is on P_test, the subjects that no probe was trained on; beside every number stands that of always saying P_train's
commonest class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import (
    GREY,
    Bar,
    bars,
    percent,
    styles,
)
from engramlab.report.parts.maps import Map, Scale, heat, pick
from engramlab.report.parts.paper import SOURCE
from engramlab.report.parts.probed import cloud, pairs, subsets
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import NOISE, Interval, interval, more
from engramlab.report.parts.words import TARGETS, ranged
from engramlab.report.rows import Row, RunData, distinct, number, words
from engramlab.report.shapes import Maybe, OneOf

_ROW = {
    "part": str,
    "probe": OneOf(("Q", "P")),
    "target": OneOf(tuple(TARGETS)),
    "attribute": str,
    "position": Maybe(float),
    "classes": float,
    **dict.fromkeys(("accuracy", "low", "high", "majority"), float),
    **dict.fromkeys(("reachable", "accuracy_reachable", "extraction"), Maybe(float)),
    "control": bool,
}
_SEEN = {"part": str, "target": OneOf(tuple(TARGETS)), "attribute": str, "seen": [str], "partner": Maybe(str)}
#: Of a summary.
NEEDS = {
    "rows": Maybe([_ROW]),
    "spearman": Maybe(
        [{"target": OneOf(tuple(TARGETS)), "measure": str, "points": float, "rho": Maybe(float)}],
    ),
    "closer": Maybe([{**_SEEN, "second": bool, "accuracy": float, "examples": float}]),
    "skipped": Maybe([{"dataset": str, "target": OneOf(tuple(TARGETS)), "attribute": str, "reason": str}]),
}
_MOST_MAPS = 4  # datasets under one another; more go behind a menu
READING = (
    "A probe is a nearly linear classifier of a frozen model's hidden states, trained on some subjects and judged on others. "
    "It has found something where its interval lies above the commonest class and above the same probe with shuffled labels."
)


def headline(runs: Sequence[RunData]) -> str:
    """One sentence: how Q-probing and extraction go together, or what Q-probing reads best."""
    for run in runs:
        for row in run.summary.get("spearman") or ():
            if (row["target"], row["measure"]) == ("whole", "accuracy") and row.get("rho") is not None:
                found = interval(row, "rho", "")
                noise = "" if found is None or more(found, 0.0) is not None else f", {NOISE} of none"
                return (
                    f"Q-probing and extraction: Spearman's ρ = {ranged(row, 'rho', 2, '')} over {row['points']:g} points "
                    f"(one a dataset and attribute, whole values){noise}."
                )
    # Q-probing, or P-probing before anything is stated: later in a text a value may be about to be written.
    rows = [row for row in _rows(runs) if not row.get("position") and not row["control"]]
    rows = [row for row in rows if row["probe"] == "Q"] or rows
    if not rows:
        return missing(runs, "Nothing was probed")
    controls = _controls(_rows(runs))

    def shuffled(row: Row) -> Interval | None:
        return interval(controls[_task(row)], "accuracy", "") if _task(row) in controls else None

    def beats(row: Row) -> bool:
        found, control = interval(row, "accuracy", ""), shuffled(row)
        return bool(more(found, row["majority"])) and (control is None or bool(more(found, control)))

    def above(row: Row) -> float:
        control = shuffled(row)
        return float(row["accuracy"] - max(row["majority"], control.value if control else 0.0))

    known = [row for row in rows if beats(row)]
    best = max(known or rows, key=above)
    where = "the name alone" if best["probe"] == "Q" else "what stands before the first attribute"
    control = shuffled(best)
    text = (
        f"the {TARGETS[best['target']]} of {words(best['attribute'])} ({_name(best, runs)}), {percent(best['accuracy'])} "
        f"({100 * best['low']:.0f}–{100 * best['high']:.0f}) where the commonest class has {percent(best['majority'])}"
    ) + (f" and shuffled labels {percent(control.value)}" if control else "")
    if not known:
        return f"Nothing beats the commonest value: read from {where}, the best is {text}."
    return f"{len(known)} of {len(rows)} tasks are read above the commonest value from {where}; best {text}."


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_together(runs), _q(runs), _p(runs), _closer(runs), _every_row(runs), _skipped(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """What the command line prints at the end: Q-probing, and P-probing at its first place."""
    every = summary.get("rows") or []
    found, controls = [], _controls(every)
    for probe, title in (
        ("Q", "Q-probing: the name alone"),
        ("P", "P-probing before the first attribute (position 0)"),
    ):
        rows = [r for r in every if r["probe"] == probe and not r["control"] and not r.get("position")]
        if rows:
            found.append(_narrow(rows, controls, f"{title} (P_test)"))
    rhos = [
        [
            TARGETS[r["target"]],
            "classes in P_train" if "reachable" in r["measure"] else "all",
            str(r["points"]),
            ranged(r, "rho", 2, ""),
        ]
        for r in summary.get("spearman") or ()
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
        *(percent(number(row.get(name))) for name in ("reachable", "accuracy_reachable", "extraction")),
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
            figures.append((f"P_test, {what}", cloud(rows, _rows(runs), what, lambda row: _name(row, runs))))
    for run in runs:
        for row in run.summary.get("spearman") or ():
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
                        Bar(
                            label, row["accuracy"], colour, row["low"], row["high"], hover=hover, chance=row["majority"]
                        )
                    )
            if members:
                groups.append((name, members))
        if groups:
            figures.append((what, bars(groups, "held-out subjects", bar="probe", chance="commonest class of P_train")))
    note = "Whiskers are 95 % bootstrap intervals over subjects; strokes are the accuracy of P_train's commonest class."
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
    places = sorted({row.get("position") or 0 for row in rows})
    attributes = distinct(row["attribute"] for row in of)
    found = {(row["attribute"], row.get("position") or 0): row["accuracy"] for row in of}
    values = [[found.get((attribute, place), float("nan")) for place in places] for attribute in attributes]
    return Map(name, [words(attribute) for attribute in attributes], places, values)


def _closer(runs: Sequence[RunData]) -> Section:
    """coupleC: accuracy by what has been seen, and the second of each pair with and without its first."""
    title = "Closer P-probing: by the attributes already seen"
    rows = [{**row, "run": run.name} for run in runs for row in run.summary.get("closer") or ()]
    if not rows:
        return Section(title, [], "Only coupleC datasets, whose sentences come in ordered pairs, have this.")
    blocks: list[Block] = []
    for name in distinct(_name(row, runs) for row in rows):
        of = [row for row in rows if _name(row, runs) == name]
        figures, maps = [], []
        for target, what in TARGETS.items():
            chosen = [row for row in of if row["target"] == target]
            if chosen:
                figures.append((f"{name}, {what}: the partner seen or not", pairs(chosen)))
                maps.append((f"{name}, {what}: every set", subsets(chosen)))
        blocks += [Figures(figures), *(Figures([one]) for one in maps)]
    blocks.append(
        Text(
            "An entry's sentences come in ordered pairs, the pairs in any order. Where an attribute is stored with what was "
            "read before it, the second of a pair can be read once the first has been seen, and hardly before."
        )
    )
    return Section(title, blocks)


def _every_row(runs: Sequence[RunData]) -> Section:
    rows, controls = [row for row in _rows(runs) if not row["control"]], _controls(_rows(runs))
    cells = [
        [
            _name(row, runs),
            str(row.get("model", "–")),
            row["probe"],
            TARGETS[row["target"]],
            words(row["attribute"]),
            "–" if row.get("position") is None else f"{row['position']:g}",
            f"{row['classes']:g}",
            *_numbers(row, controls),
        ]
        for row in rows
    ]
    columns = ["dataset", "model", "probe", "target", "attribute", "position", "classes", *_NUMBERS]
    caption = (
        "Reachable: the share of P_test whose class occurs in P_train; no probe can be right about the others. Shuffled: the "
        "same task with labels shuffled over subjects."
    )
    return Section("Every number", [Table(columns, cells, caption, 5)] if cells else [], missing(runs))


def _skipped(runs: Sequence[RunData]) -> Section:
    rows = [
        [run.name, row["dataset"], TARGETS[row["target"]], words(row["attribute"]), row["reason"]]
        for run in runs
        for row in run.summary.get("skipped") or ()
    ]
    table = Table(["run", "dataset", "target", "attribute", "why"], rows)
    return Section("Not probed", [table] if rows else [], "Every task could be probed.")
