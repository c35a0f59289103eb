"""The sections of the lifecycle report: how long facts last, what an edit reached, and what several wordings are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.report.parts import reworded
from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import Line, curves, percent, styles
from engramlab.report.parts.reach import UNREADABLE, can_be_read, probe_of
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, fixed, ranged, short, signed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

_SHARE = {"method": str, "layer": float, "place": str}
#: Of a summary.
NEEDS = {
    "half_life": Maybe([{"arm": str, "training": str, "facts": float, "written": float, "left_out": float}]),
    "courses": Maybe([{"arm": str, "training": str, "steps": float}]),
    "matched": Maybe([{"arm": str, "other": str, "training": str, "pairs": float, "unmatched": float}]),
    "name": Maybe([{**_SHARE, "subjects": float}]),
    "name_edits": Maybe([{"method": str, "edits": float, "failed": float}]),
    "probes": Maybe([{"place": str, "layer": float, "accuracy": float, "majority": float}]),
    "wordings": Maybe([{"method": str, "kind": str, "wordings": float, "protocol": str, "cases": float}]),
}
NATIVE = "native"


def headline(runs: Sequence[RunData]) -> str:
    """How long facts last, what an edit reached, what wordings add: each with its interval and its control."""
    found = [
        text
        for run in runs
        for text in (_fading(run.summary), _reached(run.summary), reworded.worth(run.summary))
        if text
    ]
    return " ".join(found) or missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_half_lives(runs), _courses(runs), _matched(runs), _name(runs), _edits(runs), reworded.section(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    found = [
        (HALF, half_cells(summary), "How long facts last under further training", 3),
        (EDITS, edit_cells(summary), "Edits whose reach was probed", 1),
        (NAME, name_cells(summary), "What probes read behind the last layer", 2),
        (reworded.WORDS, reworded.wording_cells(summary), "Edits in several wordings, written freely", 2),
    ]
    return [Table(heads, cells, title, numbers_from=at) for heads, cells, title, at in found if cells]


# how long facts last --------------------------------------------------------------------------------------------------

HALF = ["arm", "trained", "text", "facts", "left out", "written at first", "half-life, steps", "survive", "margin kept"]


def _last(summary: Mapping[str, Any], row: Row) -> Row:
    """The last point of an arm's course."""
    of = [one for one in summary.get("courses") or [] if (one["arm"], one["training"]) == (row["arm"], row["training"])]
    return max(of, key=lambda one: one["steps"], default={})


def half_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """The table of half-lives, a line an arm and training."""
    found = []
    for row in summary.get("half_life") or []:
        last = _last(summary, row)
        found.append(
            [
                row["arm"],
                str(row.get("weights") or row["training"]),
                str(row.get("stream") or ""),
                *(count(row[name]) for name in ("facts", "left_out", "written")),
                _half(row, last),
                ranged(last, "survival"),
                ranged(last, "margin"),
            ]
        )
    return found


def _half(row: Row, last: Row) -> str:
    if row["arm"] == NATIVE:
        return "–"
    if row.get("censored") is True:
        return f"over {count(last.get('steps'))}"
    if number(row.get("half")) is None:
        return "–"
    low, high = number(row.get("half_low")), number(row.get("half_high"))
    above = f"over {count(last.get('steps'))}" if high is None else short(high)
    return f"{short(row['half'])} ({short(low)} to {above})"


def _fading(summary: Mapping[str, Any]) -> str:
    rows = [row for row in summary.get("half_life") or [] if row["arm"] != NATIVE]
    main = [row for row in rows if row["training"] == rows[0]["training"]]
    said = []
    for row in main:
        half = _half(row, _last(summary, row))
        if half != "–":
            said.append(f"{row['arm']} {half}")
    if not said:
        return ""
    text = f"Steps of further training after which half of what a fact had gained is gone ({main[0]['training']}): "
    text += "; ".join(said) + "."
    surer = [
        (one["other"], one["arm"]) if difference.value < 0 else (one["arm"], one["other"])
        for one in summary.get("matched") or []
        if one["training"] == main[0]["training"]
        and (difference := interval(one, "difference", "")) is not None
        and more(difference, 0.0) is not None
    ]
    if surer:
        text += (
            " Of facts that had become equally likely, " + "; ".join(f"{a} keeps more than {b}" for a, b in surer) + "."
        )
    elif summary.get("matched"):
        text += " Of facts that had become equally likely no arm keeps more than another beyond noise."
    return text


