"""The sections of the knowledge-extraction report: who can be asked about, after which way of reading.

Exact match is the share of questions whose whole answer is right. P_train are the subjects whose questions were
trained on, P_test those whose entries the model has read but whose questions it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.text import Text as Cell

from engramlab.report.alike import nouns, series
from engramlab.report.parts.blocks import Block, Figures, Section, SideBySide, Table, Text
from engramlab.report.parts.extraction_rows import ABOVE, NOT_RECORDED, TOO_SHORT, ExtractionRows, Key
from engramlab.report.parts.figures import GREY, Bar, bars, percent
from engramlab.report.parts.paper import BIDIRECTIONAL, SOURCE
from engramlab.report.parts.training import dataset_styles, missing, study_section, table_by_run, training_section
from engramlab.report.parts.verdicts import LEARNT
from engramlab.report.rows import Row, RunData, distinct, label, number, people, words
from engramlab.report.shapes import Maybe

#: Of a summary.
NEEDS = {"grid": Maybe([{"dataset": str, "group": str, "attribute": str, "lora_rank": float, "exact_match": float}])}
_MOST_ENTRIES, _MOST_TEST, _MOST_TRAIN = 6, 30, 12
_NOTE = (
    f"Published figures ({SOURCE}) are for N = 100k people and a model of 124M parameters (bioR: 302M), answers written by "
    "beam search with 4 beams; here an answer is right if greedy decoding writes it (`--beams 4` has both)"
)
_LEARNT = "Tokens of entries named right after training on them (the paper's criterion: above 99 %)"
_CHANCE = "always P_train's commonest value"


def headline(runs: Sequence[RunData]) -> str:
    """The dataset whose held-out questions are answered best, and the worst, beside what chance gives."""
    measured = _read(runs)
    ranking = measured.ranking()
    if not ranking:
        return missing(runs, "No question was asked")
    verdicts = [measured.judged(key) for key in ranking]
    texts: list[str] = []
    if NOT_RECORDED not in verdicts and not {ABOVE, TOO_SHORT} & set(verdicts):
        texts.append("Nothing beats the commonest value")
    for key in distinct([ranking[0], ranking[-1]]):
        share, judged = measured.spread(key, "test"), measured.judged(key)
        assert share is not None
        text = f"{measured.name(key)}: {100 * share.mean:.0f}\u00a0% ({share.ends()})"
        text += " of held-out questions answered exactly" if key == ranking[0] else ""
        if share.chance is not None:
            text += f", where the commonest values have {100 * share.chance:.0f}\u00a0%"
        text += "" if judged in (ABOVE, NOT_RECORDED) else f", {judged}"
        texts.append(text + (f" (mean of {share.runs} runs)" if share.runs > 1 else ""))
    return "; ".join(texts) + "."


def sections(runs: Sequence[RunData]) -> list[Section]:
    """Everything the experiment has to show, in reading order."""
    measured = _read(runs)
    return [
        _exact_match(runs, measured),
        _examples(runs),
        _by_attribute(runs, measured),
        *_helped(measured),
        *_ranks(runs),
        _beside_the_paper(runs, measured),
        study_section(runs, nouns(runs)),
        training_section(runs, nouns(runs)),
    ]


def terminal(summary: Mapping[str, Any]) -> list[Table]:
    """Exact match by dataset in percent with what chance gives, and P_test by attribute."""
    rows = summary.get("rows") or []
    measured = ExtractionRows([{**r, "run": "", "label": label(r.get("dataset", ""), r.get("family"))} for r in rows])
    keys = distinct([*measured.ranking(), *measured.keys])
    if not keys:
        return []
    several = len(measured.modes) > 1
    first = ["dataset", *(["mode"] if several else [])]
    overall, each = [], []
    for key in keys:
        name = [key.dataset, *([key.mode] if several else [])]
        train, test, judged = measured.spread(key, "train"), measured.spread(key, "test"), measured.judged(key)
        shares = ["–" if one is None else f"{100 * one.mean:.1f}" for one in (train, test)]
        known = test is not None and test.chance is not None
        chance = f"{100 * (test.chance or 0):.1f}" if test and known else "–"
        cell = Cell(judged, style="" if judged in (ABOVE, NOT_RECORDED, "–") else "red")
        overall.append([*name, *shares, test.ends() if test else "–", chance, cell])
        found = [measured.spread(key, "test", attribute) for attribute in measured.attributes]
        each.append([*name, *("–" if one is None else f"{100 * one.mean:.1f}" for one in found)])
        chances = ["–" if one is None or one.chance is None else f"{100 * one.chance:.1f}" for one in found]
        if set(chances) != {"–"}:
            each.append(["  commonest", *([""] if several else []), *chances])
    columns = [*first, "P_train", "P_test", "95 %", "chance", "P_test is"]
    note = "Questions answered exactly (%); chance: always naming P_train's commonest value"
    read = [row for row in summary.get("training") or [] if number(row.get("value_token")) is not None]
    learnt = [
        [str(row.get("dataset")), *(percent(number(row.get(name))) for name in ("next_token", "value_token"))]
        for row in read
    ]
    attributes = [*first, *(attribute.replace("_", " ") for attribute in measured.attributes)]
    return [
        Table(columns, overall, note, len(first), words=(len(columns) - 1,)),
        Table(attributes, each, "P_test by attribute (%)", len(first)),
        *([Table(["dataset", "next tokens", "of values"], learnt, _LEARNT, 1)] if learnt else []),
    ]


def _read(runs: Sequence[RunData]) -> ExtractionRows:
    return ExtractionRows([row for run in runs for row in run.rows], series(runs))


def _exact_match(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    title = "Can it be asked? Exact match by dataset"
    if not measured.rows:
        return Section(title, [], missing(runs))
    who, texts = nouns(runs)
    colours = dataset_styles(runs)
    groups = []
    for key in measured.ranking():
        test, train = measured.values(key, "test"), measured.values(key, "train")
        found = measured.spread(key, "test")
        assert found is not None
        members = []
        for run, share in test.items():
            hover = f"{run}: P_test {percent(share)}, P_train {percent(train.get(run))}, chance {percent(found.chance)}"
            name = run if len(runs) > 1 else "this run"
            bar = Bar(name, share, colours[key.dataset][0], ring=train.get(run), hover=hover)
            members.append(bar.judged(found.interval if found.runs == 1 else None, found.chance))
        paper = measured.paper(key)
        if paper:
            hover = f"{measured.name(key)}: {percent(paper.exact_match)} ({paper.source})"
            members.append(Bar("paper", paper.exact_match, GREY, published=True, hover=hover))
        groups.append((measured.name(key), members))
    blocks: list[Block] = [
        Text(
            f"P_train are the {who} whose questions were trained on; P_test are held out: the model has read their {texts} "
            "and never seen a question about them. If P_test is far above what naming the commonest value gives, the facts "
            "can be extracted; if P_train is low too, training was too short to judge."
        )
    ]
    if groups:
        figure = bars(
            groups,
            "questions answered exactly",
            bar="P_test",
            ring="P_train",
            paper=f"P_test in the paper ({SOURCE})",
            chance=_CHANCE,
        )
        compared = any(member.published for _, members in groups for member in members)
        note = f"{_NOTE}: with smaller runs, compare the shape, not the numbers." if compared else ""
        blocks.append(Figures([("", figure)], f"Whiskers: 95 % intervals. {note}"))
    blocks.append(_comparison(measured))
    blocks.append(_every_row(runs, measured))
    unfinished = [run for run in runs if not run.finished]
    if unfinished:
        blocks.append(Text(missing(unfinished, "More is not measured")))
    return Section(title, blocks)


def _comparison(measured: ExtractionRows) -> Table:
    rows, several = [], measured.several
    for key in distinct([*measured.ranking(), *measured.keys]):
        train, test = measured.spread(key, "train"), measured.spread(key, "test")
        runs = max(len(measured.values(key, group)) for group in ("train", "test"))
        shown = [str(train or "–"), str(test or "–"), test.ends() if test else "–"]
        shown.append("not recorded" if test is None or test.chance is None else percent(test.chance))
        rows.append(
            [key.dataset, key.mode, *([key.series] if several else []), str(runs), *shown, measured.judged(key)]
        )
    columns = ["dataset", "mode", *(["runs of"] if several else []), "runs", "P_train", "P_test", "95 % interval"]
    columns += ["chance", "P_test is"]
    caption = (
        "Chance: the share of P_test that P_train's commonest value of each attribute would answer. Means are over runs that "
        "differ in seed alone (lowest–highest). The interval of a mean counts subjects, not questions. Below "
        f"{100 * LEARNT:.0f} % of P_train, a model has not learnt the very questions it was trained on."
    )
    return Table(columns, rows, caption, numbers_from=2 + several, words=(len(columns) - 1,))


def _every_row(runs: Sequence[RunData], measured: ExtractionRows) -> Table:
    rows = []
    attributes = ["mean", *measured.attributes]
    recorded = True
    for run in runs:
        alone = ExtractionRows(run.rows)
        for key in alone.keys:
            for group in ("train", "test", "celebrities"):
                shares = [alone.spread(key, group, attribute) for attribute in attributes]
                if all(share is None for share in shares):
                    continue
                of = [row for row in run.rows if alone.key(row) == key and row.get("group") == group]
                asked = sum(alone.asked(key, group, attribute) for attribute in alone.attributes)
                start = [run.name, key.dataset, key.mode, people(group, of[0].get("people"))]
                cells = ["–" if one is None else f"{percent(one.mean)}\n{one.ends()}" for one in shares]
                rows.append([*start, *cells, f"{asked:,.0f}" if asked else "–"])
                chances = [None if one is None else one.chance for one in shares]
                recorded = recorded and None not in chances
                if any(one is not None for one in chances):
                    rows.append([*start[:3], f"{start[3]}, chance", *map(percent, chances), ""])
    columns = ["run", "dataset", "mode", "who", *map(words, attributes), "questions"]
    caption = "Exact match with its 95 % interval, and the share that P_train's commonest value would have (chance)."
    caption += "" if recorded else " The commonest value's share is not recorded in runs made before it was."
    return table_by_run(runs, columns, rows, caption, numbers_from=4)


def _by_attribute(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    title = f"Exact match by attribute, held-out {nouns(runs).subjects}"
    colours = dataset_styles(runs)
    groups = []
    for attribute in measured.attributes:
        members = []
        for key in measured.ranking():
            spread = measured.spread(key, "test", attribute)
            if spread:
                name = measured.name(key)
                hover = f"{name}, {words(attribute)}: {spread}, 95 % {spread.ends()}, chance {percent(spread.chance)}"
                bar = Bar(name, spread.mean, colours[key.dataset][0], hover=hover)
                members.append(bar.judged(spread.interval, spread.chance))
        if members:
            groups.append((words(attribute), members))
    if not groups:
        return Section(title, [], missing(runs))
    note = "Whiskers are 95 % intervals" + (", widened to the lowest and highest run." if len(runs) > 1 else ".")
    figure = bars(groups, "questions answered exactly", bar="P_test", chance=_CHANCE)
    return Section(title, [Figures([("", figure)], note)])


def _helped(measured: ExtractionRows) -> list[Section]:
    """What celebrities or unrelated text, read beside the same people, do for their extraction; nothing without such runs."""
    rows = []
    for key in measured.ranking():
        base, found, beside = key.dataset.partition("+CEL")
        if not found:
            base, found, beside = key.dataset.partition("+TEXT")
        if not found:
            continue
        other = measured.beside(key, base)
        helped, alone = measured.spread(key, "test"), measured.spread(other, "test") if other else None
        what = "unrelated text" if found == "+TEXT" else "celebrities" + beside.replace("=", " written as ")
        times = f"{helped.mean / alone.mean:.1f}" if helped and alone and alone.mean else "–"
        finetuned = "half of the same people" if found == "+TEXT" else "half of the celebrities"
        name = measured.name(Key(base, key.mode, key.series)) if measured.several else base
        rows.append([name, key.mode, what, finetuned, str(alone or "–"), str(helped or "–"), times])
    if not rows:
        return []
    columns = ["dataset", "mode", "read beside it", "questions trained on", "alone, P_test", "with it, P_test", "times"]
    note = (
        "Exact match on held-out questions about the same people, whose entries alone or with something else were read."
    )
    return [Section("Who helps a minority", [Table(columns, rows, note, numbers_from=4)])]


def _ranks(runs: Sequence[RunData]) -> list[Section]:
    """Of a grid of finetunings, the best P_test of each pair of ranks; nothing where all have the same."""
    blocks: list[Block] = []
    for run in runs:
        rows = [r for r in run.summary.get("grid") or [] if (r["group"], r["attribute"]) == ("test", "mean")]
        best: dict[tuple[str, int, str], float] = {}
        for row in rows:
            place = (
                row["dataset"],
                int(row["lora_rank"]),
                str(row.get("embedding_rank") if row["lora_rank"] else "full"),
            )
            best[place] = max(best.get(place, 0.0), row["exact_match"])
        if len({place[1:] for place in best}) < 2:
            continue
        embedding = sorted({place[2] for place in best}, key=lambda rank: (rank == "full", rank.zfill(6)))
        cells = [
            [name, str(rank) if rank else "full", *(percent(best.get((name, rank, one))) for one in embedding)]
            for name, rank in distinct(
                place[:2] for place in sorted(best, key=lambda place: (place[0], place[1] or 1e9))
            )
        ]
        caption = (
            "P_test, exact match of the best of the learning rates and weight decays tried with each pair of ranks"
            + (f"; run {run.name}." if len(runs) > 1 else ".")
        )
        heads = ["dataset", "rank of query and value", *(f"embedding {one}" for one in embedding)]
        blocks.append(Table(heads, cells, caption, numbers_from=2))
    return [Section("LoRA's ranks beside full finetuning", blocks)] if blocks else []


def _beside_the_paper(runs: Sequence[RunData], measured: ExtractionRows) -> Section:
    rows = []
    for key in measured.ranking():
        for attribute in ["mean", *measured.attributes]:
            paper = measured.paper(key, attribute)
            if paper:
                here = str(measured.spread(key, "test", attribute) or "–")
                rows.append([measured.name(key), words(attribute), here, percent(paper.exact_match), paper.source])
    title = "Beside the paper"
    said = [Text(BIDIRECTIONAL)] if any(mode.startswith("masked ") for mode in measured.modes) else []
    if not rows and said:
        return Section(title, [*said])
    if not rows:
        empty = "The paper prints no figure for these datasets." if measured.rows else missing(runs)
        return Section(title, [], empty)
    columns = [
        "dataset",
        "attribute",
        "here, P_test",
        "paper, P_test",
        "source of the paper's figure",
    ]
    return Section(title, [Table(columns, rows, f"{_NOTE}."), *said])


def _examples(runs: Sequence[RunData]) -> Section:
    """Held-out questions first, every dataset's answer to the same question side by side; behind them what was read."""
    blocks: list[Block] = []
    for run in runs:
        asked: dict[tuple[str, str, str, str], dict[str, Row]] = {}
        for dataset, example in run.examples.items():
            for answer in example["answers"]:
                key = tuple(str(answer.get(name, "")) for name in ("group", "attribute", "prompt", "gold"))
                asked.setdefault(key, {})[dataset] = answer  # type: ignore[arg-type]
        rows = [(*key, answers) for key, answers in asked.items()]
        chosen = _chosen([row for row in rows if row[0] != "train"], _MOST_TEST)
        chosen += _chosen([row for row in rows if row[0] == "train"], _MOST_TRAIN)
        entries = {name: example["entries"][:_MOST_ENTRIES] for name, example in run.examples.items()}
        left = len(rows) - len(chosen)
        note = f"{left:,} more questions are in examples.json." if left else ""
        if chosen or any(entries.values()):
            title = f"Run {run.name}" if len(runs) > 1 else ""
            shown = [
                (people(group) if group else "", prompt, gold, [answers.get(name) for name in run.examples])
                for group, _, prompt, gold, answers in chosen
            ]
            blocks.append(SideBySide(title, list(run.examples), shown, entries, note))
    return Section("What it was asked, and what it read", blocks, missing(runs, "No examples were written"))


def _chosen(rows: list[tuple[str, str, str, str, dict[str, Row]]], most: int) -> list[Any]:
    """Some of every attribute in turn; the last third is kept for wrong answers, where the first two thirds leave some out."""
    by_attribute: dict[str, list[Any]] = {}
    for row in rows:
        by_attribute.setdefault(row[1], []).append(row)
    turns = [row for turn in zip_longest(*by_attribute.values()) for row in turn if row is not None]
    first = turns[: most if len(turns) <= most else 2 * most // 3]
    wrong = [row for row in turns[len(first) :] if any(one.get("correct") is False for one in row[4].values())]
    more = [*wrong, *(row for row in turns[len(first) :] if row not in wrong)]
    return first + more[: most - len(first)]
