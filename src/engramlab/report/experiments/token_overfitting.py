"""The sections of the token-overfitting report: how each target token of an edit is learnt, under each loss.

Heterogeneous token overfitting (arXiv 2502.00602): under cross-entropy the tokens that a model finds likely from the start are
trained on and on while others still lag. Shown here as the loss of target tokens along the edit, split by how likely they were
at the start; as maps of single edits; and by what each part of OVERTONE is good for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from engramlab.base.rows import PLAIN_LOSS, PROTOCOLS
from engramlab.report.parts.blocks import Block, Figures, Section, Table, Text
from engramlab.report.parts.figures import Line, curves
from engramlab.report.parts.judged import (
    ABOUT,
    HEADS,
    gain,
    method_name,
    of_protocol,
    rows_at,
    said,
    share,
    table_rows,
    unedited,
)
from engramlab.report.parts.lengths import by_length
from engramlab.report.parts.maps import Map, Scale, heat, pick
from engramlab.report.parts.training import missing, table_by_run
from engramlab.report.parts.verdicts import NOISE, interval, more
from engramlab.report.parts.words import short
from engramlab.report.rows import Row, RunData, distinct, number

FULL = "full"
#: How likely a target token was before the edit: name, least probability, colour.
STARTS = (
    ("likely at the start (10 % or more)", 0.1, "#0072B2"),
    ("in between", 0.001, "#009E73"),
    ("unlikely at the start (below 0.1 %)", 0.0, "#D55E00"),
)
_NAMES = {
    PLAIN_LOSS: "cross-entropy",
    FULL: "OVERTONE",
    "no clip": "OVERTONE without clip",
    "no filter": "OVERTONE without filter",
    "no check": "OVERTONE without check",
    "no mixing": "OVERTONE without mixing (λ = 1)",
}
_MOST_PICKED, _MOST_TOKENS, _MOST_POSITIONS, _LEAST_EDITS, _SMALLEST_LOSS = 24, 12, 8, 3, 1e-6
READING = (
    "Under cross-entropy the tokens of an edit that a model finds likely from the start are trained on while others lag. The "
    "figures follow each token's loss along the edit; the table says what each part of OVERTONE changes."
)


def headline(runs: Sequence[RunData]) -> str:
    """One sentence: how unevenly tokens end under cross-entropy and under OVERTONE, and what that does to portability."""
    found: dict[str, Row] = {}
    for run in runs:
        for row in of_protocol(run.rows, "generated"):
            found.setdefault(str(row.get("setting")), row)
    if not found:
        return missing(runs, "No edit was followed")
    texts = []
    for setting in (PLAIN_LOSS, FULL):
        spread = number(found.get(setting, {}).get("final_loss_spread"))
        portability = number(found.get(setting, {}).get("portability"))
        parts = []
        if spread is not None:
            parts.append(f"the tokens of an edit end {spread:.2g} nats apart")
        if portability is not None:
            parts.append(f"portability (generated) {share(portability)}\u00a0%")
        if parts:
            texts.append(f"{_name(setting)}: {', '.join(parts)}")
    for run in runs:
        for row in of_protocol(rows_at(run, "differences"), "generated"):
            apart = interval(row, "difference", "")
            if (row.get("setting"), row.get("role")) == (PLAIN_LOSS, "portability") and apart is not None:
                noise = "" if more(apart, 0.0) is not None else f", {NOISE}"
                texts.append(
                    f"portability of cross-entropy less OVERTONE's, in points: {' '.join(gain(row).split())}{noise}"
                )
    return "; ".join(distinct(texts)) + "." if texts else missing(runs, "No answer was written")


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    courses = [course for run in runs for course in read_courses(run)]
    several = len(runs) > 1
    return [
        _along(runs, courses, several),
        _maps(runs, courses, several),
        _pick(runs, courses, several),
        by_length(runs, _name),
        _ablation(runs),
        _left_out(runs),
    ]


@dataclass(frozen=True)
class RunCourse:
    """One run under one setting: by edit (case and number), its tokens' texts, and by token the values at each step."""

    run: str
    setting: str
    texts: dict[tuple[str, int], list[str]]
    logprobs: dict[tuple[str, int], list[list[float]]]
    ranks: dict[tuple[str, int], list[list[float]]]

    @property
    def steps(self) -> int:
        """Steps of the longest edit."""
        return max((len(of) - 1 for tokens in self.logprobs.values() for of in tokens), default=0)

    def values(self, scale: Scale) -> dict[tuple[str, int], list[list[float]]]:
        """What a scale shows."""
        return self.logprobs if scale is _LOGPROB else self.ranks

    def title(self, several: bool) -> str:
        return _name(self.setting) + (f" · {self.run}" if several else "")


