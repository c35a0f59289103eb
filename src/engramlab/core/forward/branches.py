"""Rows that go apart, read as a tree: what many rows begin with once, and their ends side by side in one row.

A hundred options behind one question, behind fifty demonstrations that all questions share: the demonstrations are read once a
group, the question once, what several options begin with once, and no option's last token. All of it stands in one row under a
four-dimensional mask, in which a token sees those before it in its own rows, and positions go on as they would in a row alone.

Not every network takes such a mask (ALiBi, windows shorter than the row, attention of its own): ``takes_branches`` finds out by
comparing, once a call, one row read both ways.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from engramlab.base.progress import Progress
from engramlab.core.forward import prefixes
from engramlab.core.forward.decoding import Decoding
from engramlab.core.forward.passes import early_states, select_positions, shared_cache
from engramlab.core.text.tokens import Sequences

LONGEST = 768  # tokens of a row of ends: its mask grows with their square
_TRIED = 16  # tokens of a beginning that are looked at to see whether a network takes trees
_COPIES = 1 << 28  # bytes of keys and values copied for a batch


@dataclass(frozen=True)
class Tree:
    """Rows of one beginning, and the tokens behind it that are read: each row's up to its last one to be scored, which predicts
    nothing that is asked for.

    Attributes:
        rows: int64: which rows.
        trunk: how many tokens all of them begin with; none of them is to be scored.
        ids: the tokens behind the trunk, ``[nodes]``, those before a token before it.
        before: for each of them the token before it, as a number into ``ids``; -1 for the trunk's last.
        paths: for each row its tokens as numbers into ``ids``; of an option of one token there is none.
    """

    rows: np.ndarray
    trunk: int
    ids: Sequence[int] = ()
    before: Sequence[int] = ()
    paths: Sequence[Sequence[int]] = ()

    @property
    def tokens(self) -> int:
        """Tokens that are read."""
        return self.trunk + len(self.ids)

    def sees(self) -> np.ndarray:
        """bool ``[nodes, nodes]``: which tokens behind the trunk each of them follows, itself among them."""
        seen = np.eye(len(self.ids), dtype=bool)
        for node, before in enumerate(self.before):
            if before >= 0:
                seen[node] |= seen[before]
        return seen


def trees(sequences: Sequences, of: np.ndarray) -> list[Tree]:
    """The rows that belong together, with what they begin with; those with many ends are cut.

    Args:
        of: int64 ``[rows]``: what each row belongs to; equal ones are neighbours.
    """
    found = []
    stops = _stops(sequences)
    for rows in np.split(np.arange(len(sequences)), np.flatnonzero(np.diff(of)) + 1):
        trunk = _trunk(sequences, rows)
        ends = [sequences.row(row)[trunk : stops[row]].tolist() for row in rows]
        start = 0
        while start < len(rows):
            tree, start = _grown(rows, trunk, ends, start)
            found.append(tree)
    return found


def _grown(rows: np.ndarray, trunk: int, ends: Sequence[Sequence[int]], start: int) -> tuple[Tree, int]:
    """A tree of the rows from ``start`` on, as many as go into one, and the row that the next begins with."""
    ids: list[int] = []
    before: list[int] = []
    paths: list[list[int]] = []
    known: dict[tuple[int, int], int] = {}
    for end in ends[start:]:
        if paths and (len(ids) + len(end) > LONGEST or not trunk):
            break
        path = [-1]
        for token in end:
            node = known.setdefault((path[-1], token), len(ids))
            if node == len(ids):
                ids.append(token)
                before.append(path[-1])
            path.append(node)
        paths.append(path[1:])
    stop = start + len(paths)
    return Tree(rows[start:stop], trunk, ids, before, paths), stop


def _stops(sequences: Sequences) -> np.ndarray:
    """int64 ``[rows]``: where each row's last token to be scored stands; 0 where there is none."""
    stops = np.zeros(len(sequences), dtype=np.int64)
    scored = np.flatnonzero(sequences.marks > 0)
    of = np.searchsorted(sequences.offsets, scored, side="right") - 1
    np.maximum.at(stops, of, scored - sequences.offsets[of])
    return stops


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


def tokens_read(of: Sequence[Tree]) -> int:
    """How many tokens the trees have, each beginning counted once a tree."""
    return sum(tree.tokens for tree in of)


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
    device = next(model.parameters()).device
    cost = prefixes.a_pass(device)
    for chosen, shared in prefixes.groups(trunks, trunks.lengths, cost=cost):
        cache = None
        if shared:
            begin = torch.from_numpy(trunks.row(chosen[0])[:shared].astype(np.int64))[None]
            cache = shared_cache(model, begin.to(device), 1)
        for trees_now in _batches([of[i] for i in chosen], shared if cache is not None else 0, budget, cache, cost):
            tokens, values = _pass(model, sequences, trees_now, decoding, cache)
            found[into[tokens]] = values.cpu().numpy()
            done += sum(len(tree.rows) for tree in trees_now)
            if progress:
                progress(done, len(sequences))
    return found


