"""WISE: a side copy of one down-projection, trained on random shards of its weights and used for prompts that it answers very
differently from the main one (arXiv 2405.14768)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from engramlab.base.facts import Edit
from engramlab.base.options import check_rules, meant
from engramlab.core.deltas import Delta, Modifier, OwnRows, Route, fingerprint
from engramlab.core.models.geometry import down_projection, layer_at, matrix_shape
from engramlab.core.training.losses import Loss
from engramlab.editing.keys.keyvalue import Search, prefixes
from engramlab.editing.method import Cases, Made, Watch, failed, recipe
from engramlab.editing.requests import encode_edits
from engramlab.editing.routed.codebook import at_ends
from engramlab.editing.routed.learning import TrainedRows, continued, read_everywhere, standing_in, train_routed

TAKES_LOSS, NEEDS_SUBJECT, TOGETHER, WATCHED = True, False, False, True
_IRRELEVANT = 15  # tokens of a text that must stay with the main memory


@dataclass(frozen=True)
class Config:
    """The paper's settings for LLaMA-2-7B (and the field's usual ones).

    The activation of a prompt is read at its last token, in training as afterwards, so that scoring and writing route alike.
    """

    layer: int | None = None
    """Layer whose MLP down-projection gets side memories; None for the one at 27/32 of the depth."""
    steps: int = 70
    """Steps an edit, at most."""
    learning_rate: float = 1.0
    """Of stochastic gradient descent."""
    mask_ratio: float = 0.2
    """Share of the weights that one shard may change (rho)."""
    norm_constraint: float = 1.0
    """No weight of a side memory is further than this from the main one's."""
    alpha: float = 5.0
    """Largest activation of an irrelevant text."""
    beta: float = 20.0
    """Smallest activation of an edit's prompt."""
    gamma: float = 10.0
    """Smallest distance between the two."""
    act_ratio: float = 0.88
    """A side memory is used above this share of the smallest activation among its edits' prompts."""
    context_lengths: tuple[tuple[int, int], ...] = ((5, 5), (10, 5))
    """Texts that the model writes itself, put before the prompt: (tokens, how many)."""
    irrelevant: int = 10
    """Texts that the model writes itself, which must stay with the main memory (the paper takes one a prompt from a corpus)."""
    save_freq: int = 500
    """Edits in one shard; then the next begins, on other random weights."""
    merge_freq: int = 1000
    """Edits after which the shards are merged into one memory."""
    density: float = 0.53
    """Share of each shard's changes, the largest, that the merger keeps (TIES, arXiv 2306.01708)."""
    weight: float = 1.0
    """Weight of all merged shards together."""
    variant: Literal["merge", "retrieve"] = "merge"
    """What becomes of merged memories: merged again with the next shards, or kept, and the most activated one answers."""
    stop_below: float = 0.02
    """An edit is done when its whole loss is at most this and has moved by no more than 1e-4."""
    at_once: int = 8
    """Cases trained in one batch, each with a matrix of its own; changes memory and speed, not results."""
    seed: int = 0
    """Of the shards and of the texts that the model writes."""
    cache: str | None = None
    """Folder that keeps those texts; None for $ENGRAMLAB_CACHE or ~/.cache/engramlab."""

    def __post_init__(self) -> None:
        meant(self)
        counts = ("steps", "irrelevant", "save_freq", "merge_freq", "at_once")
        check_rules(
            self,
            [(name, getattr(self, name) >= 1, "at least 1") for name in counts]
            + [(name, getattr(self, name) > 0, "above 0") for name in ("learning_rate", "norm_constraint", "weight")]
            + [(name, 0 < getattr(self, name) <= 1, "above 0 and at most 1") for name in ("mask_ratio", "density")]
            + [(name, getattr(self, name) >= 0, "at least 0") for name in ("alpha", "beta", "gamma", "act_ratio")]
            + [
                ("merge_freq", self.merge_freq % self.save_freq == 0, f"a multiple of save_freq ({self.save_freq})"),
                ("variant", self.variant in ("merge", "retrieve"), "merge or retrieve"),
                (
                    "context_lengths",
                    all(a >= 1 and b >= 1 for a, b in self.context_lengths),
                    "pairs of numbers, each at least 1",
                ),
            ],
        )


