"""The sections of the teaching report: how many facts can be asked for, by which way, and what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plotly import graph_objects as go

from engramlab.report.parts.blocks import Figures, Section, Table
from engramlab.report.parts.figures import GREY, Bar, Line, bars, curves, percent, styles
from engramlab.report.parts.training import missing
from engramlab.report.parts.verdicts import interval, more
from engramlab.report.parts.words import count, percent_ranged, signed
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

GROUPS = {
    "unasked": "subjects whose questions were never trained",
    "asked": "subjects whose questions were trained",
    "known": "facts that were known before",
    "native": "facts that it shall keep",
}
#: Of a summary.
NEEDS = {
    "rows": Maybe(
        [{"arm": str, "group": str, "wordings": str, "kind": str, "share": float, "low": float, "high": float}]
    ),
    "kept": Maybe([{"arm": str, "group": str, "right_before": float, "lost": float, "won": float, "p": float}]),
    "chosen": Maybe({"rate": float, "tried": Maybe([{"rate": float, "gain": float, "share": float}])}),
    "drift": Maybe([{"arm": str, "text": str, "before": float, "nats": float}]),
    "training": Maybe([{"dataset": str}]),
    "left_out": Maybe({}),
    "written": Maybe({"writer": str, "written": float, "fell_back": float}),
    "edited": Maybe(
        {"method": str, "edits": float, "failed": float, "recited": float, "recited_low": float, "recited_high": float}
    ),
}


def headline(runs: Sequence[RunData]) -> str:
    """How many facts can now be asked for, in wordings never trained, and what was lost."""
    found = []
    for run in runs:
        arm = str(run.summary.get("kept_arm") or "")
        now, was = _result(run.rows, arm), _result(run.rows, "untouched")
        if now is None:
            continue
        verdict = more(interval(now, "share", ""), None if was is None else interval(was, "share", ""))
        text = f"{percent(now['share'])} of what is asked about subjects whose questions were never trained is answered, in "
        text += f"wordings never trained ({arm})"
        if was is not None:
            said = {True: "more than", False: "less than", None: "within noise of"}[verdict]
            text += f", {said} the {percent(was['share'])} before"
        kept = [row for row in run.summary.get("kept") or [] if row["arm"] == arm and row["right_before"]]
        for row in kept:
            about = GROUPS.get(row["group"], row["group"])
            text += f"; of {count(row['right_before'])} right answers about {about} {count(row['lost'])} were lost"
        for row in run.summary.get("drift") or []:
            if row["arm"] == arm and row["text"] == "replayed kind":
                text += f"; unseen text is {signed(row['nats'])} nats a token less likely"
        text += "." + (f" {advice}" if isinstance(advice := run.summary.get("advice"), str) and advice else "")
        if run.summary.get("finished") is True:
            text += (
                " The model that is kept was then trained on the questions about the other half too, which is untested: nobody "
                "is left to ask about."
            )
        found.append(text)
    return " ".join(found) or missing(runs)


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    return [_arms(runs), _along(runs), _lost(runs), _pilot(runs), _all(runs)]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The tables for the terminal."""
    rows = list(summary.get("rows") or [])
    cells = [
        [arm, *(_cell(rows, arm, group, part) for group in ("unasked", "asked") for part in ("held-out", "trained"))]
        for arm in distinct(row["arm"] for row in rows)
    ]
    columns = ["arm", "held-out subjects and wordings", "held-out subjects", "held-out wordings", "trained both"]
    tables = (
        [Table(columns, cells, "Questions and sentences answered (95 % over subjects)", numbers_from=1)]
        if cells
        else []
    )
    if named := _named_cells(rows):
        columns = ["arm", "held-out subjects and wordings", "in chats", "trained both"]
        tables.append(Table(columns, named, "Replies that name the object anywhere", numbers_from=1))
    tables += [*_written(summary, ""), *_ended(summary, ""), *_edited(summary, "")]
    if kept := _kept_cells(summary, ""):
        tables.append(Table(["arm", *_KEPT], kept, "What the model knew before", numbers_from=2))
    if drift := _drift_cells(summary, ""):
        tables.append(Table(["arm", "text", "before", "change"], drift, "Nats a token of unseen text", numbers_from=2))
    return tables


def _result(
    rows: Sequence[Row], arm: str, group: str = "unasked", part: str = "held-out", kind: str = "any"
) -> Row | None:
    wanted = (arm, group, part, kind)
    return next((r for r in rows if (r["arm"], r["group"], r["wordings"], r["kind"]) == wanted), None)


def _cell(rows: Sequence[Row], arm: str, group: str, part: str) -> str:
    row = _result(rows, arm, group, part)
    return "–" if row is None else percent_ranged(row, "share", "")