def takes_branches(model: nn.Module, sequences: Sequences, of: Sequence[Tree], decoding: Decoding) -> bool:
    """Does this network read a tree as it reads its rows one by one?

    Tried on one tree, with the end of its beginning only: the last row, and long ones that stand elsewhere than they would
    alone, are read by themselves too. The others tell nothing.
    """
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    windows = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    if any(window and int(sequences.lengths.max()) > window for window in windows):
        return False
    several = [tree for tree in of if tree.trunk and len(tree.rows) > 1]
    if not several or not {"position_ids", "attention_mask"} <= set(inspect.signature(model.forward).parameters):
        return False
    tree = max(several, key=lambda tree: max(map(len, _moved(tree)), default=0))
    cut = max(0, tree.trunk - _TRIED)
    rows = [sequences.row(row)[cut:].tolist() for row in tree.rows]
    marks = [sequences.marks[sequences.offsets[r] + cut : sequences.offsets[r + 1]].tolist() for r in tree.rows]
    short = Sequences.of(rows, marks)
    longest = sorted(_moved(tree), key=len)[-2:]
    tried = sorted({len(rows) - 1, *(row for row, path in enumerate(tree.paths) if path in longest)})[-4:]
    try:
        with torch.inference_mode():
            whole = replace(tree, rows=np.arange(len(rows)), trunk=tree.trunk - cut)
            at, together = _pass(model, short, [whole], decoding, None)
            known = dict(_valued(at, together))
            apart = [value - known[i] for row in tried for i, value in _valued(*_plain(model, short, row, decoding))]
    except Exception:  # a network that takes no such mask says so in its own words
        return False
    exact = next(model.parameters()).dtype == torch.float32
    return bool(np.abs(apart).max() < (2e-3 if exact else 0.2))


def _moved(tree: Tree) -> list[Sequence[int]]:
    """The rows' ends that do not follow their beginning at once."""
    return [path for path in tree.paths if list(path) != list(range(len(path)))]


def _batches(of: Sequence[Tree], shared: int, budget: int, cache: Any, cost: int) -> Iterator[list[Tree]]:
    """Trees that are read together, longest first."""
    queue = sorted(of, key=lambda tree: -tree.tokens)
    most = len(queue)
    if cache is not None:
        copied = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
        most = max(1, _COPIES // max(copied, 1))
    start = 0
    while start < len(queue):
        stop = start + min(most, max(1, budget // (queue[start].tokens - shared)))
        stop = start + prefixes.even(np.array([tree.tokens for tree in queue[start:stop]]), cost)
        yield queue[start:stop]
        start = stop


def laid(
    begins: Sequence[Sequence[int] | np.ndarray],
    ends: Sequence[Sequence[int] | np.ndarray],
    sees: Sequence[np.ndarray],
    shared: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Trees side by side, each in a row: its beginning, and the tokens of its ends behind it.

    Args:
        begins: of each tree the tokens that all its rows begin with, behind those of the cache.
        ends: of each tree the other tokens, each behind the one before it.
        sees: of each tree which of the ends' tokens each of them follows, itself among them: bool ``[n, n]``.
        shared: how many tokens the cache holds, which all see.

    Returns:
        int64 ``[B, T]`` ids and positions, and the mask ``[B, 1, T, shared + T]`` that is added to attention's scores.
    """
    width = max(len(begin) + len(end) for begin, end in zip(begins, ends, strict=True))
    ids = np.zeros((len(begins), width), dtype=np.int64)
    places = np.zeros_like(ids)
    allowed = np.broadcast_to(np.eye(width, dtype=bool), (len(begins), width, width)).copy()  # padding: itself
    for r, (begin, end, over) in enumerate(zip(begins, ends, sees, strict=True)):
        trunk, stop = len(begin), len(begin) + len(end)
        ids[r, :trunk], ids[r, trunk:stop] = begin, end
        places[r, :trunk], places[r, trunk:stop] = shared + np.arange(trunk), shared + trunk + over.sum(1) - 1
        allowed[r, :trunk, :trunk] = np.tri(trunk, dtype=bool)
        allowed[r, trunk:stop, :trunk], allowed[r, trunk:stop, trunk:stop] = True, over
    if shared:
        allowed = np.concatenate([np.ones((len(begins), width, shared), dtype=bool), allowed], axis=2)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    mask = mask.masked_fill(~torch.from_numpy(allowed).to(device), torch.finfo(dtype).min)[:, None]
    return torch.from_numpy(ids).to(device), torch.from_numpy(places).to(device), mask


def _pass(
    model: nn.Module, sequences: Sequences, of: Sequence[Tree], decoding: Decoding, cache: Any
) -> tuple[np.ndarray, torch.Tensor]:
    """Where the trees' scored tokens stand in ``sequences.ids``, and the log-probability of each."""
    shared = 0 if cache is None else cache.get_seq_length()
    begins = [sequences.row(tree.rows[0])[shared : tree.trunk] for tree in of]
    targets, sources, rows = [], [], []  # in sequences.ids; which place of which tree predicts them
    for r, tree in enumerate(of):
        for row, path in zip(tree.rows, tree.paths, strict=True):
            first = sequences.offsets[row] + tree.trunk
            wanted = np.flatnonzero(sequences.marks[first : sequences.offsets[row + 1]] > 0)
            targets.append(first + wanted)
            sources.append(len(begins[r]) + np.array([-1, *path])[wanted])
            rows.append(np.full(len(wanted), r))
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    ids, places, seen = laid(begins, [tree.ids for tree in of], [tree.sees() for tree in of], shared, dtype, device)
    width = ids.shape[1]
    target, source = np.concatenate(targets), np.concatenate(rows) * width + np.concatenate(sources)
    looked, which = np.unique(source, return_inverse=True)
    keep = np.zeros(len(of) * width, dtype=bool)
    keep[looked] = True
    past = None
    if cache is not None:
        past = copy.deepcopy(cache)
        past.batch_repeat_interleave(len(of))
    kept = torch.from_numpy(keep.reshape(len(of), width)).to(device)
    bare: Any = getattr(model, "module", model)
    with select_positions(bare, kept), early_states(bare, decoding, kept) as apart:
        out = model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=places,
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
