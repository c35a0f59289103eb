"""Which of these answers does the model find likeliest after this text?

Every context is read once for all its options, what contexts share is read once for all of them
(``core/forward/branches.py``), and four scores come from one reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import NO_SPACE, Query
from engramlab.base.progress import Progress
from engramlab.core import deltas
from engramlab.core.forward import branches
from engramlab.core.forward.decoding import Decoding, greedy
from engramlab.core.models import mask_token
from engramlab.core.text.tokens import Sequences, encode_queries
from engramlab.measuring.scoring import first_scored, score

By = Literal["sum", "mean", "character", "prior"]


@dataclass(frozen=True)
class Choices:
    """Scores of every context's options, end to end.

    Attributes:
        scores: float64 ``[total]``: in nats (a token, a character) as asked for; higher is likelier.
        offsets: int64 ``[contexts + 1]``: options of context ``i`` are ``offsets[i]:offsets[i + 1]``.
        tokens: int64 ``[total]``: how many tokens each option has.
    """

    scores: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Choices({len(self)} contexts, {len(self.scores)} options)"

    def of(self, context: int) -> np.ndarray:
        """Scores of one context's options."""
        return self.scores[self.offsets[context] : self.offsets[context + 1]]

    def probabilities(self) -> np.ndarray:
        """float64 ``[total]``: softmax over each context's options (never exp before the largest is taken off)."""
        top = np.maximum.reduceat(self.scores, self.offsets[:-1])
        counts = np.diff(self.offsets)
        parts = np.exp(self.scores - np.repeat(top, counts))
        return parts / np.repeat(np.add.reduceat(parts, self.offsets[:-1]), counts)

    def ties(self) -> np.ndarray:
        """int64 ``[contexts]``: how many options share the highest score (1: none ties)."""
        top = np.maximum.reduceat(self.scores, self.offsets[:-1])
        best = self.scores == np.repeat(top, np.diff(self.offsets))
        return np.add.reduceat(best.astype(np.int64), self.offsets[:-1])

    def right(self, truth: Sequence[int]) -> np.ndarray:
        """float64 ``[contexts]``: 1 where the true option (its number in its context) alone is best, 1 / n where it is one of n
        best, else 0: what picking among the best at random would get."""
        top = np.maximum.reduceat(self.scores, self.offsets[:-1])
        return np.where(self.scores[self.offsets[:-1] + np.asarray(truth)] == top, 1 / self.ties(), 0.0)


def choose(
    model: nn.Module,
    tokenizer: Any,
    contexts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    by: By = "sum",
    bare: str = "Answer:",
    decoding: Decoding | None = None,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> Choices:
    """How likely each option is behind its context.

    Args:
        contexts: texts; an option joins its context by the space rule.
        options: for each context its options.
        by: ``sum``: log-probability of all the option's tokens; ``mean``: of a token; ``character``: of a character; ``prior``:
            of all tokens, less the same behind ``bare``, so that an option does not win by being common (GPT-3,
            arXiv 2005.14165, section 2.4).
        decoding: evidence is that of the distribution it takes tokens from; one that compares with no other context.
        budget: most padded tokens a pass.
        progress: called with (options scored, options in all).

    Raises:
        UserError: no options, a blank one, one given twice, or one that does not fit the model's context.
    """
    return choose_by(
        model, tokenizer, contexts, options, [by], bare=bare, decoding=decoding, budget=budget, progress=progress
    )[by]


def choose_by(
    model: nn.Module,
    tokenizer: Any,
    contexts: Sequence[str],
    options: Sequence[Sequence[str]],
    by: Sequence[By],
    *,
    bare: str = "Answer:",
    decoding: Decoding | None = None,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> dict[By, Choices]:
    """``choose`` by several scores from one reading."""
    _check(contexts, options)
    how = decoding or greedy.Config()
    texts = [Query(context, option) for context, listed in zip(contexts, options, strict=True) for option in listed]
    counts = np.array([len(listed) for listed in options])
    of = np.repeat(np.arange(len(contexts)), counts)
    encoded = encode_queries(tokenizer, texts)
    sums, tokens = _sums(model, encoded.sequences, of, how, budget, progress)
    scores: dict[By, np.ndarray] = {"sum": sums, "mean": sums / tokens}
    scores["character"] = sums / np.array([len(query.target.removeprefix(NO_SPACE).strip()) for query in texts])
    if "prior" in by:
        different = list(dict.fromkeys(query.target for query in texts))
        alone = encode_queries(tokenizer, [Query(bare, option) for option in different]).sequences
        prior, _ = _sums(model, alone, np.zeros(len(different), dtype=np.int64), how, budget, None)
        known = dict(zip(different, prior, strict=True))
        scores["prior"] = sums - np.array([known[query.target] for query in texts])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {one: Choices(scores[one], offsets, tokens) for one in by}


def _sums(
    model: nn.Module, rows: Sequences, of: np.ndarray, how: Decoding, budget: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each row's scored tokens together, and how many they are."""
    wanted = np.add.reduceat((rows.marks > 0).astype(np.int64), rows.offsets[:-1])
    if not (how.beside or how.by_text or deltas.routed(model) or mask_token(model) is not None):
        first_scored(model, rows)  # do they fit?
        trees = branches.trees(rows, of)
        # Worth it where most of what is read would be read again and again.
        if 2 * branches.tokens_read(trees) < len(rows.ids) and branches.takes_branches(model, rows, trees, how):
            found = branches.logprobs(model, rows, trees, how, budget=budget, progress=progress)
            return np.bincount(np.repeat(np.arange(len(rows)), wanted), found.astype(np.float64), len(rows)), wanted
    return score(model, rows, decoding=how, budget=budget, progress=progress).sum_logprob(), wanted


def _check(contexts: Sequence[str], options: Sequence[Sequence[str]]) -> None:
    if len(contexts) != len(options):
        raise UserError(f"{len(contexts)} contexts, but options for {len(options)}: give each context its options")
    for i, listed in enumerate(options):
        where = f"context {i} ({contexts[i][:40]!r})"
        if not listed:
            raise UserError(f"{where} has no options: give at least one")
        stripped = [option.strip() for option in listed]
        if "" in stripped:
            raise UserError(f"{where}: option {stripped.index('')} is blank")
        if len(set(stripped)) < len(stripped):
            twice = next(option for option in stripped if stripped.count(option) > 1)
            raise UserError(f"{where} has option {twice!r} twice: leave one out")
