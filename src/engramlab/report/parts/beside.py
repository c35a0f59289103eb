"""What reports of edits show beside right and wrong answers: fluency, portability averaged in two ways, the perplexity of
ordinary text, scores of other people's tasks; and the third protocol, likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from engramlab.base.rows import NO_LOSS, PROTOCOLS, Row, protocol_of
from engramlab.report.parts.blocks import Section, Table
from engramlab.report.parts.edited_rows import EditingRows
from engramlab.report.parts.judged import loss_name, method_name, of_protocol, rows_at, share
from engramlab.report.parts.training import missing, table_by_run
from engramlab.report.parts.words import count, ranged, short
from engramlab.report.rows import RunData, number
from engramlab.report.shapes import Maybe

_COLUMNS = ("fluency", "Por. teacher-forced, queries / kinds", "Por. generated, queries / kinds", "perplexity")
_SHORT = ("fluency", "Por. forced", "Por. written", "perplexity")
#: Of a summary's rows, where an experiment measures them; and how tables head them.
MEASURED = {
    f"{name}{end}": Maybe(float)
    for name in ("fluency_before", "fluency", "nats_before", "nats")
    for end in ("", "_low", "_high")
}
HEADS = ("fluency", "perplexity")
FLUENCY = (
    "Fluency: entropy of the word 2- and 3-grams of an edit's prompt and what follows it, × 100, before and after; a "
    "broken model repeats itself."
)
PERPLEXITY = "Perplexity: of running text (--drift-text)."


def section(runs: Sequence[RunData], measured: EditingRows) -> Section:
    """Everything of single runs, one row a method, loss and number of edits."""
    rows = []
    for regime in measured.regimes:
        for unit in measured.at(regime):
            row = next(measured.rows[key] for key in measured.rows if key[:2] == (unit, regime))
            cells = _cells(row, partial(measured.value, unit, regime))
            rows.append([unit.run, str(regime), method_name(unit.method), _loss(unit.loss), *cells])
    caption = (
        f"{FLUENCY} Por. over queries: a case's mean over its questions, as everywhere above; over kinds: "
        f"over the means of its kinds of questions, as KnowEdit's tables have it. {PERPLEXITY}"
    )
    told = any(cell != "–" for row in rows for cell in row[4:])
    columns = ["run", "edits", "method", "loss", *_COLUMNS]
    return Section("Beside the answers", [table_by_run(runs, columns, rows, caption, 4)] if told else [], missing(runs))


def quality(runs: Sequence[RunData]) -> Section | None:
    """Edit quality, whether edits hold behind other texts, whether notes were read where they should be, and what was chosen
    among options."""
    cells = []
    for run in runs:
        for row in rows_at(run, "quality"):
            parts = [share(number(row.get(name))) for name in ("es", "bp", "eq", "recalled_in", "recalled_out")]
            options = [_before_after(row, by) for by in ("sum", "mean")]
            place = [run.name, str(row.get("edits", "–")), *_named(row)]
            cells.append([*place, *parts[:3], _held_behind(row), *parts[3:], *options])
    if not any(cell != "–" for line in cells for cell in line[4:]):
        return None
    columns = [
        "run",
        "edits",
        "method",
        "loss",
        "ES",
        "BP",
        "EQ",
        "behind texts",
        "note read, in scope",
        "out of scope",
        *_CHOSEN,
    ]
    caption = (
        "Per cent, answers written freely. ES, BP, EQ (arXiv 2403.17431): of a case's questions in scope (the edit and its "
        "rephrasings) those answered right, of those out of scope those answered as before; EQ is the harmonic mean. "
        "Behind texts (--contexts): how often the edit holds behind sentences that no method has seen, before → after. Note "
        "read: how often a method that reads notes read one. Options: how often the right one is the likeliest, before → after."
    )
    return Section("Edit quality", [table_by_run(runs, columns, cells, caption, 4)])


def _held_behind(row: Row) -> str:
    values = [number(row.get(name)) for name in ("behind_before", "behind", "behind_low", "behind_high")]
    if None in values:
        return "–"
    before, after, low, high = map(share, values)
    return f"{before} → {after} [{low}, {high}]"


_CHOSEN = ("options, by sum", "by mean")


def _before_after(row: Row, name: str) -> str:
    before, after = (number(row.get(f"{name}_{when}")) for when in ("before", "after"))
    return "–" if before is None or after is None else f"{share(before)} → {share(after)}"


#: From a row of a summary to the cells that say of what it is.
Place = Callable[[Row], Sequence[str]]


def moved(runs: Sequence[RunData], key: str, place: Place, columns: Sequence[str]) -> Section | None:
    """Fluency and perplexity before and after, of experiments with tables of their own; None where nothing was measured.

    Args:
        key: of the rows in a summary.
        columns: the heads of ``place``.
    """
    cells = [[run.name, *place(row), *before_after(row, ends=True)] for run in runs for row in rows_at(run, key)]
    if not any(cell != "–" for line in cells for cell in line[-2:]):
        return None
    caption = f"{FLUENCY} {PERPLEXITY} 95\u00a0% intervals over cases, of the model after the edits."
    table = table_by_run(runs, ["run", *columns, *HEADS], cells, caption, 1 + len(columns))
    return Section("Beside the answers", [table])


def moved_terminal(summary: Row, key: str, place: Place, columns: Sequence[str]) -> list[Table]:
    """The same for the terminal."""
    cells = [[*place(row), *before_after(row)] for row in _rows(summary, key)]
    if not any(cell != "–" for line in cells for cell in line[-2:]):
        return []
    return [Table([*columns, *HEADS], cells, "Beside the answers, before → after", numbers_from=len(columns))]


def before_after(row: Row, ends: bool = False) -> list[str]:
    """Fluency, and the perplexity of running text, before → after; with the interval of the second where there is one."""
    return [_shown(row, "fluency", hundredths, ends), _shown(row, "nats", perplexity, ends)]


def hundredths(bits: float) -> str:
    """Fluency as the field prints it."""
    return f"{100 * bits:.0f}"


def perplexity(nats: float) -> str:
    """Of the nats of a token."""
    return short(math.exp(max(min(nats, 50.0), -50.0)))


def _shown(row: Row, name: str, shown: Callable[[float], str], ends: bool) -> str:
    before, after, low, high = (number(row.get(key)) for key in (f"{name}_before", name, f"{name}_low", f"{name}_high"))
    if before is None or after is None:
        return "–"
    around = "" if not ends or low is None or high is None else f" ({shown(low)} to {shown(high)})"
    return f"{shown(before)} → {shown(after)}{around}"


def _by_method(row: Row) -> list[str]:
    return [str(row.get("edits", "–")), *_named(row)]


_BY_METHOD = ("edits", "method", "loss")


def tasks(runs: Sequence[RunData], place: Place = _by_method, columns: Sequence[str] = _BY_METHOD) -> Section | None:
    """Tasks of lm-evaluation-harness before and after many edits; None without any.

    Args:
        columns: the heads of ``place``.
    """
    cells = [
        [run.name, *place(row), str(row.get("task", "–")), *_scores(row)]
        for run in runs
        for row in rows_at(run, "tasks")
    ]
    if not cells:
        return None
    caption = "Scores of lm-evaluation-harness (--lm-eval), of the unedited model and of the model after so many edits."
    table = table_by_run(runs, ["run", *columns, "task", "before", "after"], cells, caption, 2 + len(columns))
    return Section("General ability", [table])


def tasks_terminal(summary: Row, place: Place, columns: Sequence[str]) -> list[Table]:
    """The same for the terminal."""
    cells = [[*place(row), str(row.get("task", "–")), *_scores(row)] for row in _rows(summary, "tasks")]
    heads = [*columns, "task", "before", "after"]
    return [Table(heads, cells, "lm-eval", numbers_from=1 + len(columns))] if cells else []


def _scores(row: Row) -> list[str]:
    return [short(number(row.get(name))) for name in ("before", "score")]


def likelihood(runs: Sequence[RunData]) -> Section | None:
    """The third protocol, where a benchmark has texts that are wanted and not right."""
    cells = [
        [
            *(run.name, str(row.get("edits", "–")), *_named(row), count(row.get("cases"))),
            *(ranged(row, name) for name in ("success_before", "success", "kl")),
        ]
        for run in runs
        for row in rows_at(run, "likelihood")
    ]
    if not cells:
        return None
    columns = ["run", "edits", "method", "loss", "cases", "success before", "success after", "KL (nats)"]
    caption = (
        "Likelihood, never averaged with the other protocols. Success (ConvSent, arXiv 2206.06520): σ(ℓ⁺ − ℓ⁻) · min(1, "
        "exp(ℓ⁺ − ℓ⁺ before)), ℓ the mean log-probability of a token of texts of the wanted, and of the other, sentiment. KL: "
        "how far what is said about the next topic moved; lower is better. 95\u00a0% intervals over cases."
    )
    return Section("Likelihood: texts that are wanted", [table_by_run(runs, columns, cells, caption, 4)])


def terminal(summary: Row) -> list[Table]:
    """The same for the terminal."""
    rows = [row for row in summary.get("rows") or [] if isinstance(row, dict)]
    several = len({repr(row.get("edits")) for row in rows if protocol_of(row)}) > 1
    by: dict[tuple[str | None, ...], Row] = {(*_key(row), protocol_of(row)): row for row in rows}
    tables: list[Table] = []
    cells: list[list[str]] = []
    for row in of_protocol(rows, PROTOCOLS[0]):
        found = _cells(row, partial(_in, by, _key(row)))
        cells.append([*_named(row), *([f"{row.get('edits')}"] if several else []), *found])
    if any(cell != "–" for line in cells for cell in line[2 + several :]):
        columns = ["method", "loss", *(["T"] if several else []), *_SHORT]
        tables.append(Table(columns, cells, "beside the answers (Por.: over queries / kinds)", numbers_from=2))
    cells = [[*_named(row), str(row.get("edits", "–")), _held_behind(row)] for row in _rows(summary, "quality")]
    if any(line[-1] != "–" for line in cells):
        title = "behind sentences that no method has seen, written (%), before → after"
        tables.append(Table(["method", "loss", "T", "holds"], cells, title, numbers_from=2))
    tables += tasks_terminal(summary, lambda row: [*_named(row), str(row.get("edits", "–"))], ("method", "loss", "T"))
    if liked := _rows(summary, "likelihood"):
        cells = [
            [*_named(row), *(short(row.get(name)) for name in ("success_before", "success", "kl"))] for row in liked
        ]
        tables.append(Table(["method", "loss", "success before", "after", "KL"], cells, "likelihood", numbers_from=2))
    return tables


def _rows(summary: Row, name: str) -> list[Row]:
    found = summary.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _in(by: Mapping[tuple[str | None, ...], Row], key: tuple[str, ...], protocol: str, name: str) -> float | None:
    return number(by.get((*key, protocol), {}).get(name))


def _key(row: Row) -> tuple[str, ...]:
    return tuple(repr(row.get(name)) for name in ("method", "loss", "edits"))


def _named(row: Row) -> list[str]:
    return [method_name(row.get("method")), _loss(row.get("loss"))]


def _loss(name: object) -> str:
    return "–" if name in (None, "", NO_LOSS) else loss_name(name)


def _cells(row: Row, value: Callable[[str, str], float | None]) -> list[str]:
    """Fluency, portability twice a protocol, perplexity.

    Args:
        value: of a protocol and a column.
    """

    def both(protocol: str) -> str:
        kinds = value(protocol, "portability_by_kind")
        return "–" if kinds is None else f"{share(value(protocol, 'portability'))} / {share(kinds)}"

    fluency, likely = before_after(row)
    return [fluency, *map(both, PROTOCOLS), likely]
