"""Does a model know these facts, and how can they be got out?

    rows = eg.audit(model, tokenizer, FactTable.read("my_facts.csv"))

Every fact is asked for in several wordings (written), its object is ranked among the relation's (ranked), behind lists of other
facts (many-shot), and behind a passage that states it (read); ``classes.py`` makes a class of that, with what chance gives
beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from engramlab.base import bootstrap
from engramlab.base.errors import UserError
from engramlab.base.rows import Row, Rows
from engramlab.core.forward.decoding import Decoding
from engramlab.corpora.facts import FactTable
from engramlab.measuring.audit import classes
from engramlab.measuring.audit.agreement import agreement
from engramlab.measuring.audit.classes import CLASSES
from engramlab.measuring.audit.popularity import by_popularity
from engramlab.measuring.audit.ways import QUICK, Asker, Asking, Evidence, Named

__all__ = [
    "CLASSES",
    "QUICK",
    "Asker",
    "Asking",
    "Evidence",
    "agreement",
    "audit",
    "by_popularity",
    "of_relation",
    "usable",
]
SAMPLES = 1000
CONTRADICTED = 0.8  # share of the wordings in which the same wrong object is written


def audit(
    model: nn.Module,
    tokenizer: Any,
    table: FactTable,
    *,
    how: Asking | None = None,
    decoding: Decoding | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Rows:
    """A row a fact: its class and what it rests on.

    Args:
        table: facts; relations with a single object are left out.
        how: wordings, options, lists; `QUICK` for a first look.
        decoding: how answers are written and options scored; greedy by default.
        progress: called with (what is done, how much of it, how much there is).

    Returns:
        Rows with ``subject``, ``relation``, ``object``, ``class``, ``written`` (share of the wordings), ``rank`` (share of
        wrong options that are less likely, corrected for what they have with other subjects), ``first`` (share of lists behind
        which the object comes first), ``read``, and the flags ``guessable``, ``contradicted`` (by which object), ``unaskable``.

    Raises:
        UserError: no relation with two objects.

    A masked model is ranked only, as it writes no answers. Probing, which trains, is `engramlab audit`'s.
    """
    asker = Asker(model, tokenizer, table, how or Asking(), decoding=decoding, said=progress)
    relations, _ = usable(table)
    return Rows(row for name in relations for row in of_relation(asker.evidence(name, relations[name]))[0])


def usable(table: FactTable) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The facts of each relation that can be asked for, and why others are left out. Raises UserError where none is left."""
    found: dict[str, list[Any]] = {}
    left: dict[str, str] = {}
    for name in table.relations:
        facts = [fact for fact in table if fact.relation == name]
        if len({fact.object for fact in facts}) < 2:
            left[name] = "it has one object only, so that there is nothing to choose from"
        else:
            found[name] = facts
    if not found:
        raise UserError(f"{table.name}: no relation has two different objects: there is nothing to choose from")
    return found, left


