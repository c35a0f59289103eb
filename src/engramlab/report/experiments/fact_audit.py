"""The sections of the fact-audit report: how many facts can be got out of a model and how, and every fact with its class."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import GREY, PALETTE, draw, escaped, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval
from engramlab.report.parts.words import count, fixed, short
from engramlab.report.rows import Row, RunData, number, words
from engramlab.report.shapes import Maybe

CLASSES = ("extractable", "prompt-dependent", "latent", "recognised", "unknown")
MEANING = {
    "extractable": "written in nearly every wording",
    "prompt-dependent": "written in some wordings only",
    "latent": "never written, but first among the options behind a list of other facts",
    "recognised": "only ranked above what chance gives",
    "unknown": "no way finds it",
}
COLOURS = dict(zip(CLASSES, (PALETTE[2], PALETTE[4], PALETTE[0], PALETTE[5], GREY), strict=True))
MOST_FACTS = 3000
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [
            {
                "relation": str,
                "facts": float,
                "guessable": float,
                "majority": float,
                **dict.fromkeys(CLASSES, float),
                **{f"at_least_{name}": Maybe(float) for name in CLASSES[:-1]},
            }
        ]
    ),
    "agreement": Maybe([{"ways": str, **dict.fromkeys(("facts", "one", "other", "both"), float)}]),
    "popularity": Maybe(
        [
            {
                **dict.fromkeys(("least", "most", "facts"), float),
                **dict.fromkeys((f"at_least_{n}{e}" for n in CLASSES[:-1] for e in ("", "_low", "_high")), float),
            }
        ]
    ),
    "compared": Maybe(
        {
            "facts": float,
            "classes": [[float]],
            "tests": [{"at_least": str, **dict.fromkeys(("won", "lost", "p"), float)}],
            "won": [dict],
            "lost": [dict],
        }
    ),
}


def headline(runs: Sequence[RunData]) -> str:
    """What share of the facts can be asked for, and what is held without being said; guessable facts left out."""
    said = []
    for run in runs:
        for part, rows in _parts(run):
            kept = sum(row["facts"] - row["guessable"] for row in rows)
            if not kept:
                continue
            shares = {name: sum(row[name] for row in rows) / kept for name in CLASSES}
            chance = sum(
                (number(row.get("at_least_recognised_null")) or 0) * (row["facts"] - row["guessable"]) for row in rows
            )
            said.append(
                f"{_model(run, part)}: of {count(kept)} facts that cannot be guessed, {percent(shares['extractable'])} can be "
                f"asked for in any wording and {percent(shares['prompt-dependent'])} in some; "
                f"{percent(shares['latent'] + shares['recognised'])} are held but never said (chance would give "
                f"{percent(chance / kept)}), {percent(shares['unknown'])} are unknown."
            )
    return " ".join(said) or missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    rows = [row for run in runs for row in run.rows]
    known: list[Block] = []
    if rows:
        known = [
            Text(
                "; ".join(f"{name}: {meaning}" for name, meaning in MEANING.items()) + ". The first that fits counts."
            ),
            Figures(
                [("", _shares(runs))],
                "Facts that the commonest object or the model's favourite would get are left out.",
            ),
            Table(
                *_by_relation(runs), "Shares are of facts that cannot be guessed, with 95 % intervals.", numbers_from=2
            ),
        ]
    return [
        Section("What the model knows", known, missing(runs)),
        *([_ways(runs)] if any(run.summary.get("agreement") for run in runs) else []),
        *(found for run in runs if (found := _by_popularity(run, len(runs) > 1)) is not None),
        *(found for run in runs if (found := _won_and_lost(run)) is not None),
        *(found for run in runs if (found := _fact_by_fact(run)) is not None),
    ]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    rows = summary.get("rows") or []
    shown = (*CLASSES, "guessable")
    cells = [[*_names(row, summary), *(count(row[name]) for name in shown), percent(row["majority"])] for row in rows]
    columns = ["relation", *(["model"] if summary.get("beside") else []), *CLASSES, "guessable", "commonest object"]
    tables = [Table(columns, cells, "Facts by class", numbers_from=len(columns) - 7)] if cells else []
    compared = summary.get("compared")
    if compared:
        lines = [
            [f"at least {t['at_least']}", count(t["won"]), count(t["lost"]), short(t["p"])] for t in compared["tests"]
        ]
        tables.append(
            Table(["", "won", "lost", "p"], lines, "The second model against the first, exact test", numbers_from=1)
        )
    return tables


def _names(row: Row, summary: Mapping[str, Any]) -> list[str]:
    return [words(row["relation"]), *([str(row.get("model"))] if summary.get("beside") else [])]


def _parts(run: RunData) -> list[tuple[str, list[Row]]]:
    parts = list(dict.fromkeys(str(row.get("part", "")) for row in run.rows))
    return [(part, [row for row in run.rows if str(row.get("part", "")) == part]) for part in parts]


def _model(run: RunData, part: str) -> str:
    return Path(str(run.summary.get("beside" if part else "model") or run.name)).name


def _shares(runs: Sequence[RunData]) -> go.Figure:
    """One bar a relation and model, cut by class."""
    bars = [
        (f"{words(row['relation'])}" + (f", {_model(run, part)}" if len(_parts(run)) > 1 or len(runs) > 1 else ""), row)
        for run in runs
        for part, rows in _parts(run)
        for row in rows
        if row["facts"] > row["guessable"]
    ]
    traces = [
        {
            "type": "bar",
            "y": [escaped(label, 60) for label, _ in bars],
            "x": [100 * row[name] / (row["facts"] - row["guessable"]) for _, row in bars],
            "name": name,
            "orientation": "h",
            "marker": {"color": COLOURS[name]},
        }
        for name in CLASSES
    ]
    return draw(
        traces,
        120 + 34 * len(bars),
        x={"range": [0, 100], "ticksuffix": " %", "title": {"text": "share of facts that cannot be guessed"}},
        y={"autorange": "reversed"},
        barmode="stack",
    )


def _by_relation(runs: Sequence[RunData]) -> tuple[list[str], list[list[str]]]:
    columns = [
        *("model", "relation", "facts", "guessable", "commonest object", *CLASSES),
        *("at least latent", "corrected", "at least recognised", "corrected", "contradicted", "unaskable"),
    ]
    cells = []
    for run in runs:
        for part, rows in _parts(run):
            for row in rows:
                held = []
                for name in ("latent", "recognised"):
                    said, ends = percent(number(row.get(f"at_least_{name}"))), interval(row, f"at_least_{name}")
                    held.append(f"{said} ({100 * ends.low:.0f} to {100 * ends.high:.0f})" if ends else said)
                    held.append(percent(number(row.get(f"at_least_{name}_corrected"))))
                cells.append(
                    [
                        _model(run, part),
                        words(row["relation"]),
                        count(row["facts"]),
                        count(row["guessable"]),
                        percent(row["majority"]),
                        *(count(row[name]) for name in CLASSES),
                        *held,
                        count(row.get("contradicted")),
                        count(row.get("unaskable")),
                    ]
                )
    return columns, cells


def _ways(runs: Sequence[RunData]) -> Section:
    """Whether the ways find the same facts, and how good the probes were."""
    cells = [
        [
            _model(run, str(row.get("part", ""))),
            row["ways"],
            *(count(row[name]) for name in ("facts", "one", "other", "both")),
            percent(number(row.get("agree"))),
        ]
        for run in runs
        for row in run.summary.get("agreement") or []
    ]
    columns = ["model", "ways", "facts", "found by the first", "by the second", "by both", "both of either"]
    blocks: list[Block] = [
        Table(columns, cells, "Facts that cannot be guessed, asked for by both ways.", numbers_from=2)
    ]
    probes = [
        [_model(run, str(row.get("part", ""))), words(row["relation"]), f"{percent(ends.value)} ({100 * ends.low:.0f} to "
         f"{100 * ends.high:.0f})", *(percent(number(row.get(f"probe_{name}"))) for name in ("majority", "shuffled")),
         "yes" if row.get("probe_passes") else "no"]
        for run in runs
        for row in run.rows
        if (ends := interval(row, "probe_accuracy", "probe_")) is not None
    ]  # fmt: skip
    if probes:
        columns = ["model", "relation", "right (95 %)", "commonest object", "shuffled labels", "counts"]
        note = "Probes of the hidden state at a subject's name, each subject held out once; one counts if it surely beats both."
        blocks.append(Table(columns, probes, note, numbers_from=2))
    return Section("Do the ways agree?", blocks)


def _by_popularity(run: RunData, several: bool) -> Section | None:
    """Curves with whiskers over the tenths of the facts, one a depth and model."""
    rows = run.summary.get("popularity") or []
    if not rows:
        return None
    traces = []
    parts = list(dict.fromkeys(str(row.get("part", "")) for row in rows))
    cells = []
    for part in parts:
        group = [row for row in rows if str(row.get("part", "")) == part]
        for name in ("prompt-dependent", "recognised"):
            ends = [interval(row, f"at_least_{name}") for row in group]
            shares = [100 * row[f"at_least_{name}"] for row in group]
            traces.append(
                {
                    "type": "scatter",
                    "x": list(range(1, len(group) + 1)),
                    "y": shares,
                    "error_y": {
                        "array": [100 * e.high - s if e else 0 for e, s in zip(ends, shares, strict=True)],
                        "arrayminus": [s - 100 * e.low if e else 0 for e, s in zip(ends, shares, strict=True)],
                    },
                    "name": escaped(f"at least {name}" + (f", {_model(run, part)}" if len(parts) > 1 else ""), 44),
                    "mode": "lines+markers",
                    "line": {"color": COLOURS[name], "dash": "solid" if part == parts[0] else "dash"},
                }
            )
        for place, row in enumerate(group, 1):
            ends = [interval(row, f"at_least_{name}") for name in CLASSES[:-1]]
            said = [f" ({100 * e.low:.0f} to {100 * e.high:.0f})" if e else "" for e in ends]
            shares = [percent(row[f"at_least_{name}"]) + s for name, s in zip(CLASSES[:-1], said, strict=True)]
            cells.append([_model(run, part), *map(count, (place, row["facts"], row["least"], row["most"])), *shares])
    drawn = draw(
        traces,
        400,
        x={"title": {"text": "groups of equally many facts, from the least popular subjects to the most"}, "dtick": 1},
        y={"range": [-3, 103], "ticksuffix": " %", "title": {"text": "share of the facts that cannot be guessed"}},
    )
    columns = ["model", "group", "facts", "from", "to", *(f"at least {name}" for name in CLASSES[:-1])]
    title = "By popularity" + (f", {run.name}" if several else "")
    return Section(
        title, [Figures([("", drawn)]), Table(columns, cells, "With 95 % intervals over facts.", numbers_from=1)]
    )


def _won_and_lost(run: RunData) -> Section | None:
    compared = run.summary.get("compared")
    if not compared:
        return None
    table = Table(
        ["first model", *CLASSES],
        [
            [name, *(count(dict(enumerate(line)).get(k)) for k in range(len(CLASSES)))]
            for name, line in zip(CLASSES, compared["classes"], strict=False)
        ],
        f"{count(compared['facts'])} facts by the class they have with the first model (rows) and the second (columns).",
        numbers_from=1,
    )
    tests = Table(
        ["at least", "won", "lost", "p"],
        [[t["at_least"], count(t.get("won")), count(t.get("lost")), short(t.get("p"))] for t in compared["tests"]],
        "Facts only the second model has, and only the first; McNemar's exact test.",
        numbers_from=1,
    )
    moved: list[Block] = [
        Table(
            ["subject", "relation", "object", "from", "to"],
            [
                [str(row.get(k, "")) for k in ("subject", "relation", "object", "from", "to")]
                for row in compared[name][:200]
            ],
            f"{name.capitalize()}: {len(compared[name])} facts"
            + (", the first 200." if len(compared[name]) > 200 else "."),
        )
        for name in ("won", "lost")
        if compared[name]
    ]
    return Section("What the second model won and lost", [table, tests, *moved])


def _fact_by_fact(run: RunData) -> Section | None:
    """The user's table with its classes, from `facts.csv`."""
    path = run.path / "facts.csv"
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            lines = list(csv.DictReader(file))
    except csv.Error:  # not what was written
        return None
    wanted = ["subject", "relation", "object", "class", "beside_class", "written", "rank", "first", "read", "said"]
    columns = [name for name in [*wanted, "contradicted"] if any(line.get(name) for line in lines)]
    cells = [[_cell(line.get(name)) for name in columns] for line in lines[:MOST_FACTS]]
    note = f" The first {MOST_FACTS:,} of {len(lines):,}; all are in facts.csv." if len(lines) > MOST_FACTS else ""
    caption = (
        "written: share of the wordings; rank: share of wrong options that are less likely; first: share of lists behind which "
        f"the object comes first; read: share written behind a passage that states it.{note}"
    )
    return Section("Fact by fact", [Table(columns, cells, caption, long=True)]) if cells else None


def _cell(value: str | None) -> str:
    try:
        return fixed(float(value)) if value else ""
    except ValueError:
        return str(value)
