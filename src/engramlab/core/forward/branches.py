"""Rows that go apart, read as a tree: what many rows begin with once, and their ends side by side in one row.

A hundred options behind one question, behind fifty demonstrations that all questions share: the demonstrations are read once a
group, the question once, and only the options' tokens are charged. The ends stand in one row under a four-dimensional mask, in
which an end sees its beginning and itself, and every end's positions go on from where its beginning stops.

Not every network takes such a mask (ALiBi, windows shorter than the row, attention of its own): ``takes_branches`` finds out by
comparing, once a call, one row read both ways.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.progress import Progress
from engramlab.core.forward import prefixes
from engramlab.core.forward.decoding import Decoding
from engramlab.core.forward.passes import early_states, select_positions, shared_cache
from engramlab.core.text.tokens import Sequences

_LONGEST = 768  # tokens of a row of ends: its mask grows with their square
_TRIED = 16  # tokens of a beginning that are looked at to see whether a network takes trees
_COPIES = 1 << 28  # bytes of keys and values copied for a batch


@dataclass(frozen=True)
class Tree:
    """Rows of one beginning.

    Attributes:
        rows: int64: which rows.
        trunk: how many tokens all of them begin with; none of them is to be scored.
    """

    rows: np.ndarray
    trunk: int


def trees(sequences: Sequences, of: np.ndarray) -> list[Tree]:
    """The rows that belong together, with what they begin with; those with many ends are cut.

    Args:
        of: int64 ``[rows]``: what each row belongs to; equal ones are neighbours.
    """
    found = []
    for rows in np.split(np.arange(len(sequences)), np.flatnonzero(np.diff(of)) + 1):
        trunk = _trunk(sequences, rows)
        parts: list[list[int]] = [[]]
        room = _LONGEST
        for row in rows:
            room -= int(sequences.lengths[row]) - trunk
            if parts[-1] and (room < 0 or not trunk):
                parts.append([])
                room = _LONGEST - (int(sequences.lengths[row]) - trunk)
            parts[-1].append(int(row))
        found += [Tree(np.array(part), trunk) for part in parts]
    return found


def _trunk(sequences: Sequences, rows: np.ndarray) -> int:
    """How many tokens all these rows begin with, none of them to be scored."""
    begin = sequences.row(rows[0])
    for row in rows:
        scored = sequences.marks[sequences.offsets[row] : sequences.offsets[row + 1]] > 0
        begin = begin[: int(np.argmax(scored)) if scored.any() else len(scored)]
        other = sequences.row(row)[: len(begin)]
        begin = begin[: len(other)]
        different = np.flatnonzero(begin != other)
        begin = begin[: int(different[0])] if len(different) else begin
    return len(begin)


def tokens_read(sequences: Sequences, of: Sequence[Tree]) -> int:
    """How many tokens the trees have, each beginning counted once a tree."""
    return sum(tree.trunk + int((sequences.lengths[tree.rows] - tree.trunk).sum()) for tree in of)


@torch.inference_mode()
def logprobs(
    model: nn.Module,
    sequences: Sequences,
    of: Sequence[Tree],
    decoding: Decoding,
    *,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> np.ndarray:
    """float32 ``[scored tokens]``: log-probability of each token with a positive mark, given those before it in its row.

    Args:
        of: from ``trees``, all rows.
        decoding: one that compares with no other context, and whose scores do not go by the text.
        budget: most padded tokens a pass.
        progress: called with (rows done, rows in all).
    """
    scored = sequences.marks > 0
    into = np.cumsum(scored) - 1
    found = np.empty(int(scored.sum()), dtype=np.float32)
    trunks = Sequences.of([sequences.row(tree.rows[0])[: tree.trunk].tolist() for tree in of])
    done = 0
    for chosen, shared in prefixes.groups(trunks, trunks.lengths):
        cache = None
        if shared:
            begin = torch.from_numpy(trunks.row(chosen[0])[:shared].astype(np.int64))[None]
            cache = shared_cache(model, begin.to(next(model.parameters()).device), 1)
        for trees_now in _batches(
            sequences, [of[i] for i in chosen], shared if cache is not None else 0, budget, cache
        ):
            tokens, values = _pass(model, sequences, trees_now, decoding, cache)
            found[into[tokens]] = values.cpu().numpy()
            done += sum(len(tree.rows) for tree in trees_now)
            if progress:
                progress(done, len(sequences))
    return found


def takes_branches(model: nn.Module, sequences: Sequences, of: Sequence[Tree], decoding: Decoding) -> bool:
    """Does this network read a tree as it reads its rows one by one?

    Tried on one tree, with the end of its beginning only: two long rows and the last one are read by themselves too. The first
    row stands where it would stand alone and tells nothing; nor does one of a single token, which the beginning predicts.
    """
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    windows = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    if any(window and int(sequences.lengths.max()) > window for window in windows):
        return False
    several = [tree for tree in of if tree.trunk and len(tree.rows) > 1]
    if not several or not {"position_ids", "attention_mask"} <= set(inspect.signature(model.forward).parameters):
        return False
    tree = max(several, key=lambda tree: int(sequences.lengths[tree.rows[1:]].max()) - tree.trunk)
    cut = max(0, tree.trunk - _TRIED)
    rows = [sequences.row(row)[cut:].tolist() for row in tree.rows]
    marks = [sequences.marks[sequences.offsets[r] + cut : sequences.offsets[r + 1]].tolist() for r in tree.rows]
    short = Sequences.of(rows, marks)
    every = np.arange(len(rows))
    tried = np.unique([*(1 + np.argsort([-len(row) for row in rows[1:]], kind="stable")[:2]), len(rows) - 1])
    try:
        with torch.inference_mode():
            at, together = _pass(model, short, [Tree(every, tree.trunk - cut)], decoding, None)
            known = dict(_valued(at, together))
            apart = [value - known[i] for row in tried for i, value in _valued(*_plain(model, short, row, decoding))]
    except Exception:  # a network that takes no such mask says so in its own words
        return False
    exact = next(model.parameters()).dtype == torch.float32
    return bool(np.abs(apart).max() < (2e-3 if exact else 0.2))


def _batches(sequences: Sequences, of: Sequence[Tree], shared: int, budget: int, cache: Any) -> Iterator[list[Tree]]:
    """Trees that are read together, longest first."""
    size = {id(t): t.trunk - shared + int((sequences.lengths[t.rows] - t.trunk).sum()) for t in of}
    queue = sorted(of, key=lambda tree: -size[id(tree)])
    most = len(queue)
    if cache is not None:
        copied = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
        most = max(1, _COPIES // max(copied, 1))
    start = 0
    while start < len(queue):
        stop = start + min(most, max(1, budget // size[id(queue[start])]))
        yield queue[start:stop]
        start = stop


def _pass(
    model: nn.Module, sequences: Sequences, of: Sequence[Tree], decoding: Decoding, cache: Any
) -> tuple[np.ndarray, torch.Tensor]:
    """Where the trees' scored tokens stand in ``sequences.ids``, and the log-probability of each."""
    shared = 0 if cache is None else cache.get_seq_length()
    width = max(t.trunk - shared + int((sequences.lengths[t.rows] - t.trunk).sum()) for t in of)
    ids = np.zeros((len(of), width), dtype=np.int64)
    places = np.zeros((len(of), width), dtype=np.int64)
    branch = np.full((len(of), width), -1)  # 0: the trunk; -1: padding
    targets, sources, rows = [], [], []  # in sequences.ids; which place of which tree predicts them
    for r, tree in enumerate(of):
        begin = sequences.row(tree.rows[0])[shared : tree.trunk]
        end = len(begin)
        ids[r, :end], places[r, :end], branch[r, :end] = begin, np.arange(shared, tree.trunk), 0
        for b, row in enumerate(tree.rows):
            tail = sequences.row(row)[tree.trunk :]
            at = sequences.offsets[row] + tree.trunk + np.arange(len(tail))
            into = end + np.arange(len(tail))
            ids[r, into], places[r, into], branch[r, into] = tail, tree.trunk + np.arange(len(tail)), b + 1
            wanted = sequences.marks[at] > 0
            targets.append(at[wanted])
            before = np.where(np.arange(len(tail)) > 0, into - 1, tree.trunk - shared - 1)
            sources.append(before[wanted])
            rows.append(np.full(int(wanted.sum()), r))
            end += len(tail)
    target, source = np.concatenate(targets), np.concatenate(rows) * width + np.concatenate(sources)
    looked, which = np.unique(source, return_inverse=True)
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    keep = np.zeros(len(of) * width, dtype=bool)
    keep[looked] = True
    mask = torch.from_numpy(branch).to(device)
    sees = (mask[:, None, :] == 0) | (mask[:, None, :] == mask[:, :, None])
    sees = sees.tril() & (mask[:, None, :] >= 0) | torch.eye(width, dtype=torch.bool, device=device)
    if shared:
        sees = torch.cat([sees.new_ones(len(of), width, shared), sees], dim=2)
    seen = torch.zeros(sees.shape, dtype=dtype, device=device).masked_fill(~sees, torch.finfo(dtype).min)[:, None]
    past = None
    if cache is not None:
        past = copy.deepcopy(cache)
        past.batch_repeat_interleave(len(of))
    kept = torch.from_numpy(keep.reshape(len(of), width)).to(device)
    bare: Any = getattr(model, "module", model)
    with select_positions(bare, kept), early_states(bare, decoding, kept) as apart:
        out = model(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=seen,
            position_ids=torch.from_numpy(places).to(device),
            past_key_values=past,
            use_cache=past is not None,
        )
    scores = decoding.scores(apart(out.logits)).float()
    return target, _chosen(decoding, scores, torch.from_numpy(which).to(device), sequences.ids[target])


