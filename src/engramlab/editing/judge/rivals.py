"""What rows of ``evaluation.judge`` say where no answer is the right one, or where it is chosen among given ones. No
model code.

Queries of role ``wanted`` are texts that an edit should make likelier, those of role ``rival`` what they, or the answer
to the same prompt, compete with. Both are scored by their log-probabilities alone, and are in none of the four shares.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engramlab.base import bootstrap

_WHEN = ("before", "after")


def sentiment(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Edit success of ConvSent (arXiv 2206.06520): σ(ℓ⁺ − ℓ⁻) · min(1, exp(ℓ⁺ − ℓ⁺ before the edit)).

    ℓ⁺ and ℓ⁻ are means over a case's wanted and rival texts of the mean log-probability of their tokens. The second
    factor takes away what an edit gains by making everything unlikely; of the unedited model it is 1.

    Returns:
        ``{"before": mean over cases or None, "after": ..., "cases": n}``; cases without texts of both kinds are left
        out.
    """
    found = sentiments(rows)
    return {**{when: _mean([one[when] for one in found.values()]) for when in _WHEN}, "cases": len(found)}


def sentiments(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """By case, ``sentiment`` before and after the edit."""
    texts: defaultdict[str, defaultdict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["role"] in ("wanted", "rival") and row["logprobs_after"]:
            texts[str(row["case"])][row["role"]].append(row)
    found: dict[str, dict[str, float]] = {}
    for name, case in texts.items():
        if len(case) == 2:
            level = {
                (role, when): float(np.mean([np.mean(row[f"logprobs_{when}"]) for row in of]))
                for role, of in case.items()
                for when in _WHEN
            }
            found[name] = {}
            for when in _WHEN:
                lost = min(0.0, level["wanted", when] - level["wanted", "before"])
                behind = level["rival", when] - level["wanted", when]
                found[name][when] = float(np.exp(lost - np.logaddexp(0.0, behind)))
    return found


def likelihood(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any] | None:
    """The third protocol, ``likelihood``, of benchmarks whose texts are ``wanted`` and not right: ``success`` before and after
    (see ``sentiment``), and ``kl``, how far what is said about other topics moved (nats, lower is better); each with its 95 %
    interval over cases. Never averaged with the others; None where no case has such texts."""
    found = sentiments(rows)
    if not found:
        return None
    made: dict[str, Any] = {"cases": len(found)}
    for name, when in (("success_before", "before"), ("success", "after")):
        made |= bootstrap.mean(name, [one[when] for one in found.values()], seed)
    return made | bootstrap.mean("kl", [row.get("kl") for row in rows], seed)


def choices(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often the answer is the likeliest of the options: by the sum of its tokens' log-probabilities, and by their
    mean.

    Options are the rivals that a case has for the same prompt. One that is as likely as the answer beats it.

    Returns:
        ``{"sum": {"before": share or None, "after": ...}, "mean": {...}, "questions": n}``.
    """
    rivals: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["role"] == "rival":
            rivals[str(row["case"]), row["prompt"]].append(row)
    asked = [(row, rivals.get((str(row["case"]), row["prompt"]))) for row in rows if row["role"] == "portability"]
    found: dict[str, Any] = {"questions": sum(bool(options) for _, options in asked)}
    for name, score in (("sum", np.sum), ("mean", np.mean)):
        found[name] = {
            when: _mean(
                [
                    float(all(score(row[f"logprobs_{when}"]) > score(one[f"logprobs_{when}"]) for one in options))
                    for row, options in asked
                    if options
                ]
            )
            for when in _WHEN
        }
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
