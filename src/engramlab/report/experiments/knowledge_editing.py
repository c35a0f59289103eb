"""The sections of the knowledge-editing report: methods and losses by what became of the model, under two protocols.

Reliability is asked with the edit's own prompt, generality with other words for it, portability with what follows from it, and
locality with what must stay as it was. The two protocols stand in tables of their own and are never mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engramlab.base.rows import NO_LOSS, PLAIN_LOSS, PROTOCOLS, protocol_of
from engramlab.report.parts import beside, lifelong
from engramlab.report.parts.blocks import Block, EditedCases, Figures, Section, Table, Text
from engramlab.report.parts.cases import leaves
from engramlab.report.parts.edited_rows import EditingRows, Regime, Unit
from engramlab.report.parts.figures import DASHES, Line, Point, curves, scatter, styles
from engramlab.report.parts.judged import (
    ABOUT,
    HEADS,
    gain,
    loss_name,
    method_name,
    of_protocol,
    rows_at,
    said,
    share,
    unedited,
)
from engramlab.report.parts.training import missing, table_by_run
from engramlab.report.parts.verdicts import NOISE, interval, more, wilson
from engramlab.report.parts.words import count, short
from engramlab.report.rows import Row, RunData, distinct, number, words
from engramlab.report.shapes import Maybe

#: Of a summary.
NEEDS = {"differences": Maybe([{"method": Maybe(str)}]), **lifelong.NEEDS}
_MOST_RECORDS, _MOST_SAID = 200, 4
READING = (
    "An edit holds where the model gives the new answer to the edit's own prompt (reliability) and to other wordings "
    "(generality), and draws its consequences (portability); what must stay is asked too (locality). A difference whose "
    "interval holds 0 is within noise."
)


def headline(runs: Sequence[RunData]) -> str:
    """How many edits hold, what they leave alone and what OVERTONE does to portability, of answers written freely."""
    measured = EditingRows(runs)
    if not measured.rows:
        return missing(runs, "No edit was judged")
    regime = measured.regimes[-1]
    texts = []
    means = {unit: measured.value(unit, regime, "generated", "mean") for unit in measured.units}
    known = sorted((unit for unit, mean in means.items() if mean is not None), key=lambda unit: -(means[unit] or 0.0))
    for unit in known if len(known) <= _MOST_SAID else (known[0], known[-1]):
        cases = measured.value(unit, regime, "generated", "cases") or 0.0
        holds, stays = (measured.value(unit, regime, "generated", role) for role in ("reliability", "locality"))
        if holds is None:
            continue
        found = wilson(min(1.0, max(0.0, holds)), cases)
        ends = f" ({100 * found.low:.0f}–{100 * found.high:.0f})" if cases else ""
        name = method_name(unit.method) + ("" if unit.loss == NO_LOSS else f" with {loss_name(unit.loss)}")
        beside = "" if stays is None else f", {share(stays)}\u00a0% of what must stay stays"
        texts.append(f"{name}: {share(holds)}\u00a0%{ends} of {count(cases)} edits hold{beside}")
    compared = [
        row
        for row in measured.differences.values()
        if (row["regime"], protocol_of(row), row.get("role")) == (regime, "generated", "portability")
        and str(row.get("loss", "overtone")).startswith("overtone")
        and interval(row, "difference", "") is not None
    ]
    if compared:
        each = ", ".join(
            f"{method_name(row.get('method'))} {gain(row).splitlines()[0]}"
            + ("" if more(interval(row, "difference", ""), 0.0) is not None else f" ({NOISE})")
            for row in compared
        )
        texts.append(f"portability with OVERTONE instead of cross-entropy, in points: {each}")
    said = "; ".join(texts)
    if not said:
        return missing(runs, "No answer was written")
    before = [unedited(measured.of(run.name, regime, "generated")).get("reliability") for run in runs]
    if shares := distinct(f"{share(value)}\u00a0%" for value in before if value is not None):
        said += f"; of the unedited model's answers {' and '.join(shares)} are the new ones"
    return f"{said[0].upper()}{said[1:]}. {regime}; answers are written freely."


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    measured = EditingRows(runs)
    return [
        _overview(runs),
        *(_results(runs, measured, protocol) for protocol in PROTOCOLS),
        _trade(runs, measured),
        _continual(runs, measured),
        *filter(None, (lifelong.by_age(runs, measured), lifelong.damage(runs))),
        _kinds(runs, measured),
        beside.section(runs, measured),
        *filter(None, (beside.quality(runs), beside.tasks(runs), beside.likelihood(runs))),
        _costs(runs, measured),
        _cases(runs),
        _left_out(runs),
    ]


def _overview(runs: Sequence[RunData]) -> Section:
    rows = []
    for run in runs:
        cases = max((number(row.get("cases")) or 0 for row in run.rows), default=0)
        most = run.summary.get("new_tokens")
        setting = str(run.summary.get("setting", "–"))
        texts = [str(run.summary.get(key, _option(run, key))) for key in ("model", "benchmark")]
        rows.append([run.name, *texts, setting, count(cases), "–" if most is None else str(most)])
    columns = ["run", "model", "benchmark", "setting", "cases", "tokens written at most"]
    return Section("What was edited", [table_by_run(runs, columns, rows, "", numbers_from=4)])


def _option(run: RunData, key: str) -> Any:
    options = run.config.get("config")
    return options.get(key, "–") if isinstance(options, dict) else "–"


def _results(runs: Sequence[RunData], measured: EditingRows, protocol: str) -> Section:
    title = {
        "teacher_forced": "Teacher-forced: the papers' table",
        "generated": "Generated: what the model writes by itself",
    }[protocol]
    blocks: list[Block] = []
    for regime in measured.regimes:
        for table in (_compared(runs, measured, regime, protocol), _without_loss(runs, measured, regime, protocol)):
            if table is not None:
                blocks.append(table)
    if blocks:
        note = (
            f"{ABOUT[protocol]} All numbers are percentages, means over cases; mean is over the four. On top stands what the "
            "unedited model answers right, where the run noted it: a method gives what it has beyond that. Differences are in "
            "points, with 95\u00a0% bootstrap intervals over cases; ▲ and ▼ mark those that exclude 0. CE: cross-entropy; OT: "
            "OVERTONE."
        )
        blocks.insert(0, Text(note))
    return Section(title, blocks, missing(runs))


def _compared(runs: Sequence[RunData], measured: EditingRows, regime: Regime, protocol: str) -> Table | None:
    """Cross-entropy, another loss and the difference side by side: one row a method and other loss."""
    units = [unit for unit in measured.at(regime) if unit.loss != NO_LOSS]
    others = [loss for loss in measured.losses if loss != PLAIN_LOSS and any(unit.loss == loss for unit in units)]
    named = len(others) > 1
    rows = []
    for run, method in distinct((unit.run, unit.method) for unit in units):
        own = [loss for loss in others if Unit(run, method, loss) in units] or others[:1]
        for loss in own or [""]:
            cells = []
            for role in HEADS:
                cells.append(share(measured.value(Unit(run, method, PLAIN_LOSS), regime, protocol, role)))
                if others:
                    cells.append(share(measured.value(Unit(run, method, loss), regime, protocol, role)))
                    cells.append(gain(measured.differences.get((run, method, loss, regime, protocol, role))))
            rows.append([run, method_name(method), *([loss_name(loss)] if named else []), *cells])
    if not rows:
        return None
    for run in distinct(unit.run for unit in reversed(units)):
        of = unedited(measured.of(run, regime, protocol))
        cells = [cell for role in HEADS for cell in (share(of.get(role)), *([""] * (2 if others else 0)))]
        if of:
            rows.insert(0, [run, "unedited model", *([""] if named else []), *cells])
    short = "other" if named else "OT" if others == ["overtone"] else loss_name("".join(others))
    heads = ["CE", short, f"{short} − CE"] if others else ["CE"]
    first = ["run", "method", *(["other loss"] if named else [])]
    groups = [("", len(first)), *((role, len(heads)) for role in HEADS.values())]
    return table_by_run(runs, [*first, *heads * len(HEADS)], rows, f"{regime}.", len(first), groups)


def _without_loss(runs: Sequence[RunData], measured: EditingRows, regime: Regime, protocol: str) -> Table | None:
    units = [unit for unit in measured.at(regime) if unit.loss == NO_LOSS]
    if not units:
        return None
    rows = [
        [unit.run, method_name(unit.method), *(share(measured.value(unit, regime, protocol, role)) for role in HEADS)]
        for unit in units
    ]
    for run in distinct(unit.run for unit in reversed(units)):
        if of := unedited(measured.of(run, regime, protocol)):
            rows.insert(0, [run, "unedited model", *(share(of.get(role)) for role in HEADS)])
    caption = f"{regime}: methods that minimise no loss of target tokens."
    return table_by_run(runs, ["run", "method", *HEADS.values()], rows, caption, numbers_from=2)


def _trade(runs: Sequence[RunData], measured: EditingRows) -> Section:
    """Portability against locality, cross-entropy and the other losses joined."""
    blocks: list[Block] = []
    for regime in measured.regimes:
        figures = []
        for protocol in PROTOCOLS:
            points = []
            for unit in sorted(measured.at(regime), key=lambda unit: unit.loss != PLAIN_LOSS):
                x, y = (measured.value(unit, regime, protocol, role) for role in ("locality", "portability"))
                if x is not None and y is not None:
                    name = method_name(unit.method) + (f" · {unit.run}" if len(runs) > 1 else "")
                    mark = "no loss" if unit.loss == NO_LOSS else loss_name(unit.loss)
                    points.append(Point(name, mark, x, y, measured.colours[unit.method]))
            if points:
                figures.append((f"{regime}: {said(protocol)}", scatter(points, x="locality", y="portability")))
        if figures:
            blocks.append(Figures(figures))
    return Section("Portability against locality", blocks, missing(runs))


def _continual(runs: Sequence[RunData], measured: EditingRows) -> Section:
    title = "Along a sequence of edits"
    regimes = [regime for regime in measured.regimes if regime.setting in ("continual", "turns")]
    if len(regimes) < 2:
        return Section(title, [], "These runs make no sequence of edits." if measured.rows else missing(runs))
    blocks: list[Block] = []
    looks = styles([*measured.losses, NO_LOSS])
    for protocol in PROTOCOLS:
        figures = []
        for role, head in HEADS.items():
            lines = []
            for unit in measured.units:
                found = [(regime.edits, measured.value(unit, regime, protocol, role)) for regime in regimes]
                points = [(edits, value) for edits, value in found if value is not None]
                if points:
                    parts = [method_name(unit.method), *([] if unit.loss == NO_LOSS else [loss_name(unit.loss)])]
                    parts += [unit.run] if len(runs) > 1 else []
                    dash = DASHES[list(looks).index(unit.loss) % 4]
                    colour = measured.colours[unit.method]
                    xs, ys = [edits for edits, _ in points], [value for _, value in points]
                    lines.append(Line(" · ".join(parts), xs, ys, colour, dash))
            if lines:
                name = role if role != "mean" else "mean of the four"
                figures.append(
                    (f"{name}, {said(protocol)}", curves(lines, x="edits made", y=head, shares=True, log_x=True))
                )
        if figures:
            blocks.append(Figures(figures))
    return Section(title, blocks, missing(runs))


def _kinds(runs: Sequence[RunData], measured: EditingRows) -> Section:
    """Portability and locality by the kind of question."""
    blocks: list[Block] = []
    for protocol in PROTOCOLS:
        for regime in measured.regimes:
            units = measured.at(regime)
            kinds = distinct(
                column
                for role in ("portability", "locality")
                for unit in units
                for column in measured.rows.get((unit, regime, protocol), {})
                if column.startswith(f"{role}:")
            )
            rows = []
            for unit in units:
                shares = [share(measured.value(unit, regime, protocol, kind)) for kind in kinds]
                rows.append([unit.run, method_name(unit.method), _loss(unit.loss), *shares])
            if kinds:
                names = [words(kind.partition(":")[2]) or "–" for kind in kinds]
                roles = [kind.partition(":")[0] for kind in kinds]
                groups = [("", 3), *((role, roles.count(role)) for role in distinct(roles))]
                columns, caption = ["run", "method", "loss", *names], f"{regime}: {said(protocol)}."
                blocks.append(table_by_run(runs, columns, rows, caption, 3, groups))
    return Section("Portability and locality by kind of question", blocks, missing(runs))


def _loss(name: object) -> str:
    return "–" if name in (None, "", NO_LOSS) else loss_name(name)


def _costs(runs: Sequence[RunData], measured: EditingRows) -> Section:
    rows = []
    for regime in measured.regimes:
        for unit in measured.at(regime):
            row = next(measured.rows[key] for key in measured.rows if key[:2] == (unit, regime))
            counts = [count(row.get(key)) for key in ("cases", "failed", "overruled")]
            cells = [
                str(regime),
                method_name(unit.method),
                _loss(unit.loss),
                *counts,
                short(row.get("seconds_per_edit")),
            ]
            rows.append([unit.run, *cells])
    columns = ["run", "edits", "method", "loss", "cases", "failed", "edited again", "seconds an edit"]
    tables = [table_by_run(runs, columns, rows, "", numbers_from=4)] if rows else []
    return Section("What the edits cost", tables, missing(runs))


def _cases(runs: Sequence[RunData]) -> Section:
    data = leaves(runs)
    title = "Case by case"
    if not data["views"]:
        return Section(title, [], missing(runs, "No case was judged"))
    note = (
        "A case opens to what was asked, the answers before and after the edit, and the right answer's tokens: "
        "log-probability (nats), rank (0 is the likeliest) and the likeliest token instead. Of a locality question ✓ says "
        "that the answer has not changed. Needs JavaScript."
    )
    return Section(title, [EditedCases(data, note)])


def _left_out(runs: Sequence[RunData]) -> Section:
    blocks: list[Block] = []
    for key, caption, columns in (
        ("failed", "Edits that failed; nothing of them is on the model, and they count nowhere above.", _FAILED),
        ("skipped", "Records of the benchmark that were skipped.", ("index", "key", "reason")),
        ("oddities", "Taken as they are, but good to know of the benchmark's file.", ("text",)),
    ):
        rows = [[run.name, *(str(row.get(c, "–")) for c in columns)] for run in runs for row in rows_at(run, key)]
        if rows:
            more = len(rows) - _MOST_RECORDS
            caption += f" The first {_MOST_RECORDS} of {len(rows):,}." if more > 0 else ""
            blocks.append(table_by_run(runs, ["run", *columns], rows[:_MOST_RECORDS], caption, numbers_from=1000))
    finished = all(run.finished for run in runs)
    return Section(
        "Left out or odd", blocks, "Every record was used and every edit was made." if finished else missing(runs)
    )


_FAILED = ("method", "loss", "case", "reason")


def terminal(summary: Row) -> list[Table]:
    """The run's result as tables for the terminal: one a protocol."""
    rows = summary.get("rows") or []
    several = len({repr(row.get("edits")) for row in rows if protocol_of(row)}) > 1
    tables = []
    for name in PROTOCOLS:
        cells = [
            [
                method_name(row.get("method")),
                _loss(row.get("loss")),
                *([f"{row.get('edits')}"] if several else []),
                *(share(row.get(role)) for role in HEADS),
                short(row.get("seconds_per_edit")),
            ]
            for row in of_protocol(rows, name)
        ]
        columns = ["method", "loss", *(["T"] if several else []), *HEADS.values(), "s/edit"]
        before = []
        for edits in distinct(repr(row.get("edits")) for row in rows):
            if of := unedited([row for row in of_protocol(rows, name) if repr(row.get("edits")) == edits]):
                shares = [share(of.get(role)) for role in HEADS]
                before.append(["unedited", "–", *([edits] if several else []), *shares, "–"])
        cells = [*before, *cells]
        if cells:
            tables.append(Table(columns, cells, f"{said(name)} (%)", numbers_from=2))
    return tables + beside.terminal(summary) + lifelong.terminal(summary)
