"""How facts are asked for: behind other facts of their relation, each with its answer, and with passages or without."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base.facts import Fact
from engramlab.base.random_access import key, permute
from engramlab.corpora.facts import FactTable
from engramlab.experiments.factual_decoding.config import Config


def shots(config: Config, table: FactTable, relation: str) -> list[Fact]:
    """The facts that stand before questions for a relation; they are not asked for themselves."""
    facts = [fact for fact in table if fact.relation == relation]
    most = min(config.shots, max(0, len(facts) - 4))
    if not facts:
        return []
    order = permute(key(config.seed, "shots", relation), np.arange(len(facts)), len(facts))
    return [facts[i] for i in order[:most]]


def prompt(table: FactTable, shown: Sequence[Fact], fact: Fact, passage: str | None = None) -> str:
    """The question for a fact behind those shown.

    Args:
        passage: what stands before the question; those shown then have one that states them, each its own.
    """
    made = []
    for one in (*shown, fact):
        read = table.wordings.sentence(one, 0)[0] if one is not fact else passage
        before = f"{read}\n" if passage is not None else ""
        made.append(f"{before}Q: {table.wordings.plain(one.relation, one.subject)}\nA:")
    return "".join(f"{text} {one.object}\n\n" for text, one in zip(made, shown, strict=False)) + made[-1]