def _named_cells(rows: Sequence[Row]) -> list[list[str]]:
    """A row an arm, of runs that say it: an answer in a sentence does not begin with the object."""
    wanted = (("unasked", "held-out", "any"), ("unasked", "held-out", "chat"), ("asked", "trained", "any"))
    found = {arm: [_result(rows, arm, *one) for one in wanted] for arm in distinct(row["arm"] for row in rows)}
    return [
        [arm, *("–" if row is None else percent_ranged(row, "named") for row in of)]
        for arm, of in found.items()
        if all(row is None or _known(row, "named") for row in of)
    ]


def _arms(runs: Sequence[RunData]) -> Section:
    groups = []
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        for group in ("unasked", "asked"):
            for part in ("held-out", "trained"):
                found = [(arm, _result(run.rows, arm, group, part)) for arm in distinct(r["arm"] for r in run.rows)]
                members = [
                    Bar(arm, row["share"], GREY, row["low"], row["high"]) for arm, row in found if row is not None
                ]
                if members:
                    groups.append((f"{GROUPS[group]}, {part} wordings{of}", members))
    if not groups:
        return Section("Can the facts be asked for?", [], missing(runs))
    figure = bars(groups, "answers that begin with the object", bar="share, 95 % over subjects")
    note = "All arms that train read equally many tokens. The first bars are the result: nothing of the question was trained."
    edited = [
        table
        for run in runs
        for of in (run.name if len(runs) > 1 else "",)
        for table in (*_written(run.summary, of), *_ended(run.summary, of), *_edited(run.summary, of))
    ]
    return Section("Can the facts be asked for?", [Figures([("", figure)], note), *edited])


def _written(summary: Mapping[str, Any], run: str) -> list[Table]:
    """How many of the texts that are trained a chat model wrote; nothing of runs in which templates wrote all."""
    if not (found := summary.get("written")):
        return []
    cells = [found["writer"], *(count(found[name]) for name in ("written", "fell_back"))]
    title = "Texts about the subjects, by a chat model" + (f", {run}" if run else "")
    return [Table(["chat model", "written", "fell back to templates"], [cells], title, numbers_from=1)]


def _ended(summary: Mapping[str, Any], run: str) -> list[Table]:
    """Arms that ended early or are left out, and why; nothing where none did."""
    ended = [
        [row["dataset"], f"ended after {count(row.get('tokens'))} of {count(summary.get('budget'))} tokens", why]
        for row in summary.get("training") or []
        if isinstance(why := row.get("stopped"), str) and why
    ]
    left = [[arm, "left out", str(why)] for arm, why in (summary.get("left_out") or {}).items()]
    title = "Ended early, or left out" + (f", {run}" if run else "")
    return [Table(["arm", "", "because"], [*ended, *left], title)] if ended or left else []


def _edited(summary: Mapping[str, Any], run: str) -> list[Table]:
    """How many facts an arm that edits recites; nothing of runs without one, or of versions that did not ask."""
    if not (edited := summary.get("edited")):
        return []
    cells = [
        edited["method"],
        *(count(edited[name]) for name in ("edits", "failed")),
        percent_ranged(edited, "recited"),
    ]
    title = "Edited facts behind the very prompts they were edited with" + (f", {run}" if run else "")
    return [Table(["method", "facts", "failed", "answered (95 % over subjects)"], [cells], title, numbers_from=1)]


def _along(runs: Sequence[RunData]) -> Section:
    shares, drift = [], []
    likely: dict[str, list[Line]] = {"first": [], "gain": []}
    for run in runs:
        of = f", {run.name}" if len(runs) > 1 else ""
        looks = styles(distinct(row["dataset"] for row in run.curves))
        for arm, (colour, _) in looks.items():
            rows = [
                row for row in run.curves if row["dataset"] == arm and number(row.get("trained_tokens")) is not None
            ]
            for group, dash in (("unasked", "solid"), ("asked", "dot")):
                whose = f"{arm}, {'never asked' if group == 'unasked' else 'asked'}{of}"
                some = [
                    r
                    for r in rows
                    if r.get("group") == group and r.get("wordings") == "held-out" and _known(r, "share")
                ]
                if some:
                    x, y = ([row[k] for row in some] for k in ("trained_tokens", "share"))
                    shares.append(Line(whose, x, y, colour, dash))
                for name, lines in likely.items():
                    some = [r for r in rows if r.get("group") == group and _known(r, name)]
                    if some:
                        x, y = [row["trained_tokens"] for row in some], [row[name] for row in some]
                        lines.append(Line(whose, x, y, colour, dash))
            for kind in distinct(row["text"] for row in rows if isinstance(row.get("text"), str)):
                some = [row for row in rows if row.get("text") == kind and _known(row, "nats")]
                x, y = ([row[k] for row in some] for k in ("trained_tokens", "nats"))
                drift.append(Line(f"{arm}, {kind}{of}", x, y, colour, "solid" if kind == "replayed kind" else "dash"))
    figures: list[tuple[str, go.Figure]] = []
    if shares:
        figures.append(("Answered in held-out wordings", curves(shares, x="tokens trained", y="answered", shares=True)))
    if likely["first"]:
        figure = curves(likely["first"], x="tokens trained", y="probability", shares=True)
        figures.append(("First token of the answer, in held-out wordings", figure))
    if likely["gain"]:
        figure = curves(likely["gain"], x="tokens trained", y="nats a token more than before")
        figures.append(("How much likelier the answer became, in held-out wordings", figure))
    if drift:
        figures.append(("Unseen text", curves(drift, x="tokens trained", y="nats a token")))
    return Section("While it is taught", [Figures(figures)] if figures else [], missing(runs))


