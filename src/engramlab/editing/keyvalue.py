"""Keys, values and the search for new values: what ROME, MEMIT and AlphaEdit share.

All three read an MLP's down-projection ``W`` as a memory: its input at the last token of a subject is a *key* ``k``, its
output ``W k`` the *value*, what the model recalls of the subject (arXiv 2202.05262, section 3.1). An edit first searches the
change ``d`` of the value that makes the model say the target, then changes ``W`` so that the key yields it. The searches of
many edits are independent, so they run as one batch, each edit leaving it when its loss is low; layers below the edit and
positions before the subject's last token are computed once (``core/tails.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from engramlab.core import deltas
from engramlab.core.errors import UserError
from engramlab.core.facts import Edit, Query
from engramlab.core.hooks import frozen
from engramlab.core.losses import Loss
from engramlab.core.models import module_paths
from engramlab.core.random_access import key as stream_key
from engramlab.core.tails import Tail
from engramlab.core.training import TrainState, train
from engramlab.editing.method import down_projection, recipe
from engramlab.editing.requests import Requests, encode_edits
from engramlab.editing.statistics import TextSource, continuations, keep

#: How the texts before the prompt begin (as MEMIT's code has it), in turn.
_OPENINGS = ("The", "Therefore", "Because", "I", "You")


@dataclass(frozen=True)
class Search:
    """Settings of the value search and of the statistics; the methods' configurations add theirs.

    The defaults are those that the field's usual evaluations take for llama-2-7b.
    """

    steps: int = 25
    """Adam steps of the search at most."""
    learning_rate: float = 0.5
    """Of Adam."""
    weight_decay: float = 1e-3
    """Weight of |d|^2 / |v|^2 in the loss, d the change and v the value before it: free of the model's scale."""
    clamp: float = 4.0
    """Longest change d, in lengths of the value before it."""
    kl: float = 0.0625
    """Weight of KL(after || before) of the next token after "{subject} is a" (arXiv 2202.05262, equation 4)."""
    stop: float = 0.05
    """An edit's search ends when its whole loss is below this."""
    context_lengths: tuple[tuple[int, int], ...] = ((10, 5),)
    """Texts that the model writes itself, put before the prompt so that the edit holds in any context: (tokens, how many)."""
    at_once: int = 16
    """Edits searched in one batch; changes memory and speed, not results."""
    seed: int = 0
    """Of the contexts and of sampled text."""
    statistics_text: str = "sampled"
    """Text of the statistics: sampled (by the model itself), a .txt, .jsonl or .parquet file, or hub:owner/name."""
    statistics_tokens: int | None = None
    """Tokens of that text to read; None for 16 times the width of the MLP and at least 20,000."""
    cache: str | None = None
    """Folder that keeps statistics and contexts; None for $ENGRAMLAB_CACHE or ~/.cache/engramlab."""

    def __post_init__(self) -> None:
        rules = (
            ("steps", self.steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("clamp", self.clamp > 0, "above 0"),
            ("kl", self.kl >= 0, "at least 0"),
            (
                "context_lengths",
                all(min(pair) >= 1 for pair in self.context_lengths),
                "pairs (tokens, how many), each at least 1",
            ),
            ("at_once", self.at_once >= 1, "at least 1"),
        )
        for name, fine, rule in rules:
            if not fine:
                raise UserError(f"{name} must be {rule}, not {getattr(self, name)}")

    @property
    def source(self) -> TextSource:
        """The text of the statistics."""
        return TextSource(self.statistics_text, self.statistics_tokens, seed=self.seed, cache=self.cache)


def prefixes(model: nn.Module, tokenizer: Any, search: Search) -> tuple[str, ...]:
    """The contexts to put before a prompt: none first, then short texts by the model, each closed by a full stop.

    They are those of the unedited model and kept in the cache folder; where deltas are on the model and the cache has none,
    the edited model writes them, and they are not kept.
    """
    about = json.dumps([deltas.fingerprint(model), search.context_lengths, search.seed])
    name = f"contexts-{hashlib.blake2b(about.encode(), digest_size=10).hexdigest()}.json"
    path: Path = search.source.folder / name
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))["contexts"]
        if len(found) == sum(count for _, count in search.context_lengths) and all(
            isinstance(text, str) for text in found
        ):
            return ("", *found)
    texts: list[str] = []
    for length, count in search.context_lengths:
        openings = [_OPENINGS[i % len(_OPENINGS)] for i in range(count)]
        seeds = [stream_key(search.seed, "contexts", length, i) for i in range(count)]
        written = continuations(model, tokenizer, openings, seeds, max(1, length - 1))
        texts += [" ".join(text.split()) + "." for text in written]
    if not deltas.installed(model):
        keep(path, json.dumps({"of": about, "contexts": texts}, indent=2).encode())
    return ("", *texts)


