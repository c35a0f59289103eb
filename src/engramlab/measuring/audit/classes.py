"""What is said of a fact, from numbers alone: its class, what chance would give, and what two models' classes have in common.

Source: SliCK's classes (arXiv 2405.05904) at temperature 0, with wordings for its shots; the rank measure of Inside-Out
(arXiv 2503.15299) for one right answer. The classes, their order and the nulls are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engramlab.base.rows import Row

#: Best first. Only what is `extractable` or `prompt-dependent` is ever written.
CLASSES = ("extractable", "prompt-dependent", "latent", "recognised", "unknown")
ALWAYS = 0.8  # share of the wordings from which on a fact counts as written whatever the wording
LEVEL = 0.95  # of what chance gives


@dataclass(frozen=True)
class Thresholds:
    """What chance gives in a relation: 95 % of wrong pairs lie at or below.

    Attributes:
        rank: of the share of wrong options below an object.
        shown: of the share of lists behind which an object comes first.
        rank_null: share of wrong pairs above ``rank``: 0.05 or, where values tie, less.
        shown_null: share of wrong pairs that would count as latent.
    """

    rank: float
    shown: float
    rank_null: float
    shown_null: float


def classify(
    statements: Sequence[bool],
    questions: Sequence[bool],
    rank: float,
    shown: float | None,
    chance: Thresholds,
    probed: bool = False,
) -> str:
    """The class of a fact, the first that fits.

    Args:
        statements: is the object what the model writes after each beginning of a sentence?
        questions: after each question?
        rank: share of wrong options that the model finds less likely, over the wordings.
        shown: share of the lists of other facts behind which the object comes first; None where none were shown.
        probed: does a probe that counts read the object from the subject's hidden state?
    """
    every = [*statements, *questions]
    written = float(np.mean(every)) if every else 0.0
    if written >= ALWAYS and any(questions) and (any(statements) or not statements):
        return "extractable"
    if written > 0:
        return "prompt-dependent"
    if probed or (shown is not None and shown >= 0.5 and shown > chance.shown):
        return "latent"
    return "recognised" if rank > chance.rank else "unknown"


def below(scores: np.ndarray) -> np.ndarray:
    """For each option, the share of the others with a lower score, ties counting half: the same shape.

    Args:
        scores: float64 ``[..., options]``; NaN where an option is not offered, which stays NaN.
    """
    from scipy.stats import rankdata

    flat = scores.reshape(-1, scores.shape[-1])
    found = np.full_like(flat, np.nan)
    for row, of in zip(found, flat, strict=True):
        there = ~np.isnan(of)
        row[there] = (rankdata(of[there]) - 1) / max(int(there.sum()) - 1, 1)
    return found.reshape(scores.shape)


def first(scores: np.ndarray) -> np.ndarray:
    """For each option, 1 where it alone has the highest score, 1 / n where n tie, else 0; the same shape, NaN where NaN."""
    top = scores == np.nanmax(scores, axis=-1, keepdims=True)
    return np.where(np.isnan(scores), np.nan, top / top.sum(-1, keepdims=True))


def corrected(scores: np.ndarray) -> np.ndarray:
    """Scores less the median that an option has with the relation's other subjects; an option no other was asked about keeps
    its score. An option that is common, or short, is likely behind every subject; only what it has beyond that is about this.

    Args:
        scores: float64 ``[subjects, wordings, options]``; NaN where an option is not offered, which stays NaN.
    """
    found = scores.copy()
    for w in range(scores.shape[1]):
        for o in range(scores.shape[2]):
            asked = np.flatnonzero(~np.isnan(scores[:, w, o]))
            if len(asked) > 1:
                found[asked, w, o] -= _median_of_others(scores[asked, w, o])
    return found


def _median_of_others(values: np.ndarray) -> np.ndarray:
    """For each of several values the median of the others."""
    order = np.argsort(values, kind="stable")
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.arange(len(values))
    ranked, rest = values[order], len(values) - 1
    # The k-th of the others is the k-th of all, or the next one from the place of the value itself on.
    middle = [ranked[k + (k >= place)] for k in ((rest - 1) // 2, rest // 2)]
    found: np.ndarray = (middle[0] + middle[1]) / 2
    return found


def chance(truth: Sequence[int], rank: np.ndarray, shown: np.ndarray | None) -> Thresholds:
    """What wrong pairs of a subject and another's object give, each object as often as the relation has it.

    This is the null of pairing subjects and objects anew, without drawing: every wrong pair that was scored, by its weight.

    Args:
        truth: the number of each subject's object among the options.
        rank: float64 ``[subjects, options]`` of every option, right or wrong; NaN where it was not scored.
        shown: likewise; None where no lists were shown.
    """
    often = np.bincount(truth, minlength=rank.shape[1]).astype(np.float64)
    weights = np.where(np.isnan(rank), 0.0, often)
    weights[np.arange(len(truth)), truth] = 0.0
    high = _quantile(rank, weights)
    above = _share(rank > high, weights)
    if shown is None:
        return Thresholds(high, 1.0, above, 0.0)
    weights = np.where(np.isnan(shown), 0.0, weights)
    most = _quantile(shown, weights)
    return Thresholds(high, most, above, _share((shown > most) & (shown >= 0.5), weights))


def _quantile(values: np.ndarray, weights: np.ndarray) -> float:
    flat, heavy = values[weights > 0], weights[weights > 0]
    if not len(flat):
        return 1.0
    order = np.argsort(flat, kind="stable")
    total = np.cumsum(heavy[order])
    return float(flat[order][int(np.searchsorted(total, LEVEL * total[-1] * (1 - 1e-12)))])


def _share(which: np.ndarray, weights: np.ndarray) -> float:
    return float(weights[which].sum() / weights.sum()) if weights.sum() else 0.0


def beyond_chance(observed: float, null: float) -> float:
    """(observed - null) / (1 - null): the share that chance does not explain."""
    return (observed - null) / (1 - null) if null < 1 else 0.0


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact two-sided p-value that two models differ, from the facts only one of them has and only the other."""
    from scipy.stats import binomtest

    n = only_one + only_other
    return float(binomtest(only_one, n, 0.5).pvalue) if n else 1.0


