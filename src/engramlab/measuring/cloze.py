"""How likely a model finds each option in the gap of a statement.

Masked models: ``raw`` (the released code of arXiv 2201.00136: nothing is hidden, each token's own logit counts, a mean over the
text), ``pll`` (each token hidden in turn, the sum of their log-probabilities) and ``answer`` (the option's tokens hidden,
together). Causal models: ``sum``, ``mean``, ``character`` and ``prior`` of ``candidates``, of everything from the gap on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.joining import cut
from engramlab.base.progress import Progress
from engramlab.core.forward.branches import Tree, sums, takes_branches, trees
from engramlab.core.forward.decoding import greedy
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import target_seen
from engramlab.core.models import context_limit, mask_token
from engramlab.core.text.tokens import Sequences, encode_queries, place, start_tokens
from engramlab.corpora.cloze import Cloze
from engramlab.measuring.candidates import By, Choices, choose_by
from engramlab.measuring.scoring import score

Masked = Literal["raw", "pll", "answer"]
Score = Literal["raw", "pll", "answer", "sum", "mean", "character", "prior"]
MASKED: tuple[str, ...] = get_args(Masked)
CAUSAL: tuple[str, ...] = get_args(By)
#: What a model can be trained by: a row an option.
TRAINED = {"raw", "answer", "sum", "mean"}


def fitting(model: nn.Module) -> tuple[str, ...]:
    """The scores that there are for this model."""
    return CAUSAL if mask_token(model) is None else MASKED


def score_options(
    model: nn.Module,
    tokenizer: Any,
    clozes: Sequence[Cloze],
    options: Sequence[Sequence[str]],
    by: Sequence[str],
    *,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> dict[str, tuple[Choices, int]]:
    """By score, every cloze's options, and how many rows the model read for that: one an option, and for ``pll`` one a token.

    The scores of a causal model come from one reading. An option that is there twice has its score twice, and ties with itself.

    Raises:
        UserError: a score that is not for this model, or a text that does not fit it.
    """
    if wrong := [one for one in by if one not in fitting(model)]:
        raise UserError(f"score {wrong[0]!r} is not for this model; choose of {', '.join(fitting(model))}")
    different = [list(dict.fromkeys(option.strip() for option in listed)) for listed in options]
    found: dict[str, tuple[Choices, int]] = {}
    if mask_token(model) is None:
        contexts, behind = _continued(tokenizer, clozes, different)
        alone = len({text for listed in behind for text in listed})
        chosen = choose_by(model, tokenizer, contexts, behind, cast(Sequence[By], by), budget=budget, progress=progress)
        found = {one: (made, len(made.scores) + alone * (one == "prior")) for one, made in chosen.items()}
    for one in () if found else by:
        rows, owner = masked_rows(tokenizer, clozes, different, cast(Masked, one))
        tokens = np.bincount(owner, np.add.reduceat((rows.marks > 0).astype(np.int64), rows.offsets[:-1]))
        if one == "raw":
            total = _values(model, rows, one, budget, progress)
        else:
            total = np.bincount(owner, score(model, rows, budget=budget, progress=progress).sum_logprob())
        found[one] = Choices(total, _offsets(different), tokens.astype(np.int64)), len(rows)
    begin = _offsets(different)[:-1]
    at = np.array(
        [
            start + kept.index(option.strip())
            for start, listed, kept in zip(begin, options, different, strict=True)
            for option in listed
        ]
    )
    return {
        one: (Choices(made.scores[at], _offsets(options), made.tokens[at]), rows) for one, (made, rows) in found.items()
    }


def _offsets(options: Sequence[Sequence[str]]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(listed) for listed in options])]).astype(np.int64)


def _continued(
    tokenizer: Any, clozes: Sequence[Cloze], options: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Each cloze as a context, and what goes on from it: the option and what stands behind the gap, but for a last stop."""
    first = "" if start_tokens(tokenizer) else tokenizer.bos_token or tokenizer.eos_token or "\n"
    contexts, behind = [], []
    for cloze, listed in zip(clozes, options, strict=True):
        contexts.append(cloze.before.rstrip(" ") or first)
        texts = []
        for option in listed:
            text, start, stop = cloze.filled(option)
            end = len(text) if cloze.after.strip(" .!?") else stop
            texts.append(cut(text, start, end)[1] if cloze.before.strip() else text[start:end])
        behind.append(texts)
    return contexts, behind


