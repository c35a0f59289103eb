"""The sections of the factual-decoding report: answers to choose from, layers, passages, and the time it all takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts.blocks import Block, Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, Line, bars, curves, percent, styles
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, percent_ranged, points_ranged
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

DOLA, CAD, MICD = "arXiv 2309.03883", "arXiv 2305.14739", "arXiv 2405.02750"
METRICS = {"mc1": "MC1", "mc2": "MC2", "mc3": "MC3", "written": "written"}
_SETS = {"facts": "facts", "truthfulqa": "TruthfulQA", "factor": "FACTOR"}
_SAYS = {"follows": "what the passage says", "own": "the model's own answer", "right": "the true answer"}
_COLOURS = {"plain": GREY, "cad": PALETTE[0], "micd": PALETTE[1], "micd dynamic": PALETTE[2]}
#: What the paper prints (tables 1 and 2 of arXiv 2309.03883): LLaMA, greedy and DoLa, in per cent.
_PUBLISHED = (
    ("LLaMA-7B", "TruthfulQA MC1 / MC2 / MC3", "25.6 / 40.6 / 19.2", "32.2 / 63.8 / 32.1"),
    ("LLaMA-65B", "TruthfulQA MC1 / MC2 / MC3", "30.8 / 46.9 / 22.7", "31.1 / 64.6 / 34.3"),
    ("LLaMA-7B", "FACTOR news / wiki", "58.3 / 58.6", "62.0 / 62.2"),
    ("LLaMA-65B", "FACTOR news / wiki", "63.6 / 72.2", "66.2 / 72.4"),
)
_ROW = {"kind": str, "way": str, "alpha": Maybe(float)}
NEEDS = {
    "rows": Maybe([{"dataset": str, "way": str, "questions": float, "layers": Maybe([float])}]),
    "chosen": Maybe([{"dataset": str, "bucket": str, "static": str}]),
    "spans": Maybe([{"kind": str, "layer": float, "apart": float, "dies": float}]),
    "passages": Maybe([{**_ROW, "facts": float, "known": float, **dict.fromkeys(_SAYS, float)}]),
    "files": Maybe([{"file": str, "way": str, "alpha": Maybe(float), "questions": float, "right": float}]),
    "speed": Maybe([{"way": str, "batch": float, "bound": float, "seconds_times_greedy": float}]),
}


def headline(runs: Sequence[RunData]) -> str:
    """Does DoLa do better than greedy decoding, and what follows a counterfactual passage?"""
    found = []
    for run in runs:
        for dataset in distinct(row["dataset"] for row in run.rows):
            rows = {row["way"]: row for row in run.rows if row["dataset"] == dataset}
            best = next((row for row in rows.values() if row.get("chosen")), None)
            if best is None or "greedy" not in rows or number(best.get("mc1")) is None:
                continue
            which = more(interval(best, "mc1_more"), 0.0)
            verdict = {True: "more", False: "less", None: "within noise"}[which]
            found.append(
                f"{_SETS.get(dataset, dataset)}: MC1 {percent(number(rows['greedy'].get('mc1')))} by greedy decoding, "
                f"{percent(number(best.get('mc1')))} by DoLa with {best['way']} layers ({verdict})"
            )
        against = [row for row in _listed(run, "passages") if row["kind"] == "counterfactual"]
        said = [f"{_way(row)} {percent(number(row['follows']))}" for row in against if row.get("alpha") in (None, 1.0)]
        if said:
            found.append("a counterfactual passage is followed by " + ", ".join(said))
    return ("; ".join(found) + ".") if found else missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    made = [_choices(runs), _spans(runs), _passages(runs), _files(runs), _speed(runs)]
    return [section for section in made if section.blocks or section.title != _FILES]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    tables = []
    if rows := summary.get("rows"):
        cells = [
            [_SETS.get(row["dataset"], row["dataset"]), _named(row), *(_short(row, metric) for metric in METRICS)]
            for row in rows
        ]
        tables.append(
            Table(["set", "decoding", *METRICS.values()], cells, "Questions of the test half", numbers_from=2)
        )
    if rows := summary.get("passages"):
        cells = [[row["kind"], _way(row), *(percent(number(row.get(name))) for name in _SAYS)] for row in rows]
        tables.append(
            Table(["passage", "decoding", "follows", "own", "right"], cells, "Behind passages", numbers_from=2)
        )
    if rows := summary.get("speed"):
        cells = [[row["way"], count(row["batch"]), fixed(row["seconds_times_greedy"])] for row in rows]
        tables.append(Table(["decoding", "batch", "times greedy"], cells, "Time of writing", numbers_from=1))
    return tables


def _choices(runs: Sequence[RunData]) -> Section:
    blocks: list[Block] = []
    for metric, title in METRICS.items():
        groups = []
        for run in runs:
            of = f", {run.name}" if len(runs) > 1 else ""
            for dataset in distinct(row["dataset"] for row in run.rows):
                rows = [row for row in run.rows if row["dataset"] == dataset and number(row.get(metric)) is not None]
                if rows:
                    groups.append((_SETS.get(dataset, dataset) + of, [_bar(row, metric) for row in rows]))
        if groups:
            figure = bars(groups, title, bar=f"{title}, 95 % over questions")
            blocks.append(Figures([(title, figure)], _NOTES[metric]))
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            _SETS.get(row["dataset"], row["dataset"]),
            _named(row),
            ", ".join(count(layer) for layer in row.get("layers") or []) or "–",
            count(row["questions"]),
            *(points_ranged(row, f"{metric}_more") for metric in METRICS),
            percent(number(row.get("kept"))),
        ]
        for run in runs
        for row in run.rows
    ]
    if cells:
        columns = [*(["run"] if len(runs) > 1 else []), "set", "decoding", "layers", "questions"]
        columns += [f"{name} less greedy" for name in METRICS.values()] + ["kept"]
        caption = (
            "Differences in points, question by question, with 95 % intervals. Layers were chosen on other questions. kept: "
            "of the answers that greedy decoding writes rightly, those still right"
        )
        blocks.append(Table(columns, cells, caption, numbers_from=len(columns) - 6))
        about = f"Per cent, from {DOLA}. Its authors find no gain on a small GPT-2, and none is to be expected of small models"
        blocks.append(Table(["model", "measure", "greedy", "DoLa"], list(map(list, _PUBLISHED)), about))
    return Section("DoLa: answers to choose from", blocks, missing(runs))


_NOTES = {
    "mc1": "The best answer has a higher score than every false one.",
    "mc2": "Weight of the true answers among all.",
    "mc3": "Share of the true answers above every false one.",
    "written": "What is written begins with a right answer; DoLa and the second greedy row with a repetition penalty.",
}


def _spans(runs: Sequence[RunData]) -> Section:
    lines, texts = [], []
    looks = styles(f"{kind}{run.name}" for kind in ("answer", "function") for run in runs)
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for kind in ("answer", "function"):
            for norm in (False, True):
                rows = [r for r in _listed(run, "spans") if r["kind"] == kind and bool(r.get("norm")) == norm]
                if not rows:
                    continue
                label = f"{kind} tokens{', with the final norm' if norm else ''}{of}"
                dash = "dash" if norm else "solid"
                xs, ys = ([float(row[name]) for row in rows] for name in ("layer", "apart"))
                lines.append(Line(label, xs, ys, looks[kind + run.name][0], dash))
                ends = [number(rows[0].get(f"dies_{end}")) for end in ("low", "high")]
                between = "" if None in ends else f" ({100 * (ends[0] or 0):.0f} to {100 * (ends[1] or 0):.0f})"
                texts.append(f"{label}: {percent(number(rows[0]['dies']))}{between}")
    if not lines:
        return Section("How far each layer is from the last", [], missing(runs))
    note = (
        f"Jensen-Shannon divergence in nats (ln 2 at most). {DOLA} finds that it stays high into the upper layers at tokens of "
        "answers and dies away early at function words. Here it stays under half of its largest value from this share of "
        "the depth on: " + "; ".join(texts) + "."
    )
    figure = curves(lines, x="layer", y="divergence from the last layer")
    return Section("How far each layer is from the last", [Figures([("", figure)], note)])


def _passages(runs: Sequence[RunData]) -> Section:
    blocks: list[Block] = []
    for what, title in _SAYS.items():
        figures = []
        for kind in distinct(row["kind"] for run in runs for row in _listed(run, "passages")):
            lines = []
            for run in runs:
                of = f", {run.name}" if len(runs) > 1 else ""
                rows = [row for row in _listed(run, "passages") if row["kind"] == kind]
                alphas = sorted({float(row["alpha"]) for row in rows if row.get("alpha") is not None})
                for way in distinct(_base(row) for row in rows):
                    mine = sorted((r for r in rows if _base(r) == way), key=lambda row: row.get("alpha") or 0)
                    flat = mine[0].get("alpha") is None
                    xs = [0.0, alphas[-1] if alphas else 1.0] if flat else [float(r["alpha"]) for r in mine]
                    ys = [float(r[what]) for r in mine] * (2 if flat else 1)
                    dash = "dot" if flat else "solid"
                    lines.append(Line(way + of, xs, ys, _COLOURS.get(way, GREY), dash))
            figures.append((f"{kind} passage", curves(lines, x="weight of the contrast", y=title, shares=True)))
        if figures:
            blocks.append(Figures(figures, f"Share that writes {title}. Dotted: what has no weight."))
    cells = [
        [
            *([run.name] if len(runs) > 1 else []),
            row["kind"],
            _way(row),
            *(count(row.get(name)) for name in ("facts", "known")),
            *(percent_ranged(row, name) for name in _SAYS),
            percent_ranged(row, "kept"),
        ]
        for run in runs
        for row in _listed(run, "passages")
    ]
    if cells:
        columns = [
            *(["run"] if len(runs) > 1 else []),
            "passage",
            "decoding",
            "facts",
            "known",
            *_SAYS.values(),
            "kept",
        ]
        caption = (
            f"CAD: {CAD}; MICD: {MICD}; the dynamic weight is our formula. known: answered rightly without a passage; kept: of "
            "those, still right"
        )
        blocks.append(Table(columns, cells, caption, numbers_from=len(columns) - 6))
    return Section("Behind passages", blocks, missing(runs))


_FILES = "Questions with passages of files"


def _files(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, row["file"], _way(row), count(row["questions"]), percent_ranged(row, "right")]
        for run in runs
        for row in _listed(run, "files")
    ]
    columns = ["run", "format", "decoding", "questions", "right"]
    return Section(_FILES, [Table(columns, cells, numbers_from=3)] if cells else [], missing(runs))


def _speed(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, row["way"], count(row["batch"]), fixed(row["seconds_times_greedy"]), fixed(row["bound"])]
        for run in runs
        for row in _listed(run, "speed")
    ]
    caption = (
        "Processor time of writing, over greedy's in the same run. Bound: what arithmetic alone would take, with each early "
        "layer a product with the vocabulary, and each further context a reading"
    )
    columns = ["run", "decoding", "batch", "times greedy", "bound"]
    return Section("Time", [Table(columns, cells, caption, numbers_from=2)] if cells else [], missing(runs))


def _listed(run: RunData, name: str) -> list[Row]:
    found: list[Row] = run.summary.get(name) or []
    return found


def _bar(row: Row, metric: str) -> Bar:
    low, high = (number(row.get(f"{metric}_{end}")) for end in ("low", "high"))
    colour = PALETTE[0] if row.get("chosen") else GREY
    return Bar(_named(row), number(row.get(metric)), colour, low, high)


def _named(row: Row) -> str:
    way = str(row["way"])
    layers = row.get("layers") or []
    way = f"static, layer {count(layers[0])}" if way == "static" and layers else way
    return way + (" (chosen)" if row.get("chosen") else "")


def _base(row: Row) -> str:
    dynamic = row["way"] == "micd" and row.get("alpha") is None
    return "micd dynamic" if dynamic else str(row["way"])


def _way(row: Row) -> str:
    return _base(row) + (f" {row['alpha']:g}" if row.get("alpha") is not None else "")


def _short(row: Row, name: str) -> str:
    low, high = (number(row.get(f"{name}_{end}")) for end in ("low", "high"))
    if low is None or high is None:
        return percent(number(row.get(name)))
    return f"{100 * (number(row.get(name)) or 0):.0f} ({100 * low:.0f}-{100 * high:.0f})"