def _half_lives(runs: Sequence[RunData]) -> Section:
    blocks = [
        Table(
            HALF,
            cells,
            "Retention is what is left of what a fact's object had gained in log-probability over a twin that reads the same "
            "text without it. Survival is the share of facts written at first that were never lost (Kaplan and Meier); the "
            "margin is the object's log-probability over that of the mean wrong one, as a share of what it was."
            + _of(run, runs),
            numbers_from=3,
        )
        for run in runs
        if (cells := half_cells(run.summary))
    ]
    return Section("How long facts last", blocks, "Half-lives were not asked for." if not blocks else "")


def _of(run: RunData, runs: Sequence[RunData]) -> str:
    return f" Run {run.name}." if len(runs) > 1 else ""


def _courses(runs: Sequence[RunData]) -> Section:
    figures = []
    for run in runs:
        rows = run.summary.get("courses") or []
        looks = styles(distinct(row["arm"] for row in rows))
        trainings = distinct(row["training"] for row in rows)  # the main one first, then the controls
        for training in trainings:
            for what, title in (
                ("retention", "Retention"),
                ("survival", "Facts still written"),
                ("margin", "Margin kept"),
            ):
                lines = []
                for arm, (colour, dash) in looks.items():
                    some = [
                        r
                        for r in rows
                        if (r["arm"], r["training"]) == (arm, training) and number(r.get(what)) is not None
                    ]
                    if some:
                        x, y = [r["steps"] for r in some], [r[what] for r in some]
                        lines.append(Line(arm, x, y, colour, dash))
                if lines:
                    about = [title, *([training] if len(trainings) > 1 else []), *([run.name] if len(runs) > 1 else [])]
                    figures.append((", ".join(about), curves(lines, x="steps", y="share")))
    return Section("While training goes on", [Figures(figures)] if figures else [], "Half-lives were not asked for.")


def _matched(runs: Sequence[RunData]) -> Section:
    cells = [
        [row["arm"], row["other"], row["training"], count(row["pairs"]), count(row["unmatched"]), _signed(row)]
        for run in runs
        for row in run.summary.get("matched") or []
    ]
    heads = ["arm", "against", "training", "pairs", "unmatched", "retention more (95 %)"]
    note = (
        "Pairs of facts that had gained as much, within 10 %, and were as likely before; unmatched ones are left out."
    )
    return Section(
        "Facts that are alike", [Table(heads, cells, note, numbers_from=3)] if cells else [], "There was no second arm."
    )


def _signed(row: Row) -> str:
    low, high = number(row.get("low")), number(row.get("high"))
    text = signed(row.get("difference"))
    return text if low is None or high is None else f"{text} ({low:+.2f} to {high:+.2f})"


# name or phrase -------------------------------------------------------------------------------------------------------

NAME = ["method", "read at", "subjects", "new", "old", "neither", "a third object", "others as before"]
EDITS = ["method", "edits", "failed", "written", "in another wording", "below bit for bit"]


def edit_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """The edits whose reach was probed, a line a method."""
    return [
        [
            row["method"],
            *(count(row[name]) for name in ("edits", "failed")),
            *(_percent(row, name) for name in ("written", "written_held")),
            {"True": "yes", "False": "no"}.get(str(row.get("same_below")), "–"),
        ]
        for row in summary.get("name_edits") or []
    ]


