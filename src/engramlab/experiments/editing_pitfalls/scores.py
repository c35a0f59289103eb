"""What probabilities before, between and after two edits say: the scores of arXiv 2310.02129, as pure functions.

A probability is the mean over a prompt and its other wordings of exp(mean log-probability of the object's tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: By key ("first" and "last" edit, "implied" and "tied" facts): before, between and after the edits.
Probabilities = Mapping[str, Sequence[float]]


def conflict(p: Probabilities) -> dict[str, float | None]:
    """The scores of two edits in a row, of which the second overrules the first.

    ``explicit`` (CS_exp): is the second likelier than the first? ``implied`` (CS_imp): is what it says about the first? Both
    0 or 1, after the edits. ``magnitude`` (CM): by which share of its probability between the edits the first fell, no less
    than -1. ``tied`` (TFD): by which share the fact that ties them fell from before to after. None where a case has no such
    fact, or a probability is 0.
    """
    first, tied = p["first"], p.get("tied")
    implied = p.get("implied")
    return {
        "explicit": float(p["last"][2] > first[2]),
        "implied": None if implied is None else float(implied[2] > first[2]),
        "magnitude": max((first[1] - first[2]) / first[1], -1.0) if first[1] > 0 else None,
        "tied": (tied[0] - tied[2]) / tied[0] if tied is not None and tied[0] > 0 else None,
    }


def round_trip(
    p: Mapping[str, Sequence[float]], ranks: Mapping[str, Sequence[float]], true: Sequence[str], new: str
) -> dict[str, float | None]:
    """The scores of an answer edited away and back, among several right ones.

    ``distortion`` (D): Jensen-Shannon divergence in nats of the right answers' probabilities before and after, each
    normalised; ``distortion_divided``: the same over the number of answers, as the released code has it. ``ignored`` (IR):
    the share of the other answers whose part fell; ``failed`` (FR): did more than half of them? Normalised parts also fall
    where the edited answer alone rose; so ``outranked``: the share of the others with more tokens of the vocabulary before
    them than there were. ``back``: is the old answer likelier than the new one again?

    Args:
        true: the right answers, the edited one first.
        new: what it was edited to in between.
    """
    before, after = (np.array([p[one][when] for one in true]) for when in (0, 2))
    if not before.sum() > 0 or not after.sum() > 0:
        return dict.fromkeys(("distortion", "distortion_divided", "ignored", "failed", "outranked", "back"))
    before, after = before / before.sum(), after / after.sum()
    ignored = float(np.mean(after[1:] < before[1:]))
    apart = divergence(before, after)
    return {
        "distortion": apart,
        "distortion_divided": apart / len(true),
        "ignored": ignored,
        "failed": float(ignored > 0.5),
        "outranked": float(np.mean([ranks[one][2] > ranks[one][0] for one in true[1:]])),
        "back": float(p[true[0]][2] > p[new][2]),
    }


def divergence(one: np.ndarray, other: np.ndarray) -> float:
    """Jensen-Shannon divergence of two distributions ``[n]``, in nats: from 0 to ln 2."""
    middle = (one + other) / 2

    def towards(of: np.ndarray) -> float:
        there = of > 0
        return float((of[there] * np.log(of[there] / middle[there])).sum())

    return max(0.0, (towards(one) + towards(other)) / 2)