def read_courses(run: RunData) -> list[RunCourse]:
    """What the `course.parquet` files of a run hold; an edit that was over early keeps its last values."""
    found = []
    order = list(_NAMES)
    rows = table_rows(run, "*/course.parquet", None)
    settings = sorted(distinct(str(row.get("setting")) for row in rows), key=lambda s: ([*order, s]).index(s))
    for setting in settings:
        course = RunCourse(run.name, setting, {}, {}, {})
        of_setting = [row for row in rows if str(row.get("setting")) == setting and _whole(row)]
        for row in sorted(of_setting, key=lambda row: (row["step"], row["token"])):
            edit = (str(row.get("case")), int(row.get("edit") or 0))
            for values, value in ((course.logprobs, row["logprob"]), (course.ranks, row["rank"])):
                tokens = values.setdefault(edit, [])
                if len(tokens) == row["token"]:
                    tokens.append([])
                tokens[row["token"]].append(float(value))
            if row["step"] == 0:
                course.texts.setdefault(edit, []).append(str(row.get("text", "")))
        if course.logprobs:
            found.append(course)
    return found


def _whole(row: Row) -> bool:
    return all(number(row.get(key)) is not None for key in ("step", "token", "logprob", "rank"))


def _name(setting: str) -> str:
    return _NAMES.get(setting, setting)


def _at(values: Sequence[float], step: int) -> float:
    return values[min(step, len(values) - 1)]


def _along(runs: Sequence[RunData], courses: Sequence[RunCourse], several: bool) -> Section:
    """The loss of target tokens along the edit, by how likely they were at the start."""
    title = "Who is overfitted, and who lags"
    each: list[tuple[str, list[Line]]] = []
    counts: dict[str, int] = {}
    for course in courses:
        lines = []
        for name, least, colour in STARTS:
            above = min((low for _, low, _ in STARTS if low > least), default=2.0)
            chosen = [
                values
                for tokens in course.logprobs.values()
                for values in tokens
                if least <= math.exp(min(0.0, values[0])) < above
            ]
            counts[name] = len(chosen)
            if chosen:
                steps = list(range(course.steps + 1))
                # The geometric mean: a few tokens that lag must not hide how far the others have gone.
                logs = [[math.log(max(_SMALLEST_LOSS, -_at(values, step))) for values in chosen] for step in steps]
                lines.append(Line(f"{name}: {len(chosen)}", steps, [math.exp(fmean(of)) for of in logs], colour))
        if lines:
            each.append((course.title(several), lines))
    if not each:
        return Section(title, [], missing(runs, "No edit was followed"))
    lowest = min(min(line.y) for _, lines in each for line in lines)
    # One scale for all of them, so that they can be compared.
    scale = {
        "range": [math.log10(max(_SMALLEST_LOSS, lowest)) - 0.2, 1.4],
        "tickvals": [10.0**p for p in range(-6, 2)],
        "ticktext": [f"{10.0**p:g}" for p in range(-6, 2)],
    }
    figures = [(of, curves(lines, x="steps", y="loss (nats)", log=True, yaxis=scale)) for of, lines in each]
    note = (
        "Negative log-probability of target tokens before each step and after the last: geometric means over the tokens that "
        "were as likely before the edit; how many there are stands in the legend. Once a loss is far below the others', more "
        "training of that token is overfitting."
    )
    return Section(title, [Figures(figures, note)])


_LOGPROB, _RANK = Scale("log-probability (nats)", -10.0, 0.0), Scale("log10(1 + rank)", 0.0, 4.0, best=False)


def _maps(runs: Sequence[RunData], courses: Sequence[RunCourse], several: bool) -> Section:
    """Means over all edits by the tokens' place in the target."""
    title = "Position by step"
    if not courses:
        return Section(title, [], missing(runs, "No edit was followed"))
    columns = []
    for scale in (_LOGPROB, _RANK):
        maps = []
        for course in courses:
            rows, names = [], []
            for position in range(_MOST_POSITIONS):
                values = [tokens[position] for tokens in course.values(scale).values() if len(tokens) > position]
                if len(values) < min(_LEAST_EDITS, len(course.logprobs)):
                    break
                names.append(f"of {len(values)} edits")
                steps = range(course.steps + 1)
                rows.append([round(fmean(_shown(scale, _at(of, step)) for of in values), 3) for step in steps])
            maps.append(Map(course.title(several), names, list(range(course.steps + 1)), rows))
        columns.append((scale, maps))
    note = (
        f"Means over edits by the tokens' place in the target, the first {_MOST_POSITIONS} places that at least {_LEAST_EDITS} "
        "edits have. Dark is learnt. Rank 0 is the likeliest token."
    )
    return Section(title, [Figures([("", heat(columns, x="steps"))], note)])


def _shown(scale: Scale, value: float) -> float:
    return value if scale is _LOGPROB else math.log10(value + 1)


