"""Consistency: a model is trained until a question's translations agree. No label is seen, nor could one be handed over.

Source: Dou and Peng, arXiv 2201.00136. The choice that all translations together prefer, argmax over c of the sum of p_i(c), is
what every one of them is then trained to prefer: L = -mean over questions and translations of log p_i(choice). The released
trainer always hands over labels and never gets there; optimizer, steps and the absence of dropout are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from engramlab.core.forward.branches import Tree
from engramlab.core.forward.hooks import mode
from engramlab.core.text.batches import Order
from engramlab.core.text.tokens import Sequences
from engramlab.core.training.loop import Objective
from engramlab.corpora.cloze import Cloze
from engramlab.measuring.cloze import read, read_once, training_rows

_NONE = -1


@dataclass(frozen=True)
class Unlabelled:
    """What training sees: rows to read, and int64 ``[translations, questions, options]``, the row of each option (-1 where a
    question has fewer than others); and which rows are read together."""

    rows: Sequences
    at: np.ndarray
    trees: Sequence[Tree]


def unlabelled(
    model: nn.Module,
    tokenizer: Any,
    clozes: Sequence[Sequence[Cloze]],
    options: Sequence[Sequence[str]],
    by: str,
) -> Unlabelled:
    """``clozes``: by translator, one for each question. Raises UserError for a text that does not fit the model."""
    every = [one for listed in clozes for one in listed]
    rows = training_rows(model, tokenizer, every, [*options] * len(clozes), by)
    counts = np.array([len(listed) for listed in options])
    at = np.full((len(clozes), len(options), int(counts.max())), _NONE)
    at[:, np.arange(at.shape[2]) < counts[:, None]] = np.arange(len(rows)).reshape(len(clozes), -1)
    of = np.repeat(np.arange(len(every)), np.tile(counts, len(clozes)))
    return Unlabelled(rows, at, read_once(model, rows, of))


def disagreement(scores: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The loss of ``scores[T, Q, O]``; ``real[Q, O]`` is False where a question has fewer options."""
    logp = scores.masked_fill(~real, -torch.inf).log_softmax(-1)
    choice = logp.detach().exp().sum(0).argmax(-1)
    return -logp.gather(-1, choice.expand(len(logp), -1)[..., None]).mean()


def objective(model: nn.Module, seen: Unlabelled, order: Order, batch: int, by: str, tokens: int) -> Objective:
    """The loss of the next ``batch`` questions of ``order``.

    Args:
        tokens: padded tokens a pass; more are read in parts, each once more for its gradients, so that memory is that of one.
    """

    def scored(part: Sequence[Tree]) -> torch.Tensor:
        with mode(model, False):  # in a part's second reading too
            return read(model, seen.rows, part, by)

    def loss() -> torch.Tensor:
        at = seen.at[:, np.unique(order.next(batch))]
        there = at != _NONE
        wanted = np.zeros(len(seen.rows), dtype=bool)
        wanted[at[there]] = True
        chosen = sorted((tree for tree in seen.trees if wanted[tree.rows[0]]), key=lambda tree: _size(seen.rows, tree))
        parts = _parts(chosen, [_size(seen.rows, tree) for tree in chosen], tokens)
        if len(parts) == 1:
            found = scored(chosen)
        else:
            found = torch.cat([checkpoint(scored, part, use_reentrant=False) for part in parts])
        numbers = np.concatenate([tree.rows for tree in chosen])
        place = np.zeros(len(seen.rows), dtype=np.int64)
        place[numbers] = np.arange(len(numbers))
        scores = found[torch.from_numpy(place[np.maximum(at, 0)]).to(found.device)]
        return disagreement(scores, torch.from_numpy(there[0]).to(found.device))

    return loss


def _size(rows: Sequences, tree: Tree) -> int:
    return tree.tokens if tree.trunk else int(rows.lengths[tree.rows[0]])


def _parts(trees: Sequence[Tree], sizes: Sequence[int], most: int) -> list[Sequence[Tree]]:
    """Trees of ascending size in parts of no more padded tokens than ``most``, or of one tree."""
    found, start = [], 0
    for k, size in enumerate(sizes):
        if k > start and (k + 1 - start) * size > most:
            found.append(trees[start:k])
            start = k
    return [*found, trees[start:]]