def masked_rows(
    tokenizer: Any, clozes: Sequence[Cloze], options: Sequence[Sequence[str]], by: Masked
) -> tuple[Sequences, np.ndarray]:
    """The rows that a masked model reads, marked where it is asked, and int64 ``[rows]``: the option that each belongs to."""
    texts = []
    for cloze, listed in zip(clozes, options, strict=True):
        for option in listed:
            text, start, stop = cloze.filled(option)
            texts.append((text, start, stop, start))
    rows: list[list[int]] = []
    marks: list[list[int]] = []
    owner: list[int] = []
    begin = start_tokens(tokenizer)
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    end = tokenizer("a")["input_ids"][len(begin) + len(bare) :]
    for number, (found, (text, *_)) in enumerate(zip(place(tokenizer, texts), texts, strict=True)):
        if found is None:
            raise UserError(f"{text!r}: its option has no token of its own; write another")
        length = len(found.ids)
        wanted = [range(found.first, found.last)] if by == "answer" else [range(length)]
        if by == "pll":
            wanted = [range(k, k + 1) for k in range(length)]
        for where in wanted:
            rows.append([*begin, *found.ids, *end])
            marks.append([0] * len(begin) + [int(k in where) for k in range(length)] + [0] * len(end))
            owner.append(number)
    return Sequences.of(rows, marks), np.array(owner)


def training_rows(
    model: nn.Module, tokenizer: Any, clozes: Sequence[Cloze], options: Sequence[Sequence[str]], by: str
) -> Sequences:
    """A row an option, as ``values`` takes them. Raises UserError for a text that does not fit the model."""
    if by in CAUSAL:
        contexts, behind = _continued(tokenizer, clozes, options)
        queries = [Query(one, text) for one, listed in zip(contexts, behind, strict=True) for text in listed]
        rows = encode_queries(tokenizer, queries).sequences
    else:
        rows, _ = masked_rows(tokenizer, clozes, options, cast(Masked, by))
    limit = context_limit(model)
    if limit and int(rows.lengths.max()) > limit:
        raise UserError(f"a statement has {int(rows.lengths.max())} tokens; the model's context is {limit}")
    return rows


def read_once(model: nn.Module, rows: Sequences, of: np.ndarray) -> list[Tree]:
    """What goes together in a pass of ``read``: of a causal model that takes branches a cloze's options, else row by row.

    Args:
        of: int64 ``[rows]``: the cloze that each row belongs to; equal ones are neighbours.
    """
    if mask_token(model) is None:
        found = trees(rows, of)
        if takes_branches(model, rows, found, greedy.Config()):
            return found
    return [Tree(np.array([row]), 0) for row in range(len(rows))]


def read(model: nn.Module, rows: Sequences, of: Sequence[Tree], by: str) -> torch.Tensor:
    """float32 ``[rows of the trees, one after another]``: their scores in one pass, with gradients; see ``values``."""
    numbers = np.concatenate([tree.rows for tree in of])
    if not any(tree.trunk for tree in of):
        return values(model, rows, numbers, by)
    found = sums(model, rows, of, greedy.Config())
    if by != "mean":
        return found
    counts = np.add.reduceat((rows.marks > 0).astype(np.int64), rows.offsets[:-1])[numbers]
    return found / torch.from_numpy(counts).to(found.device)


def values(model: nn.Module, rows: Sequences, numbers: np.ndarray, by: str) -> torch.Tensor:
    """float32 ``[numbers]``: the scores of some rows, with gradients: log-probability of the marked tokens together, their mean
    for ``mean``; for ``raw`` the mean of their own logits."""
    device = next(model.parameters()).device
    spans = [slice(rows.offsets[n], rows.offsets[n + 1]) for n in numbers]
    ids = pad_sequence([torch.from_numpy(rows.ids[s].astype(np.int64)) for s in spans], batch_first=True).to(device)
    goals = pad_sequence([torch.from_numpy(rows.marks[s] > 0) for s in spans], batch_first=True).to(device)
    hidden = mask_token(model)
    if hidden is None:
        logits = target_seen(model, ids[:, :-1], goals[:, 1:]).logits
    else:
        inside = torch.arange(ids.shape[1]) < torch.from_numpy(rows.lengths[numbers])[:, None]
        shown = ids if by == "raw" else ids.masked_fill(goals, hidden)
        logits = target_seen(model, shown, goals, inside.to(device)).logits
    logits = logits.float()
    own = logits.gather(-1, ids[goals][:, None])[:, 0]
    own = own if by == "raw" else own - logits.logsumexp(-1)
    total = torch.zeros(len(numbers), device=device).index_add(0, goals.nonzero()[:, 0], own)
    return total / goals.sum(1) if by in ("raw", "mean") else total


@torch.no_grad()
def _values(model: nn.Module, rows: Sequences, by: str, budget: int, progress: Progress | None) -> np.ndarray:
    """float64 ``[rows]``: ``values`` of all rows, in batches of like length."""
    limit = context_limit(model)
    if limit and int(rows.lengths.max()) > limit:
        raise UserError(f"a statement has {int(rows.lengths.max())} tokens; the model's context is {limit}")
    order = np.argsort(rows.lengths, kind="stable")[::-1]
    found = np.empty(len(rows))
    done = 0
    with mode(model, False):
        while done < len(order):
            part = order[done : done + max(1, budget // int(rows.lengths[order[done]]))]
            found[part] = values(model, rows, part, by).double().cpu().numpy()
            done += len(part)
            if progress:
                progress(done, len(order))
    return found
