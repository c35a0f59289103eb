"""The sections of the knowledge-extraction report: who can be asked about, after which way of reading.

Exact match is the share of questions whose whole answer is right. P_train are the people whose questions were
trained on, P_test those whose biographies the model has read but whose questions it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text as Cell

from engramlab.base.rows import ATTRIBUTES
from engramlab.report.parts.blocks import Block, EntriesAndAnswers, Figures, Section, Table, Text
from engramlab.report.parts.figures import GREY, Bar, bars, percent
from engramlab.report.parts.paper import BIDIRECTIONAL, SOURCE, Published, published
from engramlab.report.parts.training import dataset_styles, missing, study_section, table_by_run, training_section
from engramlab.report.rows import Row, RunData, distinct, label, number, people, words

_MOST_ENTRIES, _MOST_ANSWERS = 6, 24
_LOW = 0.25  # a share below this is called low: in the paper, datasets either stay under it or leave it far behind
_NOTE = f"Published figures ({SOURCE}) are for N = 100k people and a model of 124M parameters (bioR: 302M)"


def headline(runs: Sequence[RunData]) -> str:
    """One sentence: the dataset whose held-out questions are answered best, and the one answered worst."""
    measured = ExtractionRows([row for run in runs for row in run.rows])
    ranking = measured.ranking()
    if not ranking:
        return missing(runs, "No question was asked")
    texts: list[str] = []
    for key in distinct([ranking[0], ranking[-1]]):
        share = measured.spread(key, "test")
        assert share is not None
        what = " of held-out questions answered exactly" if not texts else ""
        texts.append(f"{measured.name(key)}: {100 * share.mean:.0f}\u00a0%{what}")
    runs_of_best = len(measured.values(ranking[0], "test"))
    return "; ".join(texts) + (f" (mean of {runs_of_best} runs)." if runs_of_best > 1 else ".")


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    measured = ExtractionRows([row for run in runs for row in run.rows])
    return [
        _exact_match(runs, measured),
        _by_attribute(runs, measured),
        *_helped(measured),
        _beside_the_paper(runs, measured),
        study_section(runs),
        training_section(runs),
        _examples(runs),
    ]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """Exact match by dataset in percent: P_train, P_test, and P_test by attribute; two tables where one is too wide."""
    rows = summary.get("rows") or []
    measured = ExtractionRows([{**r, "run": "", "label": label(r.get("dataset", ""), r.get("family"))} for r in rows])
    keys = sorted(measured.keys, key=lambda key: -measured.values(key, "test").get("", -1.0))
    if not keys:
        return []
    modes = len({mode for _, mode in keys}) > 1
    first = ["dataset", "mode"] if modes else ["dataset"]
    names = [list(key if modes else key[:1]) for key in keys]

    def cell(key: Key, group: str, attribute: str = "mean") -> Cell:
        share = measured.values(key, group, attribute).get("")
        if share is None:
            return Cell("-")
        low = share < _LOW
        worded = low and (group, attribute) == ("test", "mean")
        return Cell(f"{100 * share:.1f}" + (" low" if worded else ""), style="red" if low else "")

    overall = [[cell(key, group) for group in ("train", "test")] for key in keys]
    each = [[cell(key, "test", attribute) for attribute in measured.attributes] for key in keys]
    title, means = "Questions answered exactly (%)", ["P_train", "P_test"]
    heads = [attribute.replace("_", "\n") for attribute in measured.attributes]

    def table(what: str, columns: list[str], *parts: list[list[Cell]], narrow: Sequence[Table] = ()) -> Table:
        lines = [[*name, *(one for part in parts for one in part[i])] for i, name in enumerate(names)]
        return Table([*first, *columns], lines, f"{title}: {what}", len(first), narrow=narrow)

    narrow = [table("mean", means, overall), table("P_test by attribute", heads, each)]
    return [table("mean, and P_test by attribute", [*means, *heads], overall, each, narrow=narrow)]


@dataclass(frozen=True)
class MeanAndRange:
    """Mean and range of one measurement over runs."""

    mean: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        text = percent(self.mean)
        return text if self.runs == 1 else f"{text} ({100 * self.low:.1f}–{100 * self.high:.1f})"


Key = tuple[str, str]  # dataset label, mode


class ExtractionRows:
    """The exact-match rows of several runs, by (dataset, mode)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if number(row.get("exact_match")) is not None]
        self.keys: list[Key] = distinct(_key(row) for row in self.rows)
        named = distinct(str(row.get("attribute")) for row in self.rows)
        self.attributes = [attribute for attribute in named if attribute != "mean"]
        self._modes = distinct(mode for _, mode in self.keys)

    def name(self, key: Key) -> str:
        """The dataset, with the mode where the page has more than one or the model is a masked one."""
        named = len(self._modes) > 1 or key[1].startswith("masked ")
        return f"{key[0]} ({key[1]})" if named else key[0]

    def values(self, key: Key, group: str, attribute: str = "mean") -> dict[str, float]:
        """Exact match by run, as shares."""
        wanted = (*key, group, attribute)
        return {
            row["run"]: float(row["exact_match"])
            for row in self.rows
            if (*_key(row), str(row.get("group")), str(row.get("attribute"))) == wanted
        }

    def spread(self, key: Key, group: str, attribute: str = "mean") -> MeanAndRange | None:
        values = list(self.values(key, group, attribute).values())
        return MeanAndRange(sum(values) / len(values), min(values), max(values), len(values)) if values else None

    def ranking(self) -> list[Key]:
        """The datasets asked about held-out people, best first."""
        scores = {key: spread.mean for key in self.keys if (spread := self.spread(key, "test")) is not None}
        return sorted(scores, key=lambda key: -scores[key])

    def paper(self, key: Key, attribute: str = "mean") -> Published | None:
        """The published figure for the same texts and training; None for people other than the paper's."""
        if not set(self.attributes) <= set(ATTRIBUTES):
            return None
        row = next(row for row in self.rows if _key(row) == key)
        return published(row["dataset"], key[1], str(row.get("family") or "bioS"), attribute)