@dataclass(eq=False)
class WiseDelta(Delta):
    """Side memories of the down-projection at ``path``, as what they add to the main one.

    Attributes:
        updates: float32 ``[memories, out, in]``: merged ones first, then the shards since the last merger.
        merged: how many are merged.
        keys: float32 ``[edits, in]``: what the module reads at the end of each edit's prompt.
        memory: int64 ``[edits]``: the memory that holds each edit.
        act_ratio: see ``Config.act_ratio``.
    """

    kind: ClassVar[str] = "wise"
    routed: ClassVar[bool] = True

    model: str
    path: str
    updates: torch.Tensor
    merged: int
    keys: torch.Tensor
    memory: torch.Tensor
    act_ratio: float
    continues: Delta | None = None

    def thresholds(self) -> torch.Tensor:
        """float32 ``[memories]``: activations above which each is used: a share of the smallest of its edits'."""
        own = torch.stack([activation(self.keys[self.memory == m], u).min() for m, u in enumerate(self.updates)])
        return own * self.act_ratio

    def modifiers(self, model: nn.Module) -> dict[str, Modifier]:
        if not len(self.updates):
            return {}
        device = next(model.get_submodule(self.path).parameters()).device
        updates, least = self.updates.to(device), self.thresholds().to(device)

        def choose(read: torch.Tensor) -> torch.Tensor:
            found = torch.stack([activation(read, update) for update in updates], 1)
            best, memory = found.masked_fill(found <= least, -torch.inf).max(1)
            return torch.where(best.isfinite(), memory, -1)

        def modify(x: torch.Tensor, y: torch.Tensor, route: Route) -> torch.Tensor:
            chosen = route.decide((id(self), "memory"), lambda ends: choose(at_ends(x, ends)))
            out = y
            for memory in chosen.unique().tolist():
                if memory >= 0:
                    rows = (chosen == memory).nonzero().squeeze(1)
                    out = out.index_copy(0, rows, (y[rows] + x[rows].float() @ updates[memory].T).to(y.dtype))
            return out

        return {self.path: modify}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"updates": self.updates, "keys": self.keys, "memory": self.memory}

    def settings(self) -> dict[str, Any]:
        return {"path": self.path, "merged": self.merged, "act_ratio": self.act_ratio}

    @classmethod
    def restore(cls, model: str, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> WiseDelta:
        t, s = tensors, settings
        return cls(model, s["path"], t["updates"], s["merged"], t["keys"], t["memory"], s["act_ratio"])


def activation(read: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """How differently side and main memory answer: ``|A (W' - W)|``, ``[R]``, for inputs ``A[R, in]`` (section 2.3)."""
    return (read.float() @ update.T).norm(dim=-1)


def shard(shape: tuple[int, int], ratio: float, seed: int) -> torch.Tensor:
    """bool ``[out, in]``: the random weights that one shard may change."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < ratio


def ties(updates: torch.Tensor, weights: torch.Tensor, density: float) -> torch.Tensor:
    """TIES merger (arXiv 2306.01708) of ``updates[n, ...]`` with ``weights[n]``.

    Of each update only the largest ``density`` of all entries stay; each entry's sign is that of the weighted sum; the merged
    entry is the weighted mean of those that have this sign.
    """
    kept = []
    for update in updates:
        count = max(1, int(density * update.numel()))
        index = update.flatten().abs().topk(count).indices
        kept.append(torch.zeros_like(update).flatten().index_copy(0, index, update.flatten()[index]).view_as(update))
    stacked, share = torch.stack(kept), weights.view(-1, *[1] * (updates.dim() - 1)).to(updates)
    sign = torch.where((stacked * share).sum(0) >= 0, 1.0, -1.0)
    agree = (stacked.sign() == sign).to(updates)
    total = (share * agree).sum(0)
    return (stacked * share * agree).sum(0) / torch.where(total == 0, 1.0, total)


class _Side:
    """The side memories of one case while edits are added."""

    def __init__(self, older: WiseDelta | None, shape: tuple[int, int], device: torch.device, config: Config) -> None:
        self.config, self.shape, self.device = config, shape, device
        self.updates = list(older.updates.to(device)) if older else []
        self.merged = older.merged if older else 0
        self.keys = list(older.keys.to(device)) if older else []
        self.memory = older.memory.tolist() if older else []

    def open(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the next edit's shard holds, and the weights that may change, both ``[out, in]``."""
        count = len(self.memory)
        if count % self.config.save_freq == 0 or len(self.updates) == self.merged:
            self.updates.append(torch.zeros(self.shape, device=self.device))
        mask = shard(self.shape, self.config.mask_ratio, self.config.seed + count // self.config.save_freq)
        return self.updates[-1], mask.to(self.device)

    def close(self, update: torch.Tensor, key: torch.Tensor) -> None:
        """The edit is in the shard; merges where it is time."""
        self.updates[-1] = update
        self.keys.append(key.float())
        self.memory.append(len(self.updates) - 1)
        if len(self.memory) % self.config.merge_freq:
            return
        first = 0 if self.config.variant == "merge" else self.merged
        held = torch.tensor([self.memory.count(m) for m in range(first, len(self.updates))], dtype=torch.float32)
        weights = self.config.weight * held / held.sum()
        self.updates[first:] = [ties(torch.stack(self.updates[first:]), weights, self.config.density)]
        self.memory = [min(m, first) for m in self.memory]
        self.merged = first + 1


def edit_each(model: nn.Module, tokenizer: Any, cases: Cases, config: Config, loss: Loss, watch: Watch = None) -> Made:
    """Side memories of its own for each case; several cases are trained in one batch."""
    layer = layer_at(model, config.layer, 27 / 32)
    path, name = down_projection(model, layer), fingerprint(model)
    shape = out, into = matrix_shape(model, path)
    device = next(model.parameters()).device
    older: WiseDelta | None = continued(model, WiseDelta, path)
    before, others = (
        prefixes(model, tokenizer, Search(context_lengths=lengths, seed=config.seed, cache=config.cache))
        for lengths in (config.context_lengths, ((_IRRELEVANT, config.irrelevant),))
    )
    none = torch.zeros(0, out, into), 0, torch.zeros(0, into), torch.zeros(0, dtype=torch.int64), config.act_ratio
    empty = WiseDelta(name, path, *none, continues=older)
    with standing_in(model, empty):
        train = _Training(model, tokenizer, layer, path, before, config, loss, watch)
        train.apart = read_everywhere(model, tokenizer, path, others[1:])
        sides: list[_Side | None] = [_Side(older, shape, device, config) for _ in cases]
        for turn in range(max(map(len, cases))):
            going = [i for i, case in enumerate(cases) if turn < len(case) and sides[i] is not None]
            for at in range(0, len(going), config.at_once):
                some = going[at : at + config.at_once]
                train.one_each([cases[i][turn] for i in some], sides, some)
    return [
        failed(case)
        if side is None
        else WiseDelta(
            name,
            path,
            torch.stack(side.updates),
            side.merged,
            torch.stack(side.keys),
            torch.tensor(side.memory),
            config.act_ratio,
            continues=older,
        )
        for case, side in zip(cases, sides, strict=True)
    ]


@dataclass
class _Training:
    model: nn.Module
    tokenizer: Any
    layer: int
    path: str
    before: Sequence[str]
    config: Config
    loss: Loss
    watch: Watch
    apart: torch.Tensor | None = None  # [n, in]: what the module reads in irrelevant texts

    def one_each(self, edits: Sequence[Edit], sides: list[_Side | None], cases: Sequence[int]) -> None:
        """Trains one edit of each of these cases into its side memory; a side that fails becomes None."""
        device = next(self.model.parameters()).device
        requests = encode_edits(self.tokenizer, [[e] for e in edits], prefixes=self.before, device=device)
        chosen = [side for i in cases if (side := sides[i]) is not None]
        starts, masks = (torch.stack(parts) for parts in zip(*(side.open() for side in chosen), strict=True))
        parameter = nn.Parameter(starts.clone())
        apart = self.apart
        assert apart is not None
        bound, last = self.config.norm_constraint, torch.full((len(edits),), torch.inf, device=device)
        with TrainedRows(self.model, self.layer, self.path, requests) as rows:
            parameter.register_hook(lambda gradient: gradient * masks[rows.alive])
            keys = rows.read[:: len(self.before)]

            def change(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                mine = OwnRows(rows.requests.owner, len(rows.alive)).matmul(x.float(), parameter)
                return (y + mine).to(y.dtype)

            def over(losses: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
                parameter.clamp_(-bound, bound)
                still = (losses - last[rows.alive]).abs() <= 1e-4
                last[rows.alive] = losses
                return (still & (losses <= self.config.stop_below)) | idle

            def losses(step: int) -> torch.Tensor:
                lost = margins(self.config, parameter, rows.read, rows.requests.owner, apart)
                return rows.losses(self.loss, self.watch, step) + lost

            plan = recipe(self.config.steps, self.config.learning_rate, optimizer="sgd")
            values, bad = train_routed(rows, parameter, change, plan, losses, over)
        for i, side in enumerate(chosen):
            if i in bad:
                sides[cases[i]] = None
            else:
                side.close(values[i], keys[i])


def margins(
    config: Config, updates: torch.Tensor, read: torch.Tensor, owner: torch.Tensor, apart: torch.Tensor
) -> torch.Tensor:
    """The routing loss of each problem, ``[G]`` (section 2.3): edits far from the main memory, other texts near it.

    Args:
        updates: ``[G, out, in]``.
        read: ``[R, in]``: what the module reads at the end of each row's prompt; row ``r`` is of problem ``owner[r]``.
        apart: ``[n, in]``: what it reads in irrelevant texts.
    """
    inside = OwnRows(owner, len(updates)).matmul(read.float()[:, None], updates).squeeze(1).norm(dim=-1)
    outside = torch.bmm(updates, apart.float().T.expand(len(updates), -1, -1)).norm(dim=1)
    found = []
    for g, far in enumerate(outside):
        own = inside[owner == g]
        between = far[None, :] - own[:, None] + config.gamma
        found.append(_mean_positive(far - config.alpha) + _mean_positive(config.beta - own) + _mean_positive(between))
    return torch.stack(found)


def _mean_positive(violation: torch.Tensor) -> torch.Tensor:
    """Mean over the entries above zero; 0 where there are none."""
    above = violation.clamp(min=0)
    return above.sum() / (violation > 0).sum().clamp(min=1)
