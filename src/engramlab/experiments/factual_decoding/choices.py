"""Answers to choose from under greedy decoding and DoLa: MC1, MC2 and MC3, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.progress import Progress
from engramlab.base.random_access import key, permute
from engramlab.core.forward.decoding import Decoding, greedy
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import encode_queries
from engramlab.corpora.facts import FactTable
from engramlab.experiments.factual_decoding.asking import prompt, shots
from engramlab.experiments.factual_decoding.config import Config
from engramlab.experiments.factual_decoding.numbers import beside, mean
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import Room, write
from engramlab.measuring.scoring import score_each
from engramlab.reading import completions
from engramlab.reading.completions import Choice, factor, truthfulqa

METRICS = ("mc1", "mc2", "mc3")
RAW = "unnormalised"


@dataclass(frozen=True)
class Set:
    """Questions of one kind.

    Attributes:
        left: what was left out, one sentence each.
        written: are answers short enough to be written, too?
        ties: does the right answer count where a wrong one scores the same (FACTOR)?
    """

    name: str
    questions: list[Choice]
    left: list[str]
    written: bool = False
    ties: bool = False


def sets(config: Config, table: FactTable) -> list[Set]:
    """The sets of questions of a run; raises UserError for files that cannot be asked."""
    found = [Set("facts", facts(config, table), [], written=True)]
    if config.truthfulqa is not None:
        found.append(Set("truthfulqa", *completions.read(config.truthfulqa, truthfulqa, bad=config.bad)))
    if config.factor is not None:
        how = factor.cut if config.factor_prefix == "cut" else factor.question
        asked, left = completions.read(config.factor, factor, bad=config.bad, question=how)
        found.append(Set("factor", asked, left, ties=True))
    short = next((one for one in found if len(one.questions) < 2), None)
    if short is not None:
        raise UserError(f"{short.name}: has fewer than two questions; half of them choose layers, half are reported")
    return [Set(s.name, drawn(config, s), s.left, s.written, s.ties) for s in found]


def drawn(config: Config, of: Set) -> list[Choice]:
    """The questions asked, in an order of the seed."""
    order = permute(key(config.seed, "questions", of.name), np.arange(len(of.questions)), len(of.questions))
    return [of.questions[i] for i in order[: config.limit]]


def facts(config: Config, table: FactTable) -> list[Choice]:
    """Every fact but those that stand before questions, with objects of its relation."""
    found = []
    for relation, objects in table.choices().items():
        shown = shots(config, table, relation)
        for fact in (fact for fact in table if fact.relation == relation and fact not in shown):
            names = {name.lower() for name in (fact.object, *fact.aliases)}
            others = [one for one in objects if one.lower() not in names]
            if not others:
                continue
            order = permute(key(config.seed, "options", relation, fact.subject), np.arange(len(others)), len(others))
            wrong = tuple(others[i] for i in order[: config.options - 1])
            found.append(
                Choice(f"{relation}/{fact.subject}", prompt(table, shown, fact), (fact.object, *fact.aliases), wrong)
            )
    return found


def fitting(model: Any, tokenizer: Any, of: Set) -> tuple[list[Choice], list[str]]:
    """The questions whose every answer fits the model's context, and a sentence about each other one."""
    limit = context_limit(model)
    if not limit:
        return of.questions, []
    longest = [q.prompt + " " + max((*q.true, *q.false), key=len) for q in of.questions]
    lengths = [len(ids) + 8 for ids in tokenizer(longest)["input_ids"]] if longest else []
    kept = [q for q, n in zip(of.questions, lengths, strict=True) if n <= limit]
    left = [
        f"{of.name}, question {q.id}: has about {n} tokens with its answers; the model's context is {limit}"
        for q, n in zip(of.questions, lengths, strict=True)
        if n > limit
    ]
    return kept, left


def judge(true: npt.ArrayLike, false: npt.ArrayLike, ties: bool = False) -> tuple[float, float, float]:
    """MC1, MC2 and MC3 of summed scores, the best answer's first.

    MC1: it beats every false one; MC2: exp(scores) of the true over those of all; MC3: share of the true above every false one.
    """
    t, f = np.asarray(true, dtype=np.float64), np.asarray(false, dtype=np.float64)
    parts = np.exp(np.concatenate([t, f]) - max(t.max(), f.max()))
    first = t[0] >= f.max() if ties else t[0] > f.max()
    return float(first), float(parts[: len(t)].sum() / parts.sum()), float((t > f.max()).mean())


