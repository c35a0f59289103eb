"""From a finished run to a forecast: which facts of a corpus will be learnt by when, which never, and how sure that is.

    made = plan(PlanOptions(run=Path("runs/acquisition"), corpus="texts/", facts=Path("facts.csv")))

The laws come from the run's own measurements (see ``laws``); ``errors`` in what is made says how far such forecasts were off
where they could be checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engramlab.acquisition import planner
from engramlab.base.errors import UserError, nearest
from engramlab.experiments.knowledge_acquisition.config import Reading
from engramlab.experiments.knowledge_acquisition.counting import count_facts, read_pairs, read_rows
from engramlab.experiments.knowledge_acquisition.curves import Curves, read_curves
from engramlab.experiments.knowledge_acquisition.laws import Measured, law_of, laws_of, validate
from engramlab.files import writing
from engramlab.files.documents import documents

MORE = (2, 4)  # what-if factors


@dataclass(frozen=True)
class PlanOptions:
    """Which facts will be learnt from a corpus, and when, by what a run has measured."""

    run: Path
    """Folder of a finished knowledge-acquisition run."""
    corpus: str | None = None
    """Text that training will read: files, a folder, a pattern or hub:owner/name."""
    column: str = "text"
    """Column of the corpus's text."""
    facts: Path | None = None
    """Facts to look for in it: a .csv, .tsv or .jsonl with subject and object, or passages as the run takes them."""
    frequencies: Path | None = None
    """Instead of corpus and facts: a .csv, .tsv or .jsonl with fact and count."""
    corpus_tokens: float | None = None
    """Tokens of the corpus that the frequencies were counted in."""
    part: str | None = None
    """Part of the run to forecast by; None for its first."""
    group: Literal["paraphrase", "duplicate", "once"] | None = None
    """How the corpus says a fact again: in other words or in the same; None for paraphrase where it was measured."""
    depth: Literal["memorization", "semantic", "compositional"] = "semantic"
    """How a fact has to be known."""
    probability: float = 0.5
    """A fact counts as learnt when its target's tokens have at least this probability (geometric mean) between encounters."""
    tokens: float | None = None
    """Training tokens in all; None for the corpus once."""
    held: tuple[Path, ...] = ()
    """Other runs that the forecast is checked on, such as the same model with another interval."""


def plan(options: PlanOptions) -> dict[str, Any]:
    """Forecasts every fact.

    Returns:
        ``facts`` (a row each: fact, count, interval in steps, verdict "learnt", "too late" or "never", learnt_at in steps and
        tokens, what it keeps in nats), ``verdicts`` (counts), ``law``, ``what_if`` (learnt facts under other conditions),
        ``errors`` (see ``validate``), and what was assumed.

    Raises:
        UserError: no such run, part, law or file; no facts or no corpus; frequencies without the corpus's size.
    """
    if not 0 < options.probability < 1:
        raise UserError(f"probability: must be between 0 and 1, not {options.probability}")
    parts = read_run_parts(options.run)
    part = options.part or next(iter(parts))
    if part not in parts:
        raise UserError(
            f"part: there is no {part!r}; did you mean {nearest(part, parts)!r}? There are: {', '.join(parts)}"
        )
    about, curves, reading = parts[part]
    laws = laws_of(curves, reading)
    measured_groups = list(dict.fromkeys(group for group, depth in laws if depth == options.depth))
    if not measured_groups:
        raise UserError(
            f"run {options.run}: no group was injected and kept at depth {options.depth}; choose another depth"
        )
    group = options.group or ("paraphrase" if "paraphrase" in measured_groups else measured_groups[0])
    if (group, options.depth) not in laws:
        raise UserError(
            f"group: {group!r} was not measured at depth {options.depth}; there are {', '.join(measured_groups)}"
        )
    names, counts, corpus_tokens, note = _facts(options, about)
    a_step = about["batch"] * about["window"]
    total = options.tokens or corpus_tokens
    # Training longer than the corpus reads it again, at the same rate.
    rows = _forecast(laws[group, options.depth], names, counts, corpus_tokens, a_step, total, options.probability)
    return {
        "run": str(options.run),
        "part": part,
        "group": group,
        "depth": options.depth,
        "probability": options.probability,
        "corpus_tokens": corpus_tokens,
        "training_tokens": total,
        "note": note,
        "before": laws[group, options.depth].before,
        "law": vars(laws[group, options.depth].law)
        | {"threshold_steps": laws[group, options.depth].law.threshold_steps},
        "facts": rows,
        "verdicts": _verdicts(rows),
        "what_if": _what_if(options, parts, part, group, names, counts, corpus_tokens, total),
        "errors": _checked(options, parts, part, laws),
    }


Parts = dict[str, tuple[dict[str, Any], Curves, Reading]]


def read_run_parts(folder: Path) -> Parts:
    """The parts of a finished run: what it says about each, its curves, and how they are to be read."""
    path = Path(folder) / "summary.json"
    if not path.exists():
        raise UserError(f"run {folder}: holds no finished run of knowledge-acquisition (no summary.json)")
    summary = writing.read_json(path)
    if summary.get("experiment") != "knowledge-acquisition":
        raise UserError(f"run {folder}: is a run of {summary.get('experiment')!r}; give one of knowledge-acquisition")
    config = writing.read_json(Path(folder) / "config.json")["config"]
    reading = Reading(**config["reading"])
    return {
        about["dataset"]: (about, read_curves(Path(folder) / about["dataset"] / "injection", reading), reading)
        for about in summary["parts"]
    }


