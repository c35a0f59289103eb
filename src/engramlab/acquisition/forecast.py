"""From a finished run to a forecast: which facts of a corpus will be learnt by when, which never, and how sure that is.

    made = plan(PlanOptions(run=Path("runs/acquisition"), corpus="texts/", facts=Path("facts.csv")))

The laws come from the run's own measurements (see ``laws``); ``errors`` in what is made says how far such forecasts were off
where they could be checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engramlab.acquisition.counting import count_facts, read_pairs, rows_with
from engramlab.acquisition.curves import CurveOptions, Curves, read_curves
from engramlab.acquisition.laws import Law, MeasuredLaw, laws_of, validate
from engramlab.base.arrays import Floats
from engramlab.base.errors import UserError, nearest
from engramlab.files import writing
from engramlab.files.documents import documents

MORE = (2, 4)  # what-if factors


@dataclass(frozen=True)
class Outlook:
    """What becomes of a fact that is met every ``interval`` steps.

    Attributes:
        settles: the gain right after an encounter, in nats, that it comes to at last.
        keeps: the gain right before the next one.
        learnt_at: steps until the gain right before an encounter is at least the one needed; None if never.
    """

    interval: float
    settles: float
    keeps: float
    learnt_at: float | None


def outlook(law: Law, interval: float, needed: float, *, steps: float = math.inf, most: int = 100_000) -> Outlook:
    """Follows a fact met every ``interval`` steps, from the first encounter at 0.

    Args:
        interval: steps from one encounter to the next; may be a fraction (several encounters a step).
        needed: gain in nats that has to stand right before the next encounter for the fact to count as learnt.
        steps: how long training goes on.
        most: encounters followed at most; it stops earlier where nothing changes any more.
    """
    if not interval > 0:
        raise ValueError(f"interval must be above 0, not {interval}")
    kept_part = float(law.retained(interval - law.peak))
    height = kept = 0.0
    learnt: float | None = None
    for number in range(most):
        if number * interval > steps:
            break
        height = kept + law.effectivity(kept)
        before, kept = kept, height * kept_part
        if learnt is None and kept >= needed and (number + 1) * interval <= steps:
            learnt = (number + 1) * interval
        if number and abs(kept - before) < 1e-9:
            break
    return Outlook(interval, height, kept, learnt)


def encounter_intervals(counts: npt.ArrayLike, corpus_tokens: float, tokens_a_step: float) -> Floats:
    """Steps from one encounter to the next for facts stated ``counts`` times in a corpus; infinite for none.

    Args:
        counts: ``[F]`` how often each fact is stated in the corpus.
        corpus_tokens: tokens of the corpus.
        tokens_a_step: batch x window.
    """
    stated = np.asarray(counts, np.float64)
    with np.errstate(divide="ignore"):
        return np.where(stated > 0, corpus_tokens / stated / tokens_a_step, math.inf)


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
    """Facts to look for in it: a table as the run takes it (a row a subject or a row a fact), or passages."""
    key: str | None = None
    """Column of the facts that names the subjects of a table with a row a subject; None for the first."""
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
    own, depth = parts[part], options.depth
    groups = [group for group, measured_depth in own.laws if measured_depth == depth]
    if not groups:
        raise UserError(f"run {options.run}: no group was injected and kept at depth {depth}; choose another depth")
    group = options.group or ("paraphrase" if "paraphrase" in groups else groups[0])
    if group not in groups:
        raise UserError(f"group: {group!r} was not measured at depth {depth}; there are {', '.join(groups)}")
    facts, law = _facts(options, own.about), own.laws[group, depth]
    total = options.tokens or facts.corpus_tokens
    # Training longer than the corpus reads it again, at the same rate.
    rows = _forecast(law, facts, own.a_step, total, options.probability)
    what_if = []
    for case, other, counts, a_step in _conditions(parts, part, group, depth, facts.counts):
        changed = _forecast(other, replace(facts, counts=counts), a_step, total, options.probability)
        what_if.append({"case": case, **_verdicts(changed), "threshold_steps": other.law.threshold_steps})
    held = [(name, other) for name, other in parts.items() if name != part and other.batch == own.batch]
    for folder in options.held:
        held += [(f"{folder}: {name}", other) for name, other in read_run_parts(folder).items()]
    return {
        "run": str(options.run),
        "part": part,
        "group": group,
        "depth": depth,
        "probability": options.probability,
        "corpus_tokens": facts.corpus_tokens,
        "training_tokens": total,
        "note": facts.note,
        "before": law.before,
        "law": vars(law.law) | {"threshold_steps": law.law.threshold_steps},
        "facts": rows,
        "verdicts": _verdicts(rows),
        "what_if": what_if,
        "errors": [
            {"held": name, **row} for name, other in held for row in validate(own.laws, other.curves, own.reading)
        ],
    }


@dataclass(frozen=True)
class RunPart:
    """One part of a finished run: what its summary says of it, its curves and how they are read, the laws by (group, depth)."""

    about: dict[str, Any]
    curves: Curves
    reading: CurveOptions
    laws: dict[tuple[str, str], MeasuredLaw]

    @property
    def batch(self) -> int:
        """Rows a step."""
        return int(self.about["batch"])

    @property
    def a_step(self) -> int:
        """Tokens a step."""
        return self.batch * int(self.about["window"])


def read_run_parts(folder: Path) -> dict[str, RunPart]:
    """The parts of a finished run by name; raises UserError where the folder holds none."""
    path = Path(folder) / "summary.json"
    if not path.exists():
        raise UserError(f"run {folder}: holds no finished run of knowledge-acquisition (no summary.json)")
    summary = writing.read_json(path)
    if summary.get("experiment") != "knowledge-acquisition":
        raise UserError(f"run {folder}: is a run of {summary.get('experiment')!r}; give one of knowledge-acquisition")
    reading = CurveOptions(**writing.read_json(Path(folder) / "config.json")["config"]["reading"])
    found = {}
    for about in summary["parts"]:
        own = replace(reading, window=about.get("maxima_within", reading.window))  # runs made before do not say it
        curves = read_curves(Path(folder) / about["dataset"] / "injection", own)
        found[about["dataset"]] = RunPart(about, curves, own, laws_of(curves, own))
    return found


@dataclass(frozen=True)
class Facts:
    """Names of the facts, how often each is stated, tokens of the corpus, and how the two were found."""

    names: list[str]
    counts: np.ndarray
    corpus_tokens: float
    note: str


def _forecast(
    measured: MeasuredLaw, facts: Facts, a_step: float, total: float, probability: float
) -> list[dict[str, Any]]:
    needed = math.log(probability) - measured.before
    steps = total / a_step
    rows = []
    every = encounter_intervals(facts.counts, facts.corpus_tokens, a_step)
    for name, count, interval in zip(facts.names, facts.counts, every, strict=True):
        row: dict[str, Any] = {"fact": name, "count": int(count), "verdict": "never", "learnt_at": None, "tokens": None}
        row |= {"interval": float(interval), "keeps": 0.0}
        if math.isfinite(interval):
            # Far beyond the run's end, to tell "too late" from "never".
            seen = outlook(measured.law, float(interval), needed)
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


def _conditions(
    parts: dict[str, RunPart], part: str, group: str, depth: str, counts: np.ndarray
) -> Iterator[tuple[str, MeasuredLaw, np.ndarray, int]]:
    """Other conditions than the corpus's, each with the law measured for it, the facts' counts and the tokens a step."""
    own = parts[part]
    for other, words in (("paraphrase", "in other words"), ("duplicate", "in the same words")):
        if other != group and (other, depth) in own.laws:
            yield f"every fact said again {words} each time", own.laws[other, depth], counts, own.a_step
    for k in MORE:
        yield f"{k} times as many statements of each fact", own.laws[group, depth], counts * k, own.a_step
    if law := own.laws.get(("paraphrase", depth)):
        yield "half the statements, none a duplicate", law, np.ceil(counts / 2), own.a_step
    for name, elsewhere in parts.items():
        if elsewhere.batch != own.batch and (law := elsewhere.laws.get((group, depth))):
            yield f"batch {elsewhere.batch} (part {name})", law, counts, elsewhere.a_step


def _facts(options: PlanOptions, about: dict[str, Any]) -> Facts:
    if options.frequencies is not None:
        if options.corpus_tokens is None or options.corpus_tokens <= 0:
            raise UserError(
                "frequencies: say with --corpus-tokens how many tokens the corpus has that they were counted in"
            )
        rows = list(rows_with(options.frequencies, ("fact", "count")))
        try:
            counts = np.array([float(row["count"]) for row in rows])
        except ValueError:
            bad = next(row["count"] for row in rows if not re.fullmatch(r"\s*\d+(\.\d*)?\s*", str(row["count"])))
            raise UserError(f"{options.frequencies}: the count {bad!r} is no number") from None
        return Facts([str(row["fact"]) for row in rows], counts, options.corpus_tokens, "Frequencies as given.")
    if options.corpus is None or options.facts is None:
        raise UserError("give --corpus and --facts to count facts in a text, or --frequencies and --corpus-tokens")
    pairs = list(read_pairs(options.facts, options.key))
    if not pairs:
        raise UserError(f"{options.facts}: holds no facts")
    counts, tokens, texts = count_facts(
        pairs, documents(options.corpus, options.column), _tokenizer(options.run, about)
    )
    note = (
        f"A statement is a sentence with the fact's subject and its object, or a document with both in different sentences; "
        f"{texts:,} document{'s' * (texts != 1)}, {tokens:,.0f} tokens (estimated)."
    )
    return Facts([f"{subject} – {target}" for subject, target in pairs], counts, tokens, note)


def _tokenizer(folder: Path, about: dict[str, Any]) -> Any:
    from engramlab.core import models

    own = Path(folder) / "tokenizer"
    return models.load_tokenizer(str(own) if own.exists() else str(about["model"]))
