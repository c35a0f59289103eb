"""The search of new values: what change of a layer's value makes the model say the target.

The searches of many edits are independent, so they run as one batch, each edit leaving it when its loss is low; layers below
the edit and positions before the subject's last token are computed once (``core/forward/tails.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.facts import Edit, Query
from engramlab.core.forward.hooks import Graft, frozen, grafting, reading
from engramlab.core.forward.tails import Tail
from engramlab.core.models.geometry import down_projection, layer_path, weight_of
from engramlab.core.training.loop import TrainState
from engramlab.core.training.losses import Loss
from engramlab.core.training.problems import solve
from engramlab.editing.keys.context_noise import ContextNoise
from engramlab.editing.keys.keyvalue import AlignedRows, Search, anchored, mean_length, stacked, value_share
from engramlab.editing.method import recipe
from engramlab.editing.requests import encode_edits, spoken


@dataclass(frozen=True)
class Values:
    """What a search found, one row a group of edits, float32.

    Attributes:
        change: ``[B, D]``: what to add to the value (and so to the layer's output).
        keys: ``[B, P, d]``: the key behind each prefix, wording after wording; zeros behind a group's last.
        rows: int64 ``[B]``: how many those are.
        outputs: ``[B, D]``: the layer's output for the bare prompt, before the change.
        failed: bool ``[B]``: the loss or its gradient was not finite.
        idle: bool ``[B]``: no change was better than none, though there was something to learn.
        steps: int64 ``[B]``: optimizer steps taken.
    """

    __repr__ = brief

    change: torch.Tensor
    keys: torch.Tensor
    rows: torch.Tensor
    outputs: torch.Tensor
    failed: torch.Tensor
    idle: torch.Tensor
    steps: torch.Tensor

    def why_not(self, i: int) -> str | None:
        """Why a group's edits could not be made; None where there is a change."""
        if self.failed[i]:
            return "the loss or its gradient became non-finite"
        return "the search found no change of the value that is better than none" if self.idle[i] else None


def search_values(
    model: nn.Module,
    tokenizer: Any,
    groups: Sequence[Sequence[Edit]],
    layer: int,
    contexts: Sequence[str],
    search: Search,
    loss: Loss,
    site: Literal["value", "output"],
) -> Values:
    """Searches the change of each group's value at ``layer``, all groups independent of each other; the best one met counts.

    Minimised is the loss of the target tokens, averaged over a row's tokens and over the rows (one an edit, wording and
    context: the wordings of an edit share one value), plus
    ``kl`` times the divergence of what follows "{subject} is a", plus a penalty on the change's length; see
    ``Search.objective``. With ``Search.noise`` the rows of all contexts but the first are noisy, while the loss that chooses
    the best change, and that ends a search, is that of the first ones alone.

    Args:
        groups: edits that share a key (``requests.sharing``), mostly one; a key has one value, which must serve them all.
        contexts: what to put before the prompts (``keyvalue.prefixes``); the first is "".
        site: whose length limits the change: the MLP's value (ROME) or the layer's output (MEMIT).

    Raises:
        UserError: a subject that is not in its prompt, a target without a token; names the edit.
    """
    requests = encode_edits(tokenizer, groups, subjects=True)
    longest = torch.zeros(len(groups), dtype=torch.int64)
    behind = longest.scatter_reduce(0, requests.owner, requests.lengths - requests.subject_ends, "amax")
    order = behind.argsort(stable=True)
    parts = []
    noise = ContextNoise.of(model, tokenizer, layer, search)
    rows = len(contexts) * max(map(_prompts, groups)) + 1
    widest = len(contexts) * max(len(spoken(edits[0])) for edits in groups)
    for chunk in order.split(_batch_sizes(behind[order].tolist(), rows, search.at_once)):
        some = [groups[i] for i in chunk.tolist()]
        parts.append(_Searching(model, tokenizer, some, layer, contexts, search, loss, site, noise, widest).run())
    back = order.argsort()
    return Values(*(torch.cat(column)[back] for column in zip(*(vars(p).values() for p in parts), strict=True)))


def _prompts(edits: Sequence[Edit]) -> int:
    """How many prompts some edits have in all their wordings."""
    return sum(len(spoken(edit)) for edit in edits)


def _batch_sizes(lengths: Sequence[int], rows: int, most: int) -> list[int]:
    """How many of the edits, shortest first, to take at a time, so that the least is computed.

    The rows of a batch are padded to its longest, but a small batch reads all weights for a few tokens; that costs about as
    much as the arithmetic of 64.

    Args:
        lengths: positions that each edit's rows need, ascending.
        rows: rows an edit.
        most: largest batch.
    """
    cost, cut = [0.0], [0]
    for end, length in enumerate(lengths, 1):
        choices = [
            (cost[start] + 64 + rows * (end - start) * length, start) for start in range(max(0, end - most), end)
        ]
        best, start = min(choices)
        cost.append(best)
        cut.append(start)
    sizes, end = [], len(lengths)
    while end:
        sizes.append(end - cut[end])
        end = cut[end]
    return sizes[::-1]


def _essence(edit: Edit) -> Edit:
    """The prompt after which the model is to predict what it did (its target is a stand-in and never looked at)."""
    subject = edit.query.subject
    about = Query(f"{subject} is a", "", subject=subject, id=edit.query.id)
    return replace(edit, query=about, target="a", stop="", wordings=())


@dataclass
class _Searching:
    """One batch of searches."""

    model: nn.Module
    tokenizer: Any
    groups: Sequence[Sequence[Edit]]
    layer: int
    contexts: Sequence[str]
    search: Search
    loss: Loss
    site: Literal["value", "output"]
    noise: ContextNoise | None = None
    widest: int = 0  # rows of keys that another batch of the same search has

    def __post_init__(self) -> None:
        model, tokenizer, groups, layer, contexts = self.model, self.tokenizer, self.groups, self.layer, self.contexts
        device = next(model.parameters()).device
        rows = AlignedRows.of(encode_edits(tokenizer, groups, prefixes=contexts, subjects=True, device=device))
        about = [[_essence(edits[0])] for edits in groups]
        essence = AlignedRows.of(
            encode_edits(tokenizer, about, subjects=True, device=device), whole=self.search.objective == "paper"
        )
        # In one pass with the others: for a few rows alone, reading the weights is what a pass costs.
        ids, mask, begin = stacked(rows, essence)
        self.path, whole = down_projection(model, layer), layer_path(model, layer)
        with reading(model, (self.path, whole), (slice(None), 0)) as seen:
            self.tail = Tail(model, layer, ids, mask, begin)
        self.requests = rows.requests
        self.owner = torch.cat([rows.requests.owner, essence.requests.owner])
        self.kept = ids.new_zeros(len(ids), ids.shape[1] - begin, dtype=torch.bool)
        self.kept[: len(rows.ids), : rows.ids.shape[1] - rows.begin] = rows.kept()
        ends = essence.requests.prompt_ends if self.search.objective == "paper" else essence.requests.subject_ends
        self.kept[torch.arange(len(rows.ids), len(ids), device=device), essence.columns(ends)] = True
        # The rows of a group's first edit speak for all of them: up to the subject's end they are the same.
        first = torch.tensor([0, *map(_prompts, groups)][:-1], device=device).cumsum(0) * len(contexts)
        self.rows = torch.tensor([len(spoken(edits[0])) for edits in groups], device=device) * len(contexts)
        behind = torch.arange(max(self.widest, int(self.rows.max())), device=device)
        there = behind < self.rows[:, None]
        self.keys = seen[self.path].read.float()[torch.where(there, first[:, None] + behind, 0)]
        self.keys = torch.where(there[..., None], self.keys, 0.0)
        if self.noise is not None:
            self.keys += self._noise_of_keys(self.noise)
        self.outputs = seen[whole].said.float()[first]
        self.site_values = (seen[self.path] if self.site == "value" else seen[whole]).said.float()[first]
        self.length = self.site_values.norm(dim=-1)
        self.before: torch.Tensor | None = None
        self.change = nn.Parameter(torch.zeros_like(self.outputs))
        plan = recipe(self.search.steps, self.search.learning_rate)
        self.state = TrainState(nn.ParameterList([self.change]), plan, local=True)
        self.alive = torch.arange(len(groups))  # numbers of the groups in the batch
        self.clean = torch.empty(0)  # the losses that choose
        self.tried = self.best = self.change.detach().clone()
        self.lowest = torch.full_like(self.length, torch.inf)
        self.moved = torch.zeros_like(self.length, dtype=torch.bool)

    def logits(self) -> torch.Tensor:
        """With the change of each row's owner added to the value at the subject's last token: where targets are predicted, and
        behind them one a group, after its "{subject} is a"."""

        def adding(*parts: torch.Tensor) -> Graft:
            def graft(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                there = y[:, :1].float()
                for part in parts:
                    there = there + part[:, None]
                return torch.cat([there.to(y.dtype), y[:, 1:]], 1)

            return graft

        noise = {} if self.noise is None else self._noise(self.noise)
        here = [noise.pop(self.path)] if self.path in noise else []
        grafts = {path: adding(drawn) for path, drawn in noise.items()}
        with grafting(self.model, grafts | {self.path: adding(self.change[self.owner], *here)}):
            return self.tail.logits(self.kept)

    def _noise_of_keys(self, noise: ContextNoise) -> torch.Tensor:
        """What is added to ``keys``, ``[B, P, d]``: nothing to the first of each wording."""
        found = torch.zeros_like(self.keys)
        count = len(self.contexts)
        for group, edits in enumerate(self.groups):
            for number, one in enumerate(spoken(edits[0])):
                drawn = noise.of_keys(one, self.layer, count - 1)
                found[group, number * count + 1 : (number + 1) * count] = drawn
        return found

    @torch.no_grad()
    def _noise(self, noise: ContextNoise) -> dict[str, torch.Tensor]:
        """By path of a down-projection, what the noise of its input adds to its output at the subject's last token, ``[R, D]``:
        nothing in the first row of an edit, nor in the one that tells what the subject is."""
        found, count = {}, len(self.contexts)
        for layer in noise.layers:
            path = down_projection(self.model, layer)
            drawn = []
            for edits in (self.groups[g] for g in self.alive.tolist()):
                one = noise.while_searching(edits[0], self.state.step, layer, count - 1)
                drawn += [torch.cat([torch.zeros_like(one[:1]), one])] * _prompts(edits)
            rows = torch.cat(drawn) @ weight_of(self.model.get_submodule(path)).float().T
            found[path] = torch.cat([rows, rows.new_zeros(len(self.alive), rows.shape[1])])
        return found

    def losses(self) -> torch.Tensor:
        """``[B]``: the whole loss of every edit that is still searched; without gradient where no step that counts follows."""
        self.tried = self.change.detach().clone()
        last = self.state.step + 1 == self.search.steps
        with torch.set_grad_enabled(not last):
            said, now = self.logits().split([len(self.requests.targets), len(self.change)])
            now = now.float().log_softmax(-1)
            if self.before is None:
                self.before = now.detach()
            drift = (now.exp() * (now - self.before)).sum(-1)
            size = self.change.norm(dim=-1) if self.search.objective == "code" else self.change.square().sum(-1)
            size = self.search.weight_decay * size / self.length.square()
            each, more = self.loss(said, self.requests.targets), self.search.kl * drift + size
            whole = self.requests.mean(each) + more
            self.clean = whole.detach()  # a graph kept alive would keep the change's old shape when edits leave
            if self.noise is not None:
                self.clean = (self.requests.mean(each, slice(0, None, len(self.contexts))) + more).detach()
        if last or bool((self.clean < self.search.stop).all()):
            return whole.detach() + 0 * self.change.sum(-1)
        return whole

    def over(self, losses: torch.Tensor, idle: torch.Tensor) -> torch.Tensor:
        """Keeps the best change met, and shortens what has become too long."""
        losses = losses if self.noise is None else self.clean  # or a lucky draw would win
        better = losses < self.lowest
        self.moved |= better & ((self.tried != 0).any(-1) | (losses < self.search.stop))
        self.lowest = torch.where(better, losses, self.lowest)
        self.best = torch.where(better[:, None], self.tried, self.best)
        longest = self.search.clamp * self.length
        self.change.mul_((longest / self.change.norm(dim=-1)).clamp(max=1.0)[:, None])
        return losses < self.search.stop

    def leave(self, left: torch.Tensor) -> None:
        """Only these edits go on."""
        rows = torch.isin(self.owner, left).nonzero().squeeze(1)
        self.tail, self.kept, self.alive = self.tail.only(rows), self.kept[rows], self.alive[left.cpu()]
        self.requests = self.requests.select(left)
        self.owner = torch.cat([self.requests.owner, torch.arange(len(left), device=left.device)])
        self.length, self.lowest, self.best = self.length[left], self.lowest[left], self.best[left]
        self.moved = self.moved[left]
        if self.before is not None:
            self.before = self.before[left]

    def within_anchor(self, change: torch.Tensor) -> torch.Tensor:
        """The changes ``[B, D]`` so that no value they lead to is longer than ``Search.norm_anchor`` has it."""
        if self.search.norm_anchor is None:
            return change
        share = (value_share(self.model, self.layer) if self.site == "output" else None) or 1.0
        length = mean_length(self.model, self.tokenizer, self.layer, self.site, self.search)
        wanted = self.site_values + share * change
        short = anchored(wanted, length, self.search.norm_anchor)
        return torch.where((short == wanted).all(-1, keepdim=True), change, (short - self.site_values) / share)

    def run(self) -> Values:
        count = len(self.change)
        found, steps = torch.zeros_like(self.outputs), torch.zeros(count, dtype=torch.int64)
        failed, idle = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
        with frozen(self.model):
            for end in solve(self.state, self.losses, self.over, self.leave, share=0.0):
                found[end.problem], steps[end.problem] = self.best[end.row], self.state.step
                failed[end.problem], idle[end.problem] = end.failed, not self.moved[end.row]
        return Values(self.within_anchor(found), self.keys, self.rows, self.outputs, failed, idle, steps)