def of_relation(evidence: Evidence, seed: int = 0) -> tuple[list[Row], Row]:
    """The rows of a relation's facts, and the row of the relation itself: shares with intervals, and what chance gives."""
    ranks = _mean(classes.below(classes.corrected(evidence.scores)))
    firsts = None if evidence.lists is None else _mean(classes.first(evidence.lists))
    chance = classes.chance(evidence.truth.tolist(), ranks, firsts)
    writes = evidence.written.shape[1] > 0
    asking = np.array([kind != "statement" for kind in evidence.kinds])[: evidence.written.shape[1]]
    counts = np.bincount(evidence.truth, minlength=len(evidence.options))
    guesses = {int(np.argmax(counts))} if counts.max() > 1 else set()
    if evidence.invented:
        guesses.add(evidence.invented.most_common(1)[0][0])
    rows, named = [], Named(evidence.facts, evidence.options)
    for i, (fact, truth) in enumerate(zip(evidence.facts, evidence.truth.tolist(), strict=True)):
        right = evidence.written[i]
        shown = None if firsts is None else float(firsts[i, truth])
        rows.append(
            {
                "subject": fact.subject,
                "relation": fact.relation,
                "object": fact.object,
                "class": classes.classify(
                    right[~asking].tolist(),
                    right[asking].tolist(),
                    float(ranks[i, truth]),
                    shown,
                    chance,
                    evidence.probed is not None and bool(evidence.probed[i]),
                ),
                "written": float(right.mean()) if writes else None,
                "statements": float(right[~asking].mean()) if (~asking).any() else None,
                "questions": float(right[asking].mean()) if writes else None,
                "rank": float(ranks[i, truth]),
                "first": shown,
                "read": None if evidence.read is None else float(evidence.read[i].mean()),
                "guessable": truth in guesses,
                "contradicted": _contradicted(evidence, named, i, guesses),
                "unaskable": evidence.read is not None and float(evidence.read[i].mean()) < 0.5,
                "said": Counter(evidence.texts[i]).most_common(1)[0][0] if writes else None,
                **({"decoded": float(evidence.decoded[i].mean())} if evidence.decoded is not None else {}),
                **({"probed": bool(evidence.probed[i])} if evidence.probed is not None else {}),
                **({"popularity": evidence.popularity[i]} if evidence.popularity else {}),
            }
        )
    return rows, _about(evidence, rows, chance, counts, seed)


def _mean(values: np.ndarray) -> np.ndarray:
    """``[facts, ways, options]`` over the ways; NaN where an option was never scored."""
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0.0).sum(1), known.sum(1), out=np.full(values[:, 0].shape, np.nan), where=known.any(1)
    )


def _contradicted(evidence: Evidence, named: Named, i: int, guesses: set[int]) -> str | None:
    """The wrong object, no guess, that is written in nearly every wording."""
    texts = [text for text, right in zip(evidence.texts[i], evidence.written[i], strict=True) if not right]
    found = Counter(k for text in texts for k in named(text) if k != evidence.truth[i])
    if not found:
        return None
    option, times = found.most_common(1)[0]
    return (
        evidence.options[option] if times >= CONTRADICTED * len(evidence.texts[i]) and option not in guesses else None
    )


def _about(evidence: Evidence, rows: Sequence[Row], chance: classes.Thresholds, counts: np.ndarray, seed: int) -> Row:
    """The relation's row. Shares leave guessable facts out, as a right guess is no knowledge."""
    kept = [row for row in rows if not row["guessable"]]
    found: Row = {
        **{f"probe_{name}": value for name, value in evidence.probe.items()},
        "relation": evidence.facts[0].relation,
        "facts": len(rows),
        "guessable": len(rows) - len(kept),
        "options": len(evidence.options),
        "shown": evidence.shown,
        "majority": float(counts.max() / counts.sum()),
        "favourite": evidence.options[evidence.invented.most_common(1)[0][0]] if evidence.invented else None,
        "rank_threshold": chance.rank,
        "first_threshold": chance.shown,
        "contradicted": sum(row["contradicted"] is not None for row in kept),
        "unaskable": sum(bool(row["unaskable"]) for row in kept),
    }
    weights = bootstrap.times(bootstrap.draws(len(kept), SAMPLES, seed)) / max(len(kept), 1)
    for depth, name in enumerate(CLASSES):
        found[name] = sum(row["class"] == name for row in kept)
        if name != "unknown":
            at_least = np.array([CLASSES.index(row["class"]) <= depth for row in kept], dtype=np.float64)
            share = float(at_least.mean()) if len(kept) else None
            low, high = bootstrap.interval(weights @ at_least) if len(kept) else (None, None)
            null = {"latent": chance.shown_null, "recognised": chance.rank_null}.get(name)
            found |= {f"at_least_{name}": share, f"at_least_{name}_low": low, f"at_least_{name}_high": high}
            if null is not None:
                found |= {
                    f"at_least_{name}_null": null,
                    f"at_least_{name}_corrected": None if share is None else classes.beyond_chance(share, null),
                }
    return found