def name_cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """What is read in the last layer, a line a method and place; nothing where the probe is no better than the commonest
    object."""
    rows = summary.get("name") or []
    last = max((row["layer"] for row in rows), default=0)
    return [
        [row["method"], row["place"], count(row["subjects"])]
        + (
            [
                *(ranged(row, name) for name in ("new", "old")),
                *(fixed(row.get(name)) for name in ("neither", "random", "beside")),
            ]
            if can_be_read(summary, row)
            else [UNREADABLE, *["–"] * 4]
        )
        for row in rows
        if row["layer"] == last
    ]


def _probes(summary: Mapping[str, Any]) -> str:
    """How well the probes of the last layer read subjects that they were not trained on."""
    rows = summary.get("probes") or []
    last = max((row["layer"] for row in rows), default=0)
    said = [f"{row['place']} {percent(row['accuracy'])}" for row in rows if row["layer"] == last]
    if not said:
        return ""
    return f"Probes read held-out subjects right: {', '.join(said)} (the commonest object: {percent(rows[0]['majority'])}). "


def _percent(row: Row, name: str) -> str:
    value = number(row.get(name))
    return "–" if value is None else percent(value)


def _reached(summary: Mapping[str, Any]) -> str:
    rows = [row for row in summary.get("name") or [] if row["place"] == "name"]
    last, said = max((row["layer"] for row in rows), default=0), []
    rows = [row for row in rows if row["layer"] == last]
    if unread := next((row for row in rows if not can_be_read(summary, row)), None):
        probe = probe_of(summary, unread)
        return (
            f"Names {UNREADABLE}: behind the last layer probes read {_percent(probe, 'accuracy')} of held-out subjects right, "
            f"not surely more than the commonest object's {_percent(probe, 'majority')}."
        )
    for row in rows:
        new, chance = interval(row, "new"), interval(row, "random")
        if new is not None:
            against = {True: "more than", False: "less than", None: "within noise of"}[more(new, chance)]
            said.append(f"{row['method']} {percent(new.value)}, {against} a third object's {_percent(row, 'random')}")
    return "Names read as the new object behind the last layer: " + "; ".join(said) + "." if said else ""


def _name(runs: Sequence[RunData]) -> Section:
    figures: list[tuple[str, Any]] = []
    blocks: list[Any] = []
    for run in runs:
        rows = run.summary.get("name") or []
        for method in distinct(row["method"] for row in rows):
            lines = []
            for place, (colour, _) in styles(distinct(row["place"] for row in rows)).items():
                for what, dash in (("new", "solid"), ("old", "dot")):
                    some = [
                        r
                        for r in rows
                        if (r["method"], r["place"]) == (method, place)
                        and number(r.get(what)) is not None
                        and can_be_read(run.summary, r)
                    ]
                    if some:
                        x, y = [r["layer"] for r in some], [r[what] for r in some]
                        lines.append(Line(f"{place}: {what}", x, y, colour, dash))
            if lines:
                title = f"{method}: what probes read" + (f", {run.name}" if len(runs) > 1 else "")
                figures.append((title, curves(lines, x="layer", y="share of readings", shares=True)))
        if cells := name_cells(run.summary):
            note = (
                _probes(run.summary)
                + "Behind the last layer; subjects whose old object was read there before the edit. A place "
                f"{UNREADABLE} where the interval of what its probe reads right does not lie above the commonest object."
                + _of(run, runs)
            )
            blocks.append(Table(NAME, cells, note, numbers_from=2))
    if figures:
        blocks.insert(
            0,
            Figures(
                figures,
                "Probes were trained on other subjects of the unedited model; layers that they cannot "
                "read better than the commonest object would are left out.",
            ),
        )
    return Section("Did the edit reach the name?", blocks, "The reach of edits was not asked for.")


def _edits(runs: Sequence[RunData]) -> Section:
    blocks = [
        Table(EDITS, cells, "Written freely." + _of(run, runs), numbers_from=1)
        for run in runs
        if (cells := edit_cells(run.summary))
    ]
    return Section("The edits that were read", blocks, "The reach of edits was not asked for.")