def _known(row: Row, name: str) -> bool:
    return number(row.get(name)) is not None


def _lost(runs: Sequence[RunData]) -> Section:
    blocks: list[Any] = []
    several = ["run"] if len(runs) > 1 else []
    kept = [cells for run in runs for cells in _kept_cells(run.summary, run.name if several else "")]
    if kept:
        columns = [*several, "arm", *_KEPT]
        blocks.append(Table(columns, kept, _FACTS, numbers_from=len(columns) - 6))
    drift = [cells for run in runs for cells in _drift_cells(run.summary, run.name if several else "")]
    if drift:
        columns = [*several, "arm", "text", "nats a token before", "change"]
        blocks.append(Table(columns, drift, numbers_from=len(columns) - 2))
    return Section("What was lost", blocks, "" if blocks else missing(runs))


def _kept_cells(summary: Mapping[str, Any], run: str) -> list[list[str]]:
    return [
        [*([run] if run else []), row["arm"], GROUPS.get(row["group"], row["group"]), *_counts(row)]
        for row in summary.get("kept") or []
    ]


_KEPT = ("what was right before", "answers right", "lost", "won", "facts lost", "won", "p")
_FACTS = "A fact is right where half of its wordings or more are answered; p is exact, over facts (McNemar)."


def _counts(row: Row) -> list[str]:
    answers = [count(row[name]) for name in ("right_before", "lost", "won")]
    if not (_known(row, "facts_lost") and _known(row, "facts_won")):  # older runs tested single answers
        return [*answers, "–", "–", "–"]
    return [*answers, *(count(row[name]) for name in ("facts_lost", "facts_won")), f"{row['p']:.2g}"]


def _drift_cells(summary: Mapping[str, Any], run: str) -> list[list[str]]:
    return [
        [*([run] if run else []), row["arm"], row["text"], f"{row['before']:.3f}", signed(row["nats"])]
        for row in summary.get("drift") or []
    ]


def _pilot(runs: Sequence[RunData]) -> Section:
    several, cells, notes = ["run"] if len(runs) > 1 else [], [], []
    for run in runs:
        chosen = run.summary.get("chosen") or {}
        for row in chosen.get("tried") or []:
            taken = "taken" if row["rate"] == chosen["rate"] else ""
            drift = signed(row.get("drift"))
            cells.append(
                [
                    *([run.name] if several else []),
                    f"{row['rate']:.2g}",
                    signed(row["gain"]),
                    percent(row["share"]),
                    drift,
                    taken,
                ]
            )
        if chosen.get("drifted") is True:
            notes.append("Unseen text suffered more than it may at every rate: the one given stays.")
        if chosen.get("tried"):
            texts = count(chosen.get("encounters"))
            why, low, high = chosen.get("why"), count(chosen.get("low")), count(chosen.get("high"))
            notes.append(
                f"{why}: {texts} texts a subject, as given." if why else f"{texts} texts a subject ({low} to {high})."
            )
    columns = [*several, "learning rate", "gain (nats a token)", "written", "drift", ""]
    return Section("The pilot", [Table(columns, cells, " ".join(notes))] if cells else [], "There was no pilot.")


def _all(runs: Sequence[RunData]) -> Section:
    several = ["run"] if len(runs) > 1 else []
    cells = [
        [
            *([run.name] if several else []),
            row["arm"],
            GROUPS.get(row["group"], row["group"]),
            row["wordings"],
            row["kind"],
            *(count(row.get(name)) for name in ("subjects", "facts")),
            percent(row["share"]),
            *(percent(row[name]) for name in ("low", "high")),
            percent(row["named"]) if _known(row, "named") else "",
        ]
        for run in runs
        for row in run.rows
    ]
    columns = [
        *several,
        "arm",
        "about",
        "wordings",
        "kind",
        "subjects",
        "facts",
        "answered",
        "from",
        "to",
        "named anywhere",
    ]
    return Section("All of it", [Table(columns, cells, numbers_from=len(columns) - 6)] if cells else [], missing(runs))
