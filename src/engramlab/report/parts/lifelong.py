"""What a long sequence of edits shows beyond the table: what holds by age, and what became of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.rows import NO_LOSS, PROTOCOLS, protocol_of
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.edited_rows import EditingRows
from engramlab.report.parts.figures import DASHES, GREY, Line, curves
from engramlab.report.parts.judged import loss_name, method_name, rows_at, said, share
from engramlab.report.parts.training import table_by_run
from engramlab.report.parts.words import count, short
from engramlab.report.rows import Row, RunData, distinct, number
from engramlab.report.shapes import Maybe

#: Of a summary.
NEEDS: dict[str, Any] = {
    "ages": Maybe([{"edits": float, "age": float, "role": str, "protocol": str}]),
    "damage": Maybe([{"edits": float}]),
}


def by_age(runs: Sequence[RunData], measured: EditingRows) -> Section | None:
    """Curves over tenths of age after each count; None where no run made edits in turns."""
    rows = [(run, row) for run in runs for row in rows_at(run, "ages")]
    blocks: list[Block] = []
    for protocol in PROTOCOLS:
        figures = []
        for edits in sorted(distinct(int(number(row["edits"]) or 0) for _, row in rows)):
            for role in distinct(str(row["role"]) for _, row in rows):
                here = [
                    (run, row)
                    for run, row in rows
                    if (row["edits"], row["role"], protocol_of(row)) == (edits, role, protocol)
                ]
                lines = _lines(runs, here, measured)
                lines += _before(here)
                if lines:
                    title = f"{role} after {edits:,} edits, {said(protocol)}"
                    figures.append((title, curves(lines, x="tenth of age, 1 is the latest", y="holds", shares=True)))
        if figures:
            blocks.append(Figures(figures))
    if not blocks:
        return None
    note = (
        "A sample of the edits, drawn before the run and even over tenths of age. Edits that a later one took the place of are "
        "not among them. Grey: the same questions, answered by the unedited model."
    )
    return Section("What holds, by the age of the edit", [Text(note), *blocks])


def _lines(runs: Sequence[RunData], rows: Sequence[tuple[RunData, Row]], measured: EditingRows) -> list[Line]:
    lines = []
    for run, method, loss in distinct((run.name, str(row.get("method")), str(row.get("loss"))) for run, row in rows):
        own = [row for r, row in rows if (r.name, str(row.get("method")), str(row.get("loss"))) == (run, method, loss)]
        points = [(number(row["age"]), number(row.get("share"))) for row in own]
        known = sorted((x, y) for x, y in points if x is not None and y is not None)
        name = method_name(method) + ("" if loss == NO_LOSS else f" · {loss_name(loss)}")
        name += f" · {run}" if len(runs) > 1 else ""
        dash = DASHES[[*measured.losses, NO_LOSS].index(loss) % len(DASHES)] if loss in measured.losses else DASHES[0]
        if known:
            lines.append(
                Line(name, [x for x, _ in known], [y for _, y in known], measured.colours.get(method, GREY), dash)
            )
    return lines


def _before(rows: Sequence[tuple[RunData, Row]]) -> list[Line]:
    """What the unedited model of the first run answers right; it is the same for its methods. Older versions noted something
    else, under another name."""
    found: dict[float, float] = {}
    for _, row in rows:
        age, before = number(row["age"]), number(row.get("unedited"))
        if age is not None and before is not None:
            found.setdefault(age, before)
    ages = sorted(found)
    return [Line("before any edit", ages, [found[age] for age in ages], GREY, "dot")] if ages else []


def damage(runs: Sequence[RunData]) -> Section | None:
    """A row a method and count: speed, running text, norms, outputs, what was never edited and what was edited again."""
    model, noted, facts, turned = [], [], [], []
    for run in runs:
        for row in rows_at(run, "damage"):
            loss = str(row.get("loss") or NO_LOSS)
            name = [method_name(row.get("method")), "–" if loss == NO_LOSS else loss_name(loss)]
            about = [run.name, *name, count(row["edits"])]
            model.append(
                [
                    *about,
                    _speed(row),
                    short(row.get("statistics_seconds")),
                    short(row.get("nats_before")),
                    short(row.get("nats_more")),
                    short(row.get("norm")),
                    *(_from_to(row, what) for what in ("empty", "endless", "repeated")),
                ]
            )
            if row.get("device"):  # runs of older versions noted nothing of it
                noted.append(
                    [*about, *_noted(row), _fluency(row), *(count(row.get(f"facts_{name}")) for name in _FACTS)]
                )
            facts.append(
                [
                    *about,
                    count(row.get("twins")),
                    share(row.get("twins_same")),
                    _since(row, "twins_right"),
                    count(row.get("overwritten")),
                    share(row.get("overwritten_old")),
                    share(row.get("overwritten_newest")),
                ]
            )
            if number(row.get("negated_asked")) or number(row.get("reversed_asked")):
                cells = [_since(row, what) for what in ("negated", "reversed")]
                turned.append([*about, count(row.get("negated_asked")), *cells])
    if not model:
        return None
    first = ["run", "method", "loss", "T"]
    columns = [*first, "edits/s", "statistics, s", "nats before", "nats more", "norm", "empty", "endless", "repeated"]
    note = (
        "Nats: how unlikely a token of running text is before the edits, and by how much more after them. Norm: of the edited "
        "matrix that grew most, over what it was. Empty, endless (cut off by the end of the room) and repeated (half of the "
        "words were said before): per cent of what is written, before → after. Twins: facts of the same relations about "
        "other subjects, never edited; how many answers are what they were, and how many are right. Edited again: is the old "
        "object still the answer, or the newest? All answers are written freely."
    )
    others = [*first, "twins", "same", "right", "edited again", "old", "newest"]
    tables = [table_by_run(runs, columns, model, "", 3), table_by_run(runs, others, facts, "", 3)]
    if noted:
        heads = [*first, "device", *_HEADS, "fluency", "facts asked", "right before", "lost", "won"]
        tables.insert(1, table_by_run(runs, heads, noted, _NOTED, 5))
    if turned:
        heads = [*first, "asked", "new answer though negated", "subject, asked the other way round"]
        tables.append(table_by_run(runs, heads, turned, "", 3))
    return Section("What became of the model", [Text(note + _orders(runs)), *tables])


_FACTS = ("asked", "right_before", "lost", "won")
_HEADS = ("peak memory, GB", "ends by itself", "whole answer")
_NOTED = (
    "Peak memory: on a GPU of the tensors there while edits are made, on a CPU of the whole process so far, loading and "
    "judging included. Where texts have 16 tokens more than the longest answer: per cent that end by themselves, by the end "
    "token or the end of the line, and that are then the answer and nothing more, before → after. Fluency: entropy of word "
    "n-grams behind the edits' prompts, × 100. Facts: about countries, no edit speaks of them."
)


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """The same for the terminal, in short."""
    rows = summary.get("damage")
    cells = [
        [
            method_name(row.get("method")),
            count(row.get("edits")),
            _speed(row),
            *_noted(row),
            " / ".join(count(row.get(f"facts_{name}")) for name in _FACTS[1:]),
        ]
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and row.get("device")
    ]
    heads = ["method", "T", "edits/s", "device", *_HEADS, "known / lost / won"]
    title = "what became of the model (%; memory: on a CPU of the whole process)"
    return [Table(heads, cells, title, numbers_from=1, words=(3,))] if cells else []


def _speed(row: Row) -> str:
    seconds = number(row.get("seconds_per_edit"))
    return short(1 / seconds) if seconds else "–"


def _noted(row: Row) -> list[str]:
    """The device, and what stands under ``_HEADS``."""
    peak = number(row.get("peak_memory"))
    memory = "–" if peak is None else short(peak / 1e9)
    return [str(row.get("device") or "–"), memory, *(_since(row, what) for what in ("stops", "whole"))]


def _fluency(row: Row) -> str:
    found = [number(row.get(name)) for name in ("fluency_before", "fluency")]
    return "–" if None in found else " → ".join(f"{100 * (bits or 0.0):.0f}" for bits in found)


def _orders(runs: Sequence[RunData]) -> str:
    """Which runs made the edits in another order than they come in."""
    drawn = {run.name: seed for run in runs if (seed := number(run.summary.get("order_seed"))) is not None}
    said = [f"{f'of run {name} ' if len(runs) > 1 else ''}by seed {seed:.0f}" for name, seed in drawn.items()]
    if not said:
        return ""
    return (
        f" The order of the edits was drawn anew, {', '.join(said)}; the same cases are judged, so that tenths of age are not "
        "equally full."
    )


def _since(row: Row, what: str) -> str:
    """A share before the edits and after them."""
    return f"{share(row.get(f'{what}_before'))} → {share(row.get(what))}"


def _from_to(row: Row, what: str) -> str:
    return f"{share(row.get(f'{what}_before'))} → {share(row.get(f'{what}_after'))}"