def _pick(runs: Sequence[RunData], courses: Sequence[RunCourse], several: bool) -> Section:
    """Single edits, those first whose tokens begin furthest apart."""
    title = "One edit at a time"
    blocks: list[Block] = []
    for run in runs:
        own = [course for course in courses if course.run == run.name]
        edits = [edit for edit in (own[0].logprobs if own else {}) if all(edit in course.logprobs for course in own)]

        def apart(edit: tuple[str, int], first: RunCourse | None = own[0] if own else None) -> float:
            starts = [values[0] for values in first.logprobs[edit]] if first else []
            return min(starts) - max(starts)

        chosen = sorted(edits, key=apart)[:_MOST_PICKED]
        lines = _lines(run) if chosen else {}
        choices = []
        for edit in chosen:
            columns = []
            for scale in (_LOGPROB, _RANK):
                maps = []
                for course in own:
                    tokens = course.values(scale)[edit][:_MOST_TOKENS]
                    steps = list(range(max(map(len, tokens))))
                    rows = [[round(_shown(scale, _at(of, step)), 2) for step in steps] for of in tokens]
                    maps.append(Map(_name(course.setting), course.texts[edit][:_MOST_TOKENS], steps, rows))
                columns.append((scale, maps))
            choices.append((lines.get(edit, edit[0]), columns))
        if choices:
            room = min(6, max(len(course.texts[edit]) for course in own for edit in chosen))
            heading = f"Run {run.name}" if several else ""
            note = (
                f"The {len(choices)} edits whose tokens begin furthest apart, of {len(edits)}; choose one in the menu. A map "
                "that ends early is of an edit whose tokens were all clipped."
            )
            blocks.append(Figures([(heading, pick(choices, x="steps", rows=room))], note))
    return Section(title, blocks, missing(runs, "No edit was followed"))


def _lines(run: RunData) -> dict[tuple[str, int], str]:
    """Prompt and target of each edit, from the judged queries: reliability queries come first, in the order of the edits."""

    def only(table: Any) -> Any:
        import pyarrow.compute as pc

        wanted = ("case", "query", "role", "prompt", "target")
        if not set(wanted) <= set(table.column_names):
            return table.slice(0, 0)
        return table.select(wanted).filter(pc.equal(table["role"], "reliability"))

    rows = table_rows(run, "*/rows.parquet", only)
    return {(str(row["case"]), int(row["query"])): f"{row['prompt']} → {row['target']}" for row in rows}


def _ablation(runs: Sequence[RunData]) -> Section:
    """What each part of OVERTONE is good for: one row a setting, differences to OVERTONE in full."""
    blocks: list[Block] = []
    for protocol in PROTOCOLS:
        rows = []
        for run in runs:
            gains = {
                (str(row.get("setting")), str(row.get("role"))): row
                for row in of_protocol(rows_at(run, "differences"), protocol)
            }
            if of := unedited(of_protocol(run.rows, protocol)):
                pairs = [cell for role in HEADS for cell in (share(of.get(role)), "")]
                rows.append([run.name, "unedited model", "–", *pairs, "–"])
            for row in of_protocol(run.rows, protocol):
                setting = str(row.get("setting"))
                cells = [run.name, method_name(row.get("method")), _name(setting)]
                for role in HEADS:
                    cells += [share(row.get(role)), "" if setting == FULL else gain(gains.get((setting, role)))]
                rows.append([*cells, short(row.get("final_loss_spread"))])
        if rows:
            columns = ["run", "method", "loss", *["%", "to full"] * len(HEADS), "nats apart"]
            groups = [("", 3), *((head, 2) for head in HEADS.values()), ("in the end", 1)]
            blocks.append(table_by_run(runs, columns, rows, ABOUT[protocol], 3, groups))
    if blocks:
        note = (
            "Every row leaves one part of OVERTONE out; differences to OVERTONE in full are in points, with 95\u00a0% "
            "bootstrap intervals over cases, and ▲ or ▼ where they exclude 0. Nats apart: the largest minus the smallest loss "
            "of an edit's tokens after the last step, mean over edits."
        )
        blocks.insert(0, Text(note))
    return Section("Ablations", blocks, missing(runs))


def _left_out(runs: Sequence[RunData]) -> Section:
    rows = [
        [run.name, _name(str(row.get("setting", "–"))), str(row.get("case", "–")), str(row.get("reason", "–"))]
        for run in runs
        for row in rows_at(run, "failed")
    ]
    skipped = [
        [run.name, "–", f"record {row.get('index')}, key {row.get('key')}", str(row.get("reason", "–"))]
        for run in runs
        for row in rows_at(run, "skipped")
    ]
    table = table_by_run(runs, ["run", "loss", "case", "reason"], [*rows, *skipped][:200], "", numbers_from=1000)
    done = all(run.finished for run in runs)
    empty = "Every record was used and every edit was made." if done else missing(runs)
    return Section("Left out", [table] if rows or skipped else [], empty)


def terminal(summary: Row) -> list[Table]:
    """The run's result as tables for the terminal: one a protocol."""
    tables = []
    for protocol in PROTOCOLS:
        rows = [
            [
                _name(str(row.get("setting"))),
                *(share(row.get(role)) for role in HEADS),
                short(row.get("final_loss_spread")),
            ]
            for row in of_protocol(summary.get("rows") or [], protocol)
        ]
        if of := unedited(of_protocol(summary.get("rows") or [], protocol)):
            rows.insert(0, ["unedited", *(share(of.get(role)) for role in HEADS), "–"])
        if rows:
            title = f"{method_name(summary.get('method', ''))}, {said(protocol)} (%)"
            tables.append(Table(["loss", *HEADS.values(), "nats apart"], rows, title, numbers_from=1))
    return tables
