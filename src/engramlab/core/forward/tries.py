"""Which of these token sequences comes next? All of them at once, what several begin with read once.

Identifiers of documents, behind a question: four hundred of them are one row of a few hundred tokens, in which every node of
their tree sees the prompt, the nodes above it and itself. Scores are exact, so no search is needed; ``beam`` is for sets so
large that reading all of their tree costs too much.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError, quoted
from engramlab.base.progress import Progress
from engramlab.core.forward import branches
from engramlab.core.forward.branches import LONGEST
from engramlab.core.forward.decoding import greedy
from engramlab.core.forward.hooks import mode
from engramlab.core.forward.passes import select_positions, shared_cache, target_seen
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import Sequences


@dataclass(frozen=True)
class Trie:
    """Token sequences as a tree; a node comes behind the one above it.

    Attributes:
        names: of the sequences.
        tokens: int64 ``[nodes]``.
        above: int64 ``[nodes]``: the node above each; -1 where a sequence begins.
        depth: int64 ``[nodes]``: 0 where a sequence begins.
        leaves: int64 ``[sequences]``: the node each ends in.
    """

    __repr__ = brief

    names: tuple[str, ...]
    tokens: np.ndarray
    above: np.ndarray
    depth: np.ndarray
    leaves: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], names: Sequence[str], close: int | None = None) -> Trie:
        """The tree of some sequences.

        Args:
            close: a token put behind each, without which none may begin another.

        Raises:
            UserError: no sequence, one without tokens, two alike, or one that begins another and is not closed.
        """
        if not rows:
            raise UserError("identifiers: there are none; give at least one")
        tokens: list[int] = []
        above: list[int] = []
        depth: list[int] = []
        leaves = np.empty(len(rows), dtype=np.int64)
        order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
        path: list[int] = []  # nodes of the sequence before
        last = -1
        for i in order:
            row = [*rows[i], *([] if close is None else [close])]
            if not rows[i]:
                raise UserError(f"identifier {quoted(names[i])}: has no token; give it letters or digits")
            same = 0
            while same < min(len(row), len(path)) and tokens[path[same]] == row[same]:
                same += 1
            if path and same == len(path):
                if same == len(row):
                    raise UserError(
                        f"identifier {quoted(names[i])}: has the tokens of {quoted(names[last])}; give each its own"
                    )
                raise UserError(
                    f"identifier {quoted(names[last])} begins {quoted(names[i])}, and no closing token tells them apart: "
                    "close them, or rename one"
                )
            path = path[:same]
            for token in row[same:]:
                above.append(path[-1] if path else -1)
                depth.append(len(path))
                path.append(len(tokens))
                tokens.append(int(token))
            leaves[i], last = path[-1], i
        return cls(tuple(names), np.array(tokens), np.array(above), np.array(depth), leaves)

    @cached_property
    def children(self) -> np.ndarray:
        """int64 ``[nodes]``: how many nodes stand right below each."""
        return np.bincount(self.above[self.above >= 0], minlength=len(self.tokens))

    def read(self, constrained: bool) -> np.ndarray:
        """bool ``[nodes]``: what must be read to score all sequences: nodes above others, and of a constrained choice only
        those above one that is open."""
        needed = self.children > (1 if constrained else 0)
        for node in range(len(self.tokens) - 1, -1, -1):
            if needed[node] and self.above[node] >= 0:
                needed[self.above[node]] = True
        return needed

    def path(self, node: int) -> list[int]:
        """The nodes from the first down to this one."""
        found = []
        while node >= 0:
            found.append(node)
            node = int(self.above[node])
        return found[::-1]

    def sums(self, edges: np.ndarray) -> np.ndarray:
        """``[..., sequences]``: what stands at the nodes of each sequence (``edges[..., nodes]``) added up."""
        total = edges.copy()
        for level in range(1, int(self.depth.max()) + 1):
            nodes = np.flatnonzero(self.depth == level)
            total[..., nodes] += total[..., self.above[nodes]]
        found: np.ndarray = total[..., self.leaves]
        return found


def tokens_read(trie: Trie, prompt: int, constrained: bool = False) -> int:
    """How many tokens ``log_scores`` reads behind a prompt of so many."""
    return sum(prompt + len(part) for part in _parts(trie, trie.read(constrained)))


@torch.inference_mode()
def log_scores(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    trie: Trie,
    *,
    constrained: bool = False,
    budget: int = 16_384,
    progress: Progress | None = None,
) -> np.ndarray:
    """float64 ``[prompts, sequences]``: log-probability of every sequence behind every prompt, exactly.

    Args:
        prompts: token ids, start tokens included.
        constrained: every token is chosen among those the tree allows, so that the probabilities of all sequences add up to
            one. Otherwise they are the model's own, which leave room for what is no sequence.
        budget: most padded tokens a pass.
        progress: called with (prompts done, prompts in all).

    Raises:
        UserError: a prompt without tokens, or one that with its identifier does not fit the model's context.
    """
    _check_room(model, prompts, trie)
    edges = np.zeros((len(prompts), len(trie.tokens)))
    parts = list(_parts(trie, trie.read(constrained)))
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    with mode(model, False):
        as_tree = _takes(model, prompts[order[0]], trie) if prompts else False
        done = 0
        while done < len(order):
            longest = len(prompts[order[done]]) + max(map(len, parts))
            now = order[done : done + max(1, budget // longest)]
            rows = [list(prompts[i]) for i in now]
            for part in parts:
                below = np.flatnonzero(np.isin(trie.above, [-1, *part]))
                where = {-1: 0, **{int(node): k + 1 for k, node in enumerate(part)}}
                source = torch.tensor([where[node] for node in trie.above[below].tolist()])
                logits = (_tree if as_tree else _apart)(model, rows, trie, part)
                wanted = logits[:, source, torch.from_numpy(trie.tokens[below])].double()
                if constrained:
                    mass = torch.full((len(rows), len(part) + 1), -torch.inf, dtype=torch.float64, device=wanted.device)
                    mass = _logsumexp(wanted, source, mass)
                else:
                    mass = logits.logsumexp(-1).double()
                edges[np.ix_(np.array(now), below)] = (wanted - mass[:, source]).cpu().numpy()
            done += len(now)
            if progress:
                progress(done, len(order))
    return trie.sums(edges)


@torch.inference_mode()
def beam(model: nn.Module, prompt: Sequence[int], trie: Trie, width: int) -> list[tuple[int, float]]:
    """The likeliest sequences behind a prompt by beam search, best first, with their log-probabilities: (number, log p).

    The prompt is read once. Paths that leave the tree are no hypotheses at all, however few are left (transformers'
    constrained search keeps them at minus infinity). With ``width`` not below the number of sequences this is exact.
    """
    _check_room(model, [prompt], trie)
    ends = {int(leaf): i for i, leaf in enumerate(trie.leaves)}
    below: dict[int, list[int]] = {}
    for node, above in enumerate(trie.above.tolist()):
        below.setdefault(above, []).append(node)
    device = next(model.parameters()).device
    live: list[tuple[int, float]] = [(-1, 0.0)]
    done: list[tuple[int, float]] = []
    with mode(model, False):
        cache = shared_cache(model, torch.tensor([list(prompt[:-1])], device=device), 1) if len(prompt) > 1 else None
        while live:
            paths = [[prompt[-1], *(int(trie.tokens[n]) for n in trie.path(node))] for node, _ in live]
            past = copy.deepcopy(cache)
            if past is None:
                paths = [[*prompt[:-1], *path] for path in paths]
            else:
                past.batch_repeat_interleave(len(live))
            ids = torch.tensor(paths, device=device)
            keep = torch.zeros_like(ids, dtype=torch.bool)
            keep[:, -1] = True
            said = target_seen(model, ids, keep, cache=past).logits.float().log_softmax(-1).double()
            grown = [(n, p + float(said[r, trie.tokens[n]])) for r, (node, p) in enumerate(live) for n in below[node]]
            best = sorted([*grown, *done], key=lambda pair: -pair[1])[:width]
            done = [pair for pair in best if pair[0] in ends]
            live = [pair for pair in best if pair[0] not in ends]
    return [(ends[node], p) for node, p in done]


def _parts(trie: Trie, read: np.ndarray) -> Iterator[np.ndarray]:
    """The nodes that are read together: int64, each behind the one above it."""
    part: dict[int, None] = {}
    order = np.argsort(trie.leaves, kind="stable")
    for leaf in trie.leaves[order]:
        path = [node for node in trie.path(int(leaf)) if read[node]]
        if part and len(part) + sum(node not in part for node in path) > LONGEST:
            yield np.array([*part], dtype=np.int64)
            part = {}
        part |= dict.fromkeys(path)
    yield np.array([*part], dtype=np.int64)


def _check_room(model: nn.Module, prompts: Sequence[Sequence[int]], trie: Trie) -> None:
    limit, deep = context_limit(model), int(trie.depth.max()) + 1
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} has no tokens: something must stand before an identifier")
        if limit and len(prompt) + deep > limit:
            raise UserError(
                f"prompt {i} has {len(prompt)} tokens; with an identifier of {deep} it does not fit the model's context of "
                f"{limit}"
            )


def _takes(model: nn.Module, prompt: Sequence[int], trie: Trie) -> bool:
    """Does this network read a tree under a mask of four dimensions as it reads rows?"""
    some = [trie.tokens[trie.path(int(leaf))].tolist() for leaf in trie.leaves[:3]]
    rows = Sequences.of([[*prompt, *ids] for ids in some], [[0] * len(prompt) + [1] * len(ids) for ids in some])
    return branches.takes_branches(model, rows, branches.trees(rows, np.zeros(len(some))), greedy.Config())


def _tree(model: nn.Module, prompts: Sequence[Sequence[int]], trie: Trie, part: np.ndarray) -> torch.Tensor:
    """float32 ``[prompts, 1 + nodes, V]``: logits behind each prompt and behind each node of the part, in one row a prompt."""
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    nodes = len(part)
    where = {int(node): k for k, node in enumerate(part)}
    over = np.eye(nodes, dtype=bool)  # which nodes each sees
    for k, node in enumerate(part.tolist()):
        if (above := where.get(int(trie.above[node]))) is not None:
            over[k] |= over[above]
    ids, places, mask = branches.laid(
        prompts, [trie.tokens[part]] * len(prompts), [over] * len(prompts), 0, dtype, device
    )
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for r, prompt in enumerate(prompts):
        keep[r, len(prompt) - 1 : len(prompt) + nodes] = True
    with select_positions(model, keep):
        out = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False)
    logits: torch.Tensor = out.logits.float().reshape(len(prompts), 1 + nodes, -1)
    return logits


def _apart(model: nn.Module, prompts: Sequence[Sequence[int]], trie: Trie, part: np.ndarray) -> torch.Tensor:
    """``_tree`` for networks that take no such mask: a row for each path, its prompt's keys and values read once."""
    device = next(model.parameters()).device
    inner = set(trie.above[part].tolist())
    paths = [trie.path(int(node)) for node in part if node not in inner] or [[]]
    where = {int(node): k + 1 for k, node in enumerate(part)}
    width = max(map(len, paths)) + 1
    found = []
    for prompt in prompts:
        ids = torch.zeros(len(paths), width, dtype=torch.int64)
        keep = torch.zeros(len(paths), width, dtype=torch.bool)
        for r, path in enumerate(paths):
            ids[r, : len(path) + 1] = torch.tensor([prompt[-1], *trie.tokens[path]])
            keep[r, : len(path) + 1] = True
        cache = None
        if len(prompt) > 1:
            begin = torch.tensor([list(prompt[:-1])], device=device)
            cache = shared_cache(model, begin, len(paths))
            if cache is None:
                ids = torch.cat([begin.cpu().expand(len(paths), -1), ids], dim=1)
                keep = torch.cat([torch.zeros(len(paths), len(prompt) - 1, dtype=torch.bool), keep], dim=1)
        said = target_seen(model, ids.to(device), keep.to(device), cache=cache).logits.float()
        logits = said.new_empty(1 + len(part), said.shape[-1])
        logits[torch.tensor([k for path in paths for k in (0, *(where[node] for node in path))])] = said
        found.append(logits)
    return torch.stack(found)


def _logsumexp(values: torch.Tensor, groups: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """``[rows, groups]``: logsumexp of ``values [rows, n]`` over what is in each of the groups ``[n]``."""
    groups = groups.to(values.device).expand_as(values)
    top = empty.scatter_reduce(1, groups, values, "amax")
    top = torch.where(top.isfinite(), top, 0.0)
    parts = (values - top.gather(1, groups)).exp()
    return torch.zeros_like(top).scatter_add(1, groups, parts).log() + top