@dataclass(frozen=True)
class Rows:
    """Token rows shifted so that the last tokens of their subjects stand in one column.

    Attributes:
        requests: what the rows are; positions there are before the shift.
        ids: int64 ``[R, T]``.
        mask: int64 ``[R, T]``, 0 for padding at the left; None where there is none.
        begin: the column of the subjects' last tokens.
        shift: int64 ``[R]``: by how many columns each row was moved.
    """

    requests: Requests
    ids: torch.Tensor
    mask: torch.Tensor | None
    begin: int
    shift: torch.Tensor

    @classmethod
    def of(cls, requests: Requests, *, whole: bool = True) -> Rows:
        """Rows of encoded edits; cut behind the subject unless ``whole``."""
        begin = int(requests.subject_ends.max())
        shift = begin - requests.subject_ends
        width = int((requests.lengths + shift).max()) if whole else begin + 1
        source = torch.arange(width, device=shift.device) - shift[:, None]
        there = (source >= 0) & (source < requests.lengths[:, None])
        ids = requests.ids.gather(1, source.clamp(0, requests.ids.shape[1] - 1)) * there
        return cls(requests, ids, (source >= 0).long() if bool(shift.any()) else None, begin, shift)

    def columns(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions ``[R]`` of the requests as columns counted from ``begin``."""
        return positions + self.shift - self.begin

    def kept(self) -> torch.Tensor:
        """bool ``[R, T - begin]``: where target tokens are predicted."""
        keep = self.ids.new_zeros(self.ids.shape, dtype=torch.bool)
        row, position = self.requests.keep.nonzero(as_tuple=True)
        keep[row, position + self.shift[row]] = True
        return keep[:, self.begin :]


def key_weights(count: int, *, grouped: bool, device: torch.device | None = None) -> torch.Tensor:
    """Weights ``[count]`` of a key's contexts, which average to one key: equal, or the bare prompt as much as all others."""
    weights = torch.ones(count, device=device)
    if grouped and count > 1:
        weights[0] = count - 1
    return weights / weights.sum()


@dataclass
class Seen:
    """What a layer did at the subject's last token, float32: rows in the order of the requests.

    Attributes:
        key: ``[R, d]`` input of the down-projection.
        value: ``[R, D]`` its output.
        output: ``[R, D]`` the layer's output.
    """

    key: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor


@contextlib.contextmanager
def watch(model: nn.Module, layer: int, position: int) -> Iterator[Seen]:
    """Inside the block the latest pass leaves there what ``layer`` read and said at ``position``."""
    empty = torch.zeros(0)
    seen = Seen(empty, empty, empty)

    def of_mlp(module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.key, seen.value = args[0][:, position].detach().float(), output[:, position].detach().float()

    def of_layer(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        seen.output = hidden[:, position].detach().float()

    handles = [
        model.get_submodule(down_projection(model, layer)).register_forward_hook(of_mlp),
        model.get_submodule(f"{module_paths(model).layers}.{layer}").register_forward_hook(of_layer),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Values:
    """What a search found, one row an edit, float32.

    Attributes:
        change: ``[B, D]``: what to add to the value (and so to the layer's output).
        keys: ``[B, P, d]``: the key behind each prefix.
        outputs: ``[B, D]``: the layer's output for the bare prompt, before the change.
        failed: bool ``[B]``: the loss or its gradient was not finite.
        steps: int64 ``[B]``: optimizer steps taken.
    """

    change: torch.Tensor
    keys: torch.Tensor
    outputs: torch.Tensor
    failed: torch.Tensor
    steps: torch.Tensor


def search_values(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    layer: int,
    contexts: Sequence[str],
    search: Search,
    loss: Loss,
    site: Literal["value", "output"],
) -> Values:
    """Searches the change of each edit's value at ``layer``, all edits independent of each other.

    Minimised is the loss of the target tokens, averaged over a row's tokens and over the rows (one a context), plus ``kl``
    times the divergence at the end of "{subject} is a", plus the weight decay (arXiv 2202.05262, equation 4).

    Args:
        contexts: what to put before the prompts; the first is "".
        site: whose length limits the change: the MLP's value (ROME) or the layer's output (MEMIT).

    Raises:
        UserError: a subject that is not in its prompt, a target without a token; names the edit.
    """
    device = next(model.parameters()).device
    requests = encode_edits(tokenizer, [[edit] for edit in edits], subjects=True)
    behind = requests.lengths - requests.subject_ends
    order = behind.argsort(stable=True)  # rows of a batch are padded to the longest
    parts = []
    for chunk in order.split(search.at_once):
        some = [edits[i] for i in chunk.tolist()]
        parts.append(_Searching(model, tokenizer, some, layer, contexts, search, loss, site, device).run())
    back = order.argsort()
    return Values(*(torch.cat(column)[back] for column in zip(*(vars(p).values() for p in parts), strict=True)))


def _essence(edit: Edit) -> Edit:
    """The prompt at whose end the model is to predict what it did (its target is a stand-in and never looked at)."""
    subject = edit.query.subject
    return replace(edit, query=Query(f"{subject} is a", "", subject=subject, id=edit.query.id), target="a")


class _Searching:
    """One batch of searches."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        edits: Sequence[Edit],
        layer: int,
        contexts: Sequence[str],
        search: Search,
        loss: Loss,
        site: str,
        device: torch.device,
    ) -> None:
        self.model, self.layer, self.search, self.loss = model, layer, search, loss
        rows = Rows.of(encode_edits(tokenizer, [[e] for e in edits], prefixes=contexts, subjects=True, device=device))
        with watch(model, layer, 0) as seen:
            self.tail = Tail(model, layer, rows.ids, rows.mask, rows.begin)
        self.requests, self.kept = rows.requests, rows.kept()
        bare = slice(None, None, len(contexts))
        self.keys = seen.key.view(len(edits), len(contexts), -1)
        self.outputs = seen.output[bare]
        self.length = (seen.value if site == "value" else seen.output)[bare].norm(dim=-1)
        essence = Rows.of(encode_edits(tokenizer, [[_essence(e)] for e in edits], subjects=True, device=device))
        self.essence = Tail(model, layer, essence.ids, essence.mask, essence.begin)
        ends = essence.columns(essence.requests.prompt_ends)
        self.essence_kept = essence.ids.new_zeros(len(edits), essence.ids.shape[1] - essence.begin, dtype=torch.bool)
        self.essence_kept[torch.arange(len(edits), device=device), ends] = True
        self.before: torch.Tensor | None = None
        self.change = nn.Parameter(torch.zeros_like(self.outputs))
        self.tried = self.change.detach()
        self.owner = self.requests.owner

    def loss_of_each(self) -> torch.Tensor:
        """``[B]``: the whole loss of every edit that is still searched."""
        self.tried = self.change.detach().clone()
        self.owner = self.requests.owner
        said = self.requests.mean(self.loss(self.tail.logits(self.kept), self.requests.targets))
        self.owner = torch.arange(len(self.change), device=self.change.device)
        now = self.essence.logits(self.essence_kept).float().log_softmax(-1)
        if self.before is None:
            self.before = now.detach()
        drift = (now.exp() * (now - self.before)).sum(-1)
        size = self.change.square().sum(-1) / self.length.square()
        return said + self.search.kl * drift + self.search.weight_decay * size

    def graft(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        """A forward hook of the down-projection: adds each row's change at the subject's last token."""
        there = (output[:, :1].float() + self.change[self.owner][:, None]).to(output.dtype)
        return torch.cat([there, output[:, 1:]], 1)

    def run(self) -> Values:
        search, count = self.search, len(self.change)
        found, steps = torch.zeros_like(self.outputs), torch.zeros(count, dtype=torch.int64)
        failed = torch.zeros(count, dtype=torch.bool)
        alive = torch.arange(count)
        state = TrainState(_holder(self.change), recipe(search.steps, search.learning_rate), local=True)
        handle = self.model.get_submodule(down_projection(self.model, self.layer)).register_forward_hook(self.graft)
        try:
            with frozen(self.model):
                for step in train(state, objective=self.loss_of_each):
                    assert step.losses is not None
                    done = step.losses.cpu() < search.stop
                    failed[alive[list(state.failed)]] = True
                    with torch.no_grad():
                        longest = search.clamp * self.length
                        self.change.mul_((longest / self.change.norm(dim=-1)).clamp(max=1.0)[:, None])
                        self.change.copy_(torch.where(done.to(self.change.device)[:, None], self.tried, self.change))
                    found[alive] = self.change.detach()
                    steps[alive] = step.number - done.long()
                    going = (~done & ~failed[alive]).nonzero().squeeze(1)
                    if not len(going):
                        break
                    if len(going) < len(alive):
                        alive = alive[going]
                        self.leave(state, going.to(self.change.device))
        finally:
            handle.remove()
        return Values(found, self.keys, self.outputs, failed, steps)

    def leave(self, state: TrainState, going: torch.Tensor) -> None:
        """Only these edits go on."""
        rows = torch.isin(self.requests.owner, going).nonzero().squeeze(1)
        self.tail, self.kept = _only(self.tail, rows), self.kept[rows]
        self.requests = self.requests.select(going)
        self.essence, self.essence_kept = _only(self.essence, going), self.essence_kept[going]
        self.length = self.length[going]
        if self.before is not None:
            self.before = self.before[going]
        state.keep_rows(going)


def _holder(parameter: nn.Parameter) -> nn.Module:
    holder = nn.Module()
    holder.register_parameter("change", parameter)
    return holder


def _only(tail: Tail, rows: torch.Tensor) -> Tail:
    """The tail of some of its rows."""
    import copy

    count = len(tail.entering)

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[rows] if value.dim() and len(value) == count and count > 1 else value
        return type(value)(cut(v) for v in value) if isinstance(value, (tuple, list)) else value

    chosen = copy.copy(tail)
    chosen.entering = tail.entering[rows]
    chosen.keys_values = [(keys[rows], values[rows]) for keys, values in tail.keys_values]
    chosen.calls = [(cut(args), {name: cut(v) for name, v in kwargs.items()}) for args, kwargs in tail.calls]
    return chosen
