"""What a model names as its sources, in rows with intervals over documents; and what text costs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engramlab.base import bootstrap
from engramlab.base.random_access import key as random_key
from engramlab.base.rows import Row
from engramlab.corpora.documents import guessed
from engramlab.experiments.source_attribution.config import Arm
from engramlab.experiments.source_attribution.text import OUT, Asked
from engramlab.measuring import citing

SAMPLES = 1000


def rows_of(
    arm: Arm,
    asked: Sequence[Asked],
    ids: Sequence[str],
    inside: np.ndarray,
    right: np.ndarray,
    overlap: np.ndarray,
    own: np.ndarray,
    given: np.ndarray,
    seed: int,
) -> list[Row]:
    """A row a group and set of identifiers, with intervals over documents.

    Args:
        inside: bool ``[ids]``: documents with trained questions.
        right, overlap: ``[asked]``: were they answered rightly, and F1 of the answers.
        own, given: ``[asked, ids]``: scores of the identifiers behind the model's own answers and behind the right ones.
    """
    gold = np.array([one.document for one in asked])
    groups = np.array([one.group for one in asked])
    guess = guessed([one.question for one in asked], ids)
    rows: list[Row] = []
    for group in dict.fromkeys(groups.tolist()):
        members = np.flatnonzero(groups == group)
        there = inside if group != OUT else ~inside
        for named, columns in (("all", np.arange(len(ids))), ("group", np.flatnonzero(there))):
            at = np.searchsorted(columns, gold[members])
            values: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            every, mine = np.ones(len(members)), right[members].astype(np.float64)
            values["answered"], values["f1"] = (mine, every), (overlap[members], every)
            for k in (1, 10):
                hit = citing.hits(own[np.ix_(members, columns)], at, k)
                values[f"hits{k}"], values[f"right{k}"] = (hit, every), (hit * mine, mine)
                values[f"told{k}"] = (citing.hits(given[np.ix_(members, columns)], at, k), every)
                values[f"guess{k}"] = (citing.hits(guess[np.ix_(members, columns)], at, k), every)
            about = {"dataset": arm.name, "strategy": arm.strategy, "copies": arm.copies, "thought": arm.thought}
            about |= {"group": group, "ids": named, "questions": len(members), "candidates": len(columns)}
            chance = {f"chance{k}": min(1.0, k / len(columns)) for k in (1, 10)}
            rows.append(about | chance | _shares(values, gold[members], seed))
    return rows


def _shares(values: dict[str, tuple[np.ndarray, np.ndarray]], of: np.ndarray, seed: int) -> Row:
    """Each share, sum over count, with its interval over documents; None where nothing counts."""
    known, document = np.unique(of, return_inverse=True)
    sums, counts = (
        np.stack([np.bincount(document, pair[part], len(known)).astype(np.float64) for pair in values.values()])
        for part in (0, 1)
    )
    drawn = bootstrap.ratios(sums, counts, SAMPLES, random_key(seed, "bootstrap") >> 1)
    low, high = bootstrap.intervals(drawn)
    row: Row = {"documents": len(known)}
    for i, name in enumerate(values):
        total = float(counts[i].sum())
        found = (float(sums[i].sum() / total), float(low[i]), float(high[i])) if total else (None, None, None)
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
    return row