def kept(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Of answers that were right before, how many still are: lost and won.

    Args:
        before, after: rows with ``group``, ``prompt`` and ``right``; what was not asked before does not count.
    """
    pairs = [(was, row["right"]) for was, row in _asked_twice(before, after)]
    lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    return {"right_before": sum(a for a, _ in pairs), "lost": lost, "won": won}


def kept_facts(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """The same of facts, with an exact test (McNemar's): ``facts_right_before``, ``facts_lost``, ``facts_won`` and ``p``.

    A fact counts as right where half of its wordings or more are answered. Answers to several wordings of one fact hang
    together: a test that took each for itself would call too much a difference.

    Args:
        before, after: rows as of ``kept``, and ``subject`` and ``relation``.
    """
    facts: dict[tuple[str, str, str], list[tuple[bool, bool]]] = {}
    for was, row in _asked_twice(before, after):
        facts.setdefault((row["group"], row["subject"], row["relation"]), []).append((was, row["right"]))
    halves = [tuple(2 * sum(of) >= len(of) for of in zip(*pairs, strict=True)) for pairs in facts.values()]
    lost, won = halves.count((True, False)), halves.count((False, True))
    right = lost + halves.count((True, True))
    return {"facts_right_before": right, "facts_lost": lost, "facts_won": won, "p": mcnemar(lost, won)}


def _asked_twice(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[bool, Row]]:
    """Rows of ``after`` that were asked before, too, each behind whether they were right then."""
    was = {(row["group"], row["prompt"]): row["right"] for row in before}
    return [(was[row["group"], row["prompt"]], row) for row in after if (row["group"], row["prompt"]) in was]