def _plain(model: nn.Module, sequences: Sequences, row: int, decoding: Decoding) -> tuple[np.ndarray, torch.Tensor]:
    """``_pass`` of a single row, without a mask."""
    device = next(model.parameters()).device
    ids = sequences.row(row).astype(np.int64)
    wanted = np.flatnonzero(sequences.marks[sequences.offsets[row] : sequences.offsets[row + 1]] > 0)
    kept = torch.zeros(1, len(ids), dtype=torch.bool, device=device)
    kept[0, wanted - 1] = True
    bare: Any = getattr(model, "module", model)
    with select_positions(bare, kept), early_states(bare, decoding, kept) as apart:
        out = model(input_ids=torch.from_numpy(ids).to(device)[None])
    scores = decoding.scores(apart(out.logits)).float()
    at = sequences.offsets[row] + wanted
    return at, _chosen(decoding, scores, torch.arange(len(wanted), device=device), sequences.ids[at])


def _valued(at: np.ndarray, found: torch.Tensor) -> list[tuple[int, float]]:
    return list(zip(at.tolist(), found.tolist(), strict=True))


def _chosen(decoding: Decoding, scores: torch.Tensor, which: torch.Tensor, tokens: np.ndarray) -> torch.Tensor:
    """float32 ``[n]``: log-probability of each token under the row of ``scores [places, V]`` that ``which [n]`` names."""
    total = decoding.mass(scores)
    wanted = torch.from_numpy(tokens.astype(np.int64)).to(scores.device)
    return scores[which, wanted] - total[which]


def sums(model: nn.Module, sequences: Sequences, of: Sequence[Tree], decoding: Decoding) -> torch.Tensor:
    """float32 ``[rows of the trees, one after another]``: log-probability of each row's tokens with a positive mark together,
    in one pass and with gradients."""
    at, found = _pass(model, sequences, of, decoding, None)
    rows = np.concatenate([tree.rows for tree in of])
    place = np.zeros(len(sequences), dtype=np.int64)
    place[rows] = np.arange(len(rows))
    into = place[np.searchsorted(sequences.offsets, at, side="right") - 1]
    return torch.zeros(len(rows), device=found.device).index_add(0, torch.from_numpy(into).to(found.device), found)