def _key(row: Row) -> Key:
    return row["label"], str(row.get("mode", "finetune"))


def _exact_match(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    title = "Can it be asked? Exact match by dataset"
    if not measured.rows:
        return Section(title, [], missing(runs))
    colours = dataset_styles(runs)
    groups = []
    for key in measured.ranking():
        test, train = measured.values(key, "test"), measured.values(key, "train")
        members = [
            Bar(
                label=run if len(runs) > 1 else "this run",
                value=share,
                colour=colours[key[0]][0],
                ring=train.get(run),
                hover=f"{run}: P_test {percent(share)}, P_train {percent(train.get(run))}",
            )
            for run, share in test.items()
        ]
        paper = measured.paper(key)
        if paper:
            hover = f"{measured.name(key)}: {percent(paper.exact_match)} ({paper.source})"
            members.append(Bar("paper", paper.exact_match, GREY, published=True, hover=hover))
        groups.append((measured.name(key), members))
    blocks: list[Block] = []
    if groups:
        figure = bars(
            groups,
            "questions answered exactly",
            bar="P_test",
            ring="P_train",
            paper=f"P_test in the paper ({SOURCE})",
        )
        compared = any(member.published for _, members in groups for member in members)
        note = f"{_NOTE}: with smaller runs, compare the shape, not the numbers." if compared else ""
        blocks.append(Figures([("", figure)], note))
    if len(runs) > 1:
        blocks.append(_comparison(measured))
    blocks.append(_every_row(runs, measured))
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        blocks.append(Text(missing(unfinished, "More is not measured")))
    return Section(title, blocks)


def _comparison(measured: ExtractionRows) -> Table:
    rows = []
    for key in distinct([*measured.ranking(), *measured.keys]):
        train, test = measured.spread(key, "train"), measured.spread(key, "test")
        runs = max(len(measured.values(key, group)) for group in ("train", "test"))
        rows.append([*key, str(runs), str(train or "–"), str(test or "–")])
    columns = ["dataset", "mode", "runs", "P_train", "P_test"]
    return Table(columns, rows, "Mean over the runs with the same dataset (lowest–highest).", numbers_from=2)


def _every_row(runs: Sequence[RunData], measured: ExtractionRows) -> Table:
    rows = []
    for run in runs:
        for key in distinct([*measured.ranking(), *measured.keys]):
            for group in ("train", "test", "celebrities"):
                attributes = [*measured.attributes, "mean"]
                shares = [measured.values(key, group, attribute).get(run.name) for attribute in attributes]
                if any(share is not None for share in shares):
                    of = [
                        row
                        for row in measured.rows
                        if (row["run"], *_key(row), row.get("group")) == (run.name, *key, group)
                        and row.get("attribute") != "mean"
                    ]
                    asked = [number(row.get("questions")) or 0 for row in of]
                    cells = [*map(percent, shares), f"{sum(asked):,.0f}" if any(asked) else "–"]
                    rows.append([run.name, *key, people(group, of[0].get("people") if of else None), *cells])
    columns = ["run", "dataset", "mode", "people", *map(words, measured.attributes), "mean", "questions"]
    return table_by_run(runs, columns, rows, "Exact match by dataset, people and attribute.", numbers_from=4)


def _by_attribute(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    title = "Exact match by attribute, held-out people"
    colours = dataset_styles(runs)
    groups = []
    for attribute in measured.attributes:
        members = []
        for key in measured.ranking():
            spread = measured.spread(key, "test", attribute)
            if spread:
                low, high = (spread.low, spread.high) if spread.runs > 1 else (None, None)
                name = measured.name(key)
                hover = f"{name}, {words(attribute)}: {spread}"
                members.append(Bar(name, spread.mean, colours[key[0]][0], low, high, hover=hover))
        if members:
            groups.append((words(attribute), members))
    if not groups:
        return Section(title, [], missing(runs))
    note = "Bars are means over runs, whiskers the lowest and the highest run." if len(runs) > 1 else ""
    figure = bars(groups, "questions answered exactly", bar="P_test")
    return Section(title, [Figures([("", figure)], note)])


def _helped(measured: ExtractionRows) -> list[Section]:
    """What celebrities or unrelated text, read beside the same people, do for their extraction; nothing without such runs."""
    rows = []
    for key in measured.ranking():
        base, found, beside = key[0].partition("+CEL")
        if not found:
            base, found, beside = key[0].partition("+TEXT")
        if not found:
            continue
        helped, alone = measured.spread(key, "test"), measured.spread((base, key[1]), "test")
        what = "unrelated text" if found == "+TEXT" else "celebrities" + beside.replace("=", " written as ")
        times = f"{helped.mean / alone.mean:.1f}" if helped and alone and alone.mean else "–"
        finetuned = "half of the same people" if found == "+TEXT" else "half of the celebrities"
        rows.append([base, key[1], what, finetuned, str(alone or "–"), str(helped or "–"), times])
    if not rows:
        return []
    columns = ["dataset", "mode", "read beside it", "questions trained on", "alone, P_test", "with it, P_test", "times"]
    note = (
        "Exact match on held-out questions about the same people, whose entries alone or with something else were read."
    )
    return [Section("Who helps a minority", [Table(columns, rows, note, numbers_from=4)])]


def _beside_the_paper(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    rows = []
    for key in measured.ranking():
        for attribute in ["mean", *measured.attributes]:
            paper = measured.paper(key, attribute)
            if paper:
                here = str(measured.spread(key, "test", attribute) or "–")
                rows.append([*key, words(attribute), here, percent(paper.exact_match), paper.source])
    title = "Beside the paper"
    said = [Text(BIDIRECTIONAL)] if any(mode.startswith("masked ") for _, mode in measured.keys) else []
    if not rows and said:
        return Section(title, [*said])
    if not rows:
        empty = "The paper prints no figure for these datasets." if measured.rows else missing(runs)
        return Section(title, [], empty)
    columns = [
        "dataset",
        "mode",
        "attribute",
        "here, P_test",
        "paper, P_test",
        "source of the paper's figure",
    ]
    return Section(title, [Table(columns, rows, f"{_NOTE}."), *said])


def _examples(runs: Sequence[RunData]) -> Section:
    blocks: list[Block] = []
    for run in runs:
        for dataset, example in run.examples.items():
            entries, answers = example["entries"], example["answers"]
            left = max(0, len(entries) - _MOST_ENTRIES), max(0, len(answers) - _MOST_ANSWERS)
            note = f"Left out here: {left[0]:,} more entries, {left[1]:,} more answers." if any(left) else ""
            title = f"{dataset}, run {run.name}" if len(runs) > 1 else dataset
            blocks.append(
                EntriesAndAnswers(title, entries[:_MOST_ENTRIES], answers[:_MOST_ANSWERS], note, opened=len(blocks) < 2)
            )
    return Section("What it read, and what it was asked", blocks, missing(runs, "No examples were written"))