def ways(config: Config, model: Any) -> dict[str, Decoding]:
    """Every decoder that is looked at, by name."""
    buckets = {name: config.dola(bucket=name).layers(model) for name in ("low", "high")}
    static = config.candidates or tuple(sorted({layer for layers in buckets.values() for layer in layers}))
    config.dola(candidates=static).layers(model)
    return {
        "greedy": greedy.Config(),
        **{name: config.dola(bucket=name) for name in buckets},
        **{f"static {layer}": config.dola(candidates=(layer,)) for layer in static},
        **{f"random {name}": config.dola(bucket=name, pick="random") for name in buckets},
        # As the authors' script for TruthfulQA has it.
        **{f"{RAW} {name}": config.dola(bucket=name, plausible=0.0, likelihood="none") for name in buckets},
    }


def asked(config: Config, model: Any, tokenizer: Any, of: Set, progress: Progress | None) -> dict[str, Any]:
    """A set's rows, what its validation half chose, and an answer a question and way."""
    questions, left = fitting(model, tokenizer, of)
    if len(questions) < 2:
        raise UserError(f"{of.name}: fewer than two questions fit the model; {left[0] if left else 'give more'}")
    hows = ways(config, model)
    queries = [Query(q.prompt, answer) for q in questions for answer in (*q.true, *q.false)]
    encoded = encode_queries(tokenizer, queries)
    found = score_each(model, encoded.sequences, list(hows.values()), progress=progress)
    ends = np.cumsum([0, *(len(q.true) + len(q.false) for q in questions)])
    judged: dict[str, np.ndarray] = {}
    for name, scores in zip(hows, found, strict=True):
        sums = scores.sum_logprob()
        judged[name] = np.array(
            [
                judge(sums[a : a + len(q.true)], sums[a + len(q.true) : b], of.ties)
                for q, a, b in zip(questions, ends[:-1], ends[1:], strict=True)
            ]
        )
    half = len(questions) // 2
    chosen = choose(config, {name: values[:half] for name, values in judged.items()})
    members = {
        "greedy": "greedy",
        "static": chosen["static"],
        "low": "low",
        "high": "high",
        "random": f"random {chosen['bucket']}",
        RAW: f"{RAW} {chosen['bucket']}",
    }
    texts = _write(config, model, tokenizer, questions[half:], {k: hows[m] for k, m in members.items() if k != RAW}, of)
    rows = []
    for name in [*members, *(["greedy, penalty"] if of.written else [])]:
        row: dict[str, Any] = {"dataset": of.name, "way": name, "questions": len(questions) - half}
        row["chosen"] = name == chosen["bucket"]
        member = members.get(name)
        row["layers"] = [] if member in (None, "greedy") else list(hows[member].layers(model))
        for k, metric in enumerate(METRICS if member else ()):
            row |= beside(metric, judged[member][half:, k], judged["greedy"][half:, k], config.seed)  # type: ignore[index]
        if name in texts:
            right, base = texts[name][1], texts["greedy"][1]
            row |= beside("written", right, base, config.seed)
            row |= mean("kept", right[base], config.seed)
        rows.append(row)
    answers: list[dict[str, Any]] = [
        {
            "question": q.id,
            "half": "validation" if i < half else "test",
            "way": name,
            **dict(zip(METRICS, map(float, values[i]), strict=True)),
            "written": texts[name][0][i - half] if name in texts and i >= half else None,
        }
        for name, values in judged.items()
        for i, q in enumerate(questions)
    ]
    return {"rows": rows, "chosen": {"dataset": of.name, **chosen}, "left_out": [*of.left, *left], "answers": answers}


def choose(config: Config, judged: dict[str, np.ndarray]) -> dict[str, Any]:
    """The bucket and the static layer that the validation half finds best, by MC1, then MC2."""

    def value(name: str) -> tuple[float, float]:
        return float(judged[name][:, 0].mean()), float(judged[name][:, 1].mean())

    static = max((name for name in judged if name.startswith("static")), key=value)
    return {"bucket": max(("low", "high"), key=value), "static": static, "validation": len(judged["greedy"])}


def _write(
    config: Config, model: Any, tokenizer: Any, questions: list[Choice], hows: dict[str, Decoding], of: Set
) -> dict[str, tuple[list[str], np.ndarray]]:
    """By way what is written after each question, and whether that is right."""
    found = {}
    if of.written:
        for name, how in {**hows, "greedy, penalty": greedy.Config(config.penalty)}.items():
            prompts = [q.prompt for q in questions]
            texts = write(model, tokenizer, prompts, Room(config.new_tokens), decoding=how)
            right = [is_answer(text, q.true) for text, q in zip(texts, questions, strict=True)]
            found[name] = (texts, np.array(right, dtype=bool))
    return found