def _forecast(
    measured: Measured,
    names: Sequence[str],
    counts: np.ndarray,
    corpus_tokens: float,
    a_step: float,
    total: float,
    probability: float,
) -> list[dict[str, Any]]:
    needed = math.log(probability) - measured.before
    steps = total / a_step
    rows = []
    for name, count, interval in zip(names, counts, planner.intervals(counts, corpus_tokens, a_step), strict=True):
        row: dict[str, Any] = {"fact": name, "count": int(count), "verdict": "never", "learnt_at": None, "tokens": None}
        row |= {"interval": float(interval), "keeps": 0.0}
        if math.isfinite(interval):
            # Far beyond the run's end, to tell "too late" from "never".
            seen = planner.outlook(measured.law, float(interval), needed)
            row["keeps"] = seen.keeps
            if needed <= 0:
                row |= {"verdict": "learnt", "learnt_at": 0.0, "tokens": 0.0}
            elif seen.learnt_at is not None:
                row |= {"verdict": "learnt" if seen.learnt_at <= steps else "too late"}
                row |= {"learnt_at": seen.learnt_at, "tokens": seen.learnt_at * a_step}
        rows.append(row)
    return rows


def _verdicts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row["verdict"] == name for row in rows) for name in ("learnt", "too late", "never")}


def _what_if(
    options: PlanOptions,
    parts: Parts,
    part: str,
    group: str,
    names: Sequence[str],
    counts: np.ndarray,
    corpus_tokens: float,
    total: float,
) -> list[dict[str, Any]]:
    """How many facts would be learnt under other conditions, each with the law that was measured for it."""
    about, curves, reading = parts[part]
    laws = laws_of(curves, reading)
    a_step = about["batch"] * about["window"]
    cases: list[tuple[str, Measured, np.ndarray, float]] = []
    for other in ("paraphrase", "duplicate"):
        if other != group and (other, options.depth) in laws:
            words = "in other words each time" if other == "paraphrase" else "in the same words each time"
            cases.append((f"every fact said again {words}", laws[other, options.depth], counts, a_step))
    own = laws[group, options.depth]
    cases += [(f"{k} times as many statements of each fact", own, counts * k, a_step) for k in MORE]
    if ("paraphrase", options.depth) in laws:
        fewer = np.ceil(counts / 2)
        cases.append(("half the statements, none a duplicate", laws["paraphrase", options.depth], fewer, a_step))
    for name, (other_about, other_curves, other_reading) in parts.items():
        if other_about["batch"] != about["batch"]:
            law = law_of(other_curves, group, options.depth, other_reading)
            if law is not None:
                size = other_about["batch"] * other_about["window"]
                cases.append((f"batch {other_about['batch']} (part {name})", law, counts, size))
    found = []
    for title, law, many, size in cases:
        rows = _forecast(law, names, many, corpus_tokens, size, total, options.probability)
        found.append({"case": title, **_verdicts(rows), "threshold_steps": law.law.threshold_steps})
    return found


def _checked(
    options: PlanOptions, parts: Parts, part: str, laws: dict[tuple[str, str], Measured]
) -> list[dict[str, Any]]:
    """Errors on every other part of the run with the same batch, and on the runs held out."""
    about = parts[part][0]
    others: list[tuple[str, Curves]] = [
        (name, curves)
        for name, (other, curves, _) in parts.items()
        if name != part and other["batch"] == about["batch"]
    ]
    for folder in options.held:
        others += [(f"{folder}: {name}", curves) for name, (_, curves, _) in read_run_parts(folder).items()]
    return [{"held": name, **row} for name, curves in others for row in validate(laws, curves)]


def _facts(options: PlanOptions, about: dict[str, Any]) -> tuple[list[str], np.ndarray, float, str]:
    """Names of the facts, how often each is stated, tokens of the corpus, and how the two were found."""
    if options.frequencies is not None:
        if options.corpus_tokens is None or options.corpus_tokens <= 0:
            raise UserError(
                "frequencies: say with --corpus-tokens how many tokens the corpus has that they were counted in"
            )
        rows = list(read_rows(options.frequencies, ("fact", "count")))
        try:
            counts = np.array([float(row["count"]) for row in rows])
        except ValueError:
            bad = next(row["count"] for row in rows if not re.fullmatch(r"\s*\d+(\.\d*)?\s*", str(row["count"])))
            raise UserError(f"{options.frequencies}: the count {bad!r} is no number") from None
        return [str(row["fact"]) for row in rows], counts, options.corpus_tokens, "frequencies as given"
    if options.corpus is None or options.facts is None:
        raise UserError("give --corpus and --facts to count facts in a text, or --frequencies and --corpus-tokens")
    pairs = list(read_pairs(options.facts))
    if not pairs:
        raise UserError(f"{options.facts}: holds no facts")
    counts, tokens, texts = count_facts(
        pairs, documents(options.corpus, options.column), _tokenizer(options.run, about)
    )
    note = f"a fact is stated by a document with its subject and its object; {texts:,} documents, tokens estimated"
    return [f"{subject} – {target}" for subject, target in pairs], counts, tokens, note


def _tokenizer(folder: Path, about: dict[str, Any]) -> Any:
    from engramlab.core import models

    own = Path(folder) / "tokenizer"
    return models.load_tokenizer(str(own) if own.exists() else str(about["model"]))
