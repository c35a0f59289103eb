"""The sections of the time-sensitive-editing report: every arm at every number of joint edits, the layer sweep, the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts import beside
from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, PALETTE, Bar, bars, percent
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, percent_ranged
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

SOURCE = "arXiv 2406.04496"
BEFORE = "before"
ARMS = {
    BEFORE: "unedited",
    "ft": "FT",
    "lora-attention": "LoRA, attention",
    "lora-mlp": "LoRA, MLP",
    "lora-both": "LoRA, both",
    "p-tuning": "P-tuning",
    "rome": "ROME",
    "memit": "MEMIT",
}
TUNED, LOCATED = ("ft", "lora-attention", "lora-mlp", "lora-both", "p-tuning"), ("rome", "memit")
SCORES = {"reliability": "reliability", "generality": "generality", "multi_hop": "multi-hop", "locality": "locality"}
_ENDS = ("", "_low", "_high")
NEEDS = {
    "rows": Maybe(
        [
            {
                **dict.fromkeys(("source", "arm"), str),
                **dict.fromkeys(("edits", "cases", "parameters", "failed", "left_out"), float),
                "window": Maybe([float]),
                **{f"multi_hop_{kind}": Maybe(float) for kind in ("changed", "new")},
                "seconds_per_edit": Maybe(float),
                "fluency": Maybe(float),
                **{f"nats{end}": Maybe(float) for end in _ENDS},
                **{f"{name}{kind}{end}": Maybe(float) for name in SCORES for kind in ("", "_forced") for end in _ENDS},
            }
        ]
    ),
    "failed": Maybe([{"source": str, "arm": str, "edits": float, "case": str, "reason": str}]),
    "sources": Maybe([{"source": str, "cases": float, "contradictions": float, "skipped": float}]),
}


def headline(runs: Sequence[RunData]) -> str:
    """Does tuning few parameters answer what follows better than locate-and-edit, and than the model unedited?"""
    found = []
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        rows = [row for row in run.rows if not row.get("window")]
        for source in distinct(row["source"] for row in rows):
            control = next((row for row in rows if (row["source"], row["arm"]) == (source, BEFORE)), {})
            most = max((row["edits"] for row in rows if row["source"] == source), default=0)
            here = {row["arm"]: row for row in rows if (row["source"], row["edits"]) == (source, most)}
            said = [
                f"{ARMS.get(arm, arm)} {percent(number(row.get('multi_hop')))}{_VERDICT[_gained(row, control)]}"
                for arm, row in here.items()
                if arm != BEFORE and number(row.get("multi_hop")) is not None
            ]
            if said:
                before = percent(number(control.get("multi_hop")))
                many = f"{count(most)} joint edits" if most > 1 else "one edit"
                found.append(f"{of}{source}, {many}, multi-hop answers right ({before} unedited): " + ", ".join(said))
            best = {one: _best(here, names) for one, names in (("tuned", TUNED), ("located", LOCATED))}
            if best["tuned"] and best["located"]:
                which = more(interval(best["tuned"], "multi_hop"), interval(best["located"], "multi_hop"))
                word = {True: "more than", False: "less than", None: "within noise of"}[which]
                names = [ARMS.get(one["arm"], one["arm"]) for one in (best["tuned"], best["located"])]
                found.append(f"{of}{source}: the best of the tuned, {names[0]}, is {word} the best located, {names[1]}")
    return ("; ".join(found) + ".") if found else missing(runs)


_VERDICT = {True: "", False: " (fewer)", None: " (within noise of it)"}


def _gained(row: Row, control: Row) -> bool | None:
    return more(interval(row, "multi_hop"), interval(control, "multi_hop"))


def _best(rows: Mapping[str, Row], names: Sequence[str]) -> Row:
    """Of these arms the one with most right multi-hop answers; {} without any."""
    known = [row for arm, row in rows.items() if arm in names and number(row.get("multi_hop")) is not None]
    return max(known, key=lambda row: row["multi_hop"], default={})


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    tasks = beside.tasks(runs, _task_of, _TASK_OF)
    return [_hops(runs), _all(runs), _sweep(runs), *([tasks] if tasks else []), _left(runs), _failed(runs)]


_TASK_OF = ("source", "edited by", "edits")


def _task_of(row: Row) -> list[str]:
    return [str(row.get(name, "–")) for name in ("source", "arm", "edits")]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    rows = summary.get("rows") or []
    cells = [
        [name_of(row), count(row["edits"]), *(percent(number(row.get(name))) for name in SCORES), _seconds(row)]
        for row in rows
    ]
    columns = ["arm", "edits", "reliable", "general", "multi-hop", "local", "s/edit"]
    tables = [Table(columns, cells, "Edited jointly", numbers_from=1)] if cells else []
    cells = [[name_of(row), count(row["edits"]), fluency(row), perplexity(row)] for row in rows]
    if any(cell != "–" for line in cells for cell in line[2:]):
        tables.append(Table(["arm", "edits", *beside.HEADS], cells, "Beside the answers", numbers_from=1))
    return tables + beside.tasks_terminal(dict(summary), _task_of, _TASK_OF)


def name_of(row: Mapping[str, Any]) -> str:
    """An arm, with the layers of its window."""
    window = row.get("window")
    return ARMS.get(row["arm"], str(row["arm"])) + (f", {window[0]:.0f}–{window[-1]:.0f}" if window else "")


def kinds(row: Mapping[str, Any]) -> str:
    """Multi-hop answers right of changed and of new facts."""
    return " / ".join(percent(number(row.get(f"multi_hop_{kind}"))) for kind in ("changed", "new"))


def fluency(row: Mapping[str, Any]) -> str:
    """Hundredths of a bit, as the field prints it; a dash for runs that did not measure it."""
    bits = number(row.get("fluency"))
    return "–" if bits is None else beside.hundredths(bits)


def perplexity(row: Mapping[str, Any]) -> str:
    """Of the text, with its interval; a dash for runs that did not measure it."""
    nats, *ends = (number(row.get(f"nats{end}")) for end in _ENDS)
    if nats is None:
        return "–"
    around = [beside.perplexity(end) for end in ends if end is not None]
    return beside.perplexity(nats) + (f" ({' to '.join(around)})" if len(around) == 2 else "")


def _seconds(row: Mapping[str, Any]) -> str:
    return fixed(row.get("seconds_per_edit"), 2)


def _bar(row: Row, name: str, label: str) -> Bar:
    value, low, high = (number(row.get(f"{name}{end}")) for end in _ENDS)
    colour = GREY if row["arm"] == BEFORE else PALETTE[1] if row["arm"] in LOCATED else PALETTE[0]
    return Bar(label, value, colour, low, high)


def _hops(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for source, edits in distinct((row["source"], row["edits"]) for row in run.rows if not row.get("window")):
            rows = [r for r in run.rows if (r["source"], r["edits"]) == (source, edits) and not r.get("window")]
            if members := [_bar(r, "multi_hop", name_of(r)) for r in rows if number(r.get("multi_hop")) is not None]:
                groups.append((f"{source}, {f'{count(edits)} joint edits' if edits else 'no edit'}{of}", members))
    note = (
        "Questions that need the edited fact and another one, written freely; any alias is right. Unedited: the same questions "
        f"before. The abstract of {SOURCE} has tuning few parameters ahead of locate-and-edit here."
    )
    if not groups:
        return Section("What follows from the edits", [], missing(runs))
    figure = bars(groups, "multi-hop answers right", bar="share, 95 % over cases")
    return Section("What follows from the edits", [Figures([("", figure)], note)])


def _row(runs: Sequence[RunData], run: RunData, row: Row) -> list[str]:
    return [
        *([run.name] if len(runs) > 1 else []),
        *(row["source"], name_of(row), count(row["edits"]), count(row["cases"])),
        *(percent_ranged(row, name) for name in SCORES),
        *(kinds(row), fluency(row), perplexity(row), count(row["parameters"]), _seconds(row)),
    ]


def _columns(runs: Sequence[RunData]) -> list[str]:
    first = [*(["run"] if len(runs) > 1 else []), "source", "arm", "edits", "cases"]
    return [*first, *SCORES.values(), "changed / new", *beside.HEADS, "parameters", "s an edit"]


def _all(runs: Sequence[RunData]) -> Section:
    cells = [_row(runs, run, row) for run in runs for row in run.rows if not row.get("window")]
    columns = _columns(runs)
    caption = (
        "edits: made jointly, and judged under all of them; questions that do not hold beside the others are left out. "
        "locality: answers that stayed what they were. changed / new: multi-hop of facts that had an old answer, and of such "
        "that had none. fluency: entropy of the word 2- and 3-grams of an edit's prompt and what follows it, × 100; a broken "
        "model repeats itself. perplexity: of running text (--drift-text), with its interval over groups. parameters: numbers "
        "that the edit is; equal rank on more modules is more of them. "
        "Per cent with 95 % intervals over cases, which share edits where several are joint"
    )
    return Section(
        "Every arm", [Table(columns, cells, caption, numbers_from=len(columns) - 11)] if cells else [], missing(runs)
    )


def _sweep(runs: Sequence[RunData]) -> Section:
    rows = [(run, row) for run in runs for row in run.rows if row.get("window")]
    columns = _columns(runs)
    caption = (
        f"LoRA on all linear maps of a window of layers alone. The abstract of {SOURCE} has middle layers matter most"
    )
    table = Table(columns, [_row(runs, run, row) for run, row in rows], caption, numbers_from=len(columns) - 11)
    groups: dict[str, list[Bar]] = {}
    for run, row in rows:
        heading = f"{row['source']}{f', {run.name}' if len(runs) > 1 else ''}"
        if number(row.get("multi_hop")) is not None:
            groups.setdefault(heading, []).append(_bar(row, "multi_hop", name_of(row)))
    figure = (
        [Figures([("", bars(list(groups.items()), "multi-hop answers right", bar="share, 95 % over cases"))])]
        if groups
        else []
    )
    return Section("Which layers", [*figure, table] if rows else [], "No window was slid over the layers.")


def _left(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, one["source"], *(count(one[name]) for name in ("cases", "contradictions", "skipped"))]
        for run in runs
        for one in run.summary.get("sources") or []
    ]
    caption = (
        "contradictions: cases left out before any edit, since an earlier one gives the same prompt another answer"
    )
    columns = ["run", "source", "cases", "contradictions", "bad records"]
    return Section(
        "What was left out", [Table(columns, cells, caption, numbers_from=2)] if cells else [], missing(runs)
    )


def _failed(runs: Sequence[RunData]) -> Section:
    cells = [
        [run.name, one["source"], one["arm"], count(one["edits"]), one["case"], one["reason"]]
        for run in runs
        for one in run.summary.get("failed") or []
    ]
    table = Table(["run", "source", "arm", "edits", "case", "why"], cells, long=True)
    return Section("Edits that failed", [table] if cells else [], "Every edit could be made.")
