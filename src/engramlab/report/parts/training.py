"""How training went: loss curves, the "study to pass the test" curves, and what each stage cost.

The same for every experiment whose runs write `<dataset>/<stage>/metrics.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engramlab.report.alike import Nouns
from engramlab.report.parts.blocks import Block, Details, Figures, Section, Table
from engramlab.report.parts.figures import DASHES, PALETTE, Line, curves, percent, styles
from engramlab.report.parts.paper import SOURCE
from engramlab.report.parts.words import count, duration, fixed
from engramlab.report.rows import Row, RunData, distinct, number, people, pretty

READ = (
    "Right: the token is the model's first choice, in first entries of those who are evaluated. The paper's models name more "
    f"than 99 % of next tokens (remark C.1 of {SOURCE}); which of several wordings comes next cannot be known, so that values "
    "tell more."
)
_PLAIN = Nouns("subjects", "texts")
_DASH = {"train": "dash", "test": "solid", "celebrities": "dot"}


def missing(runs: Sequence[RunData], what: str = "Not measured") -> str:
    """The line that stands in for an empty section, naming the runs that have not ended."""
    unfinished = [run.name for run in runs if not run.finished]
    if not unfinished:
        return f"{what} in {'this run' if len(runs) == 1 else 'these runs'}."
    verb = "is" if len(unfinished) == 1 else "are"
    return f"{what} yet: run {', '.join(unfinished)} {verb} unfinished."


def table_by_run(
    runs: Sequence[object],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    numbers_from: int = 1000,
    groups: Sequence[tuple[str, int]] = (),
) -> Table:
    """A table whose first column names the run (or part); with one there is nothing to name and the column goes."""
    if len(runs) > 1:
        return Table(columns, rows, caption, numbers_from, groups)
    groups = [(text, wide - (k == 0)) for k, (text, wide) in enumerate(groups)]
    return Table(columns[1:], [row[1:] for row in rows], caption, numbers_from - 1, groups)


def dataset_styles(runs: Sequence[RunData]) -> dict[str, tuple[str, str]]:
    """Colour and dash by dataset label, the same for every figure of a page."""
    rows = [row for run in runs for row in [*run.rows, *run.training, *run.curves]]
    return styles(distinct(row["label"] for row in rows))


def training_section(runs: Sequence[RunData], nouns: Nouns = _PLAIN) -> Section:
    """Loss curves of reading and of finetuning, and one row a stage: steps, tokens, speed, time."""
    blocks: list[Block] = []
    for title, wanted in (
        (
            f"Reading: loss on the {nouns.texts}",
            lambda stage: not stage.startswith("finetune"),
        ),
        ("Finetuning: loss on the answers", lambda stage: stage.startswith("finetune")),
    ):
        lines = _loss_lines(runs, wanted)
        if lines:
            figure = curves(lines, x="optimiser steps", y="loss (nats a token)", log=True)
            blocks.append(Figures([(title, figure)]))
    stages = _stages(runs)
    if stages:
        columns = ["run", "dataset", "stage", "steps", "tokens", "tokens/s", "time", "last loss"]
        read = any(row.get("value_token") is not None for run in runs for row in run.training)
        columns += ["next tokens right", "of values"] if read else []
        stages = stages if read else [row[:-2] for row in stages]
        caption = "What each stage cost." + (f" {READ}" if read else "")
        blocks.append(table_by_run(runs, columns, stages, caption, numbers_from=3))
    for run in runs:
        if run.summary.get("best"):
            title = f"Finetuning settings chosen from the grid, run {run.name}"
            blocks.append(Details(title, pretty(run.summary["best"])))
    return Section("Training", blocks, missing(runs, "Nothing trained"))


def _loss_lines(runs: Sequence[RunData], wanted: Callable[[str], bool]) -> list[Line]:
    """One line a dataset, stage and run. A stage has its own dash, and its own colour where there is one dataset and run."""
    colours = dataset_styles(runs)
    keys = distinct((row["label"], row["stage"]) for run in runs for row in run.curves if wanted(row["stage"]))
    stages = distinct(stage for _, stage in keys)
    by_stage = len(distinct(dataset for dataset, _ in keys)) == 1 == len(runs)
    lines = []
    for index, run in enumerate(runs):
        rows: dict[tuple[str, str], list[Row]] = {key: [] for key in keys}
        for row in run.curves:
            if wanted(row["stage"]):
                rows[row["label"], row["stage"]].append(row)
        for dataset, stage in keys:
            # A logarithmic axis has no zero; a loss that small has long left the picture.
            points = [(x, y) for x, y in _points(rows[dataset, stage], "loss") if y > 0]
            if points:
                place = stages.index(stage)
                colour, dash = colours[dataset]
                colour = PALETTE[place % len(PALETTE)] if by_stage else colour
                if len(stages) * len(runs) > 1:
                    dash = DASHES[(place + index * len(stages)) % len(DASHES)]
                parts = [dataset, *([stage] if len(stages) > 1 else []), *([run.name] if len(runs) > 1 else [])]
                xs, ys = [x for x, _ in points], [y for _, y in points]
                lines.append(Line(" · ".join(parts), xs, ys, colour, dash))
    return lines


def _points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    pairs = [(number(row.get("step")), number(row.get(key))) for row in rows]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _stages(runs: Sequence[RunData]) -> list[list[str]]:
    """One row a stage: from the summary where it has one, else the last row logged, marked as so far."""
    table = []
    for run in runs:
        done = {(row["label"], str(row.get("stage"))): row for row in run.training}
        latest = {(row["label"], row["stage"]): row for row in run.curves if "loss" in row}
        for key in distinct([*done, *latest]):
            row = done.get(key, latest.get(key, {}))
            steps, tokens, seconds = (number(row.get(name)) for name in ("steps", "tokens", "seconds"))
            if key not in done:
                steps = number(row.get("step"))
            speed = tokens / seconds if tokens and seconds else None
            table.append(
                [
                    run.name,
                    *(key[0], key[1] if key in done else f"{key[1]} (so far)"),
                    *(count(steps), count(tokens), count(speed), duration(seconds)),
                    fixed(row.get("loss"), 4),
                    *(percent(number(row.get(name))) for name in ("next_token", "value_token")),
                ]
            )
    return table


def study_section(runs: Sequence[RunData], nouns: Nouns = _PLAIN) -> Section:
    """First-token accuracy along training, on entries and on questions, for P_train and P_test."""
    figures = []
    for run in runs:
        measured = [row for row in run.curves if "corpus" in row and row.get("attribute", "mean") == "mean"]
        for dataset in distinct(row["label"] for row in measured):
            rows = [row for row in measured if row["label"] == dataset]
            for stage in _one_finetuning(distinct(row["stage"] for row in rows), rows):
                of = [row for row in rows if row["stage"] == stage]
                for kind, keys in _CURVES.items():
                    if lines := _study_lines(of, nouns, keys):
                        title = " · ".join([dataset, stage, *([run.name] if len(runs) > 1 else []), kind])
                        figures.append((title, curves(lines, x="optimiser steps", y=f"accuracy, {kind}", shares=True)))
    note = (
        f"Share of attribute values whose first token (or each of whose tokens) is the model's first choice, in {nouns.texts} "
        f"and after questions. P_train: {nouns.subjects} whose questions are trained on; P_test: those whose questions are "
        "not. Of a grid of finetunings, the one with the best last accuracy on held-out questions is shown."
    )
    return Section("Study to pass the test", [Figures(figures, note)] if figures else [], missing(runs))


def _one_finetuning(stages: list[str], rows: Sequence[Row]) -> list[str]:
    def last(stage: str) -> float:
        values = [
            number(row.get("first_token"))
            for row in rows
            if (row["stage"], row.get("corpus"), row.get("group")) == (stage, "qa", "test")
        ]
        return next((value for value in reversed(values) if value is not None), -1.0)

    tuned = [stage for stage in stages if stage.startswith("finetune")]
    others = [stage for stage in stages if stage not in tuned]
    return others + ([max(tuned, key=last)] if tuned else [])


#: What is right, and the key that says so of entries and of questions. Whole values: footnote 9 of the paper.
_CURVES = {"first tokens": ("first_token", "first_token"), "whole values": ("whole", "exact_match")}


def _study_lines(rows: Sequence[Row], nouns: Nouns, keys: tuple[str, str]) -> list[Line]:
    lines = []
    if not any(keys[0] in row for row in rows if row.get("corpus") == "bio"):  # a run made before it was measured
        return []
    kinds = (("bio", nouns.texts, "#555555", keys[0]), ("qa", "questions", "#882255", keys[1]))
    for corpus, texts, colour, key in kinds:
        for group, dash in _DASH.items():
            points = _points(
                [row for row in rows if (row.get("corpus"), row.get("group")) == (corpus, group)],
                key,
            )
            if points:
                lines.append(
                    Line(f"{texts}, {people(group)}", [x for x, _ in points], [y for _, y in points], colour, dash)
                )
    return lines
