"""Forward passes that compute no more than is asked: logits only at targets, and what rows share read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from engramlab.core.forward.decoding import DecoderLogits, Decoding
from engramlab.core.forward.hooks import mode, reading
from engramlab.core.models import module_paths
from engramlab.core.text.batches import IGNORE, Batch
from engramlab.core.text.packing import side_by_side

_PLAIN = Decoding()
_FEWEST = 16  # rows of a product: MKL takes longer for 9 than for 16


@contextmanager
def select_positions(model: nn.Module, keep: torch.Tensor) -> Iterator[None]:
    """Inside the block the model computes logits only at the positions where ``keep[B, T]`` is true.

    The hidden states entering the output embedding are gathered to ``[1, n, D]`` in row-major order, so that whatever the
    model does with its logits afterwards (scaling, soft caps) still happens; its ``logits`` come out as ``[1, n, V]``.
    The vocabulary projection is the largest matrix of a small model: a question has two targets in twenty tokens, and this
    skips the other eighteen.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]

    # By index and not by mask: its backward pass adds rows instead of scattering single values.
    index = keep.flatten().nonzero().squeeze(1)

    def gather(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if args[0].shape[:2] != keep.shape:
            raise IndexError(
                f"positions of shape {tuple(keep.shape)} do not fit {tuple(args[0].shape[:2])} hidden states"
            )
        hidden = args[0].flatten(0, 1)
        return ((hidden if len(index) == len(hidden) else hidden.index_select(0, index)).unsqueeze(0), *args[1:])

    with head.register_forward_pre_hook(gather):
        yield


def shared_cache(model: nn.Module, input_ids: torch.Tensor, rows: int) -> Any:
    """Keys and values of the tokens ``input_ids[1, S]`` for each of ``rows`` rows, read once; None if they cannot be so."""
    with select_positions(getattr(model, "module", model), torch.zeros_like(input_ids, dtype=torch.bool)):
        cache = model(input_ids=input_ids, use_cache=True).past_key_values
    if not hasattr(cache, "batch_repeat_interleave"):
        return None
    cache.batch_repeat_interleave(rows)
    return cache


@contextmanager
def early_states(model: nn.Module, decoding: Decoding, at: Any) -> Iterator[Callable[[torch.Tensor], DecoderLogits]]:
    """Inside the block the model's output embedding also meets the hidden states that ``decoding`` wants to see, all of them in
    one product: for few rows, reading the embedding is what a product costs.

    Args:
        at: index into hidden states ``[B, T, D]`` of the ``n`` places that are looked at.

    Yields:
        What takes the pass's ``logits`` apart.
    """
    bare: Any = getattr(model, "module", model)
    layers = decoding.layers(bare)
    padding = 0

    def apart(logits: torch.Tensor) -> DecoderLogits:
        logits = logits.flatten(0, -2)
        own, *early = logits[: len(logits) - padding].chunk(1 + len(layers))
        return DecoderLogits(own, dict(zip(layers, early, strict=True)))

    if not layers:
        yield apart
        return
    paths = module_paths(bare)
    norm = bare.get_submodule(paths.final_norm) if decoding.early_norm and paths.final_norm else nn.Identity()
    names = [f"{paths.layers}.{layer}" for layer in layers]

    def join(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        early = [norm(seen[name].read) for name in names]
        rows = args[0].flatten(0, 1)  # one a place, unless the model cannot leave out places that nobody looks at
        own = rows if len(rows) == len(early[0]) else args[0][:, -1]
        joined = torch.cat([own, *early])
        nonlocal padding
        padding = max(0, _FEWEST - len(joined)) if joined.device.type == "cpu" else 0
        return nn.functional.pad(joined, (0, 0, 0, padding))[None], *args[1:]

    with reading(bare, names, at) as seen, bare.get_output_embeddings().register_forward_pre_hook(join):
        yield apart


class _Given:
    """What a model's body puts out: hidden states, and no caches, attentions or router's choices."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, at: Any) -> Any:
        return (self.last_hidden_state,)[at]

    def __getattr__(self, name: str) -> None:
        return None


def output_logits(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Logits ``[n, V]`` of hidden states ``[n, D]`` behind the final norm: the output embedding, and whatever else the model
    does with its logits (Gemma's soft caps, Cohere's scale). No hook on the model itself acts."""
    bare: Any = getattr(model, "module", model)
    bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
    body = bare.get_submodule(module_paths(bare).layers.rpartition(".")[0])
    stubs = {id(m): m for m in (body, getattr(bare, getattr(bare, "base_model_prefix", ""), body))}.values()
    before = [(m, m.__dict__.get("forward")) for m in stubs]
    try:
        for m in stubs:
            m.forward = lambda *args, **kwargs: _Given(hidden[None])
        ids = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
        logits: torch.Tensor = bare.forward(input_ids=ids, use_cache=False).logits[0]
    finally:
        for m, own in before:
            m.__dict__.pop("forward")
            if own is not None:
                m.forward = own
    return logits


def target_seen(
    model: nn.Module,
    input_ids: torch.Tensor,
    keep: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    cache: Any = None,
    decoding: Decoding | None = None,
    positions: torch.Tensor | None = None,
) -> DecoderLogits:
    """What the model says at the ``n`` positions where ``keep[B, T]`` is true, in row-major order.

    ``model`` may be wrapped (for data parallelism or by an adapter); rows padded at the right need no attention mask, since
    a causal model never looks ahead. Where deltas on the model look at where prompts end, the caller says so around the call
    (``deltas.routing``).

    Args:
        cache: keys and values of what stands before ``input_ids`` in every row, see ``shared_cache`` (without gradients).
        decoding: what it wants to see of hidden states is there too.
        positions: int64 ``[B, T]``, where rows stand side by side (see ``text/packing``); by default each row counts from 0.
    """
    bare = getattr(model, "module", model)
    placed = {} if positions is None else {"position_ids": positions}
    with select_positions(bare, keep), early_states(bare, decoding or _PLAIN, keep) as apart:
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **placed,
        )
    return apart(output.logits)


@torch.no_grad()
def takes_beside(model: nn.Module, batch: Batch) -> bool:
    """Does this network read rows that stand side by side (see ``text/packing``) as it reads each alone? Tried on the batch's
    longest row and three shortest, by what it says at their ends.

    Networks whose attention knows no positions (ALiBi), or that carry a state from token to token, do not.
    """
    assert batch.inside is not None
    order = torch.argsort(batch.inside.sum(1), stable=True)
    few = torch.unique(torch.cat([order[:3], order[-1:]]))
    inside = batch.inside[few]
    ends = torch.full_like(batch.targets[few], IGNORE)
    ends[torch.arange(len(few), device=ends.device), inside.sum(1) - 1] = 0
    alone = Batch(batch.input_ids[few], ends, 0, batch.source[few.cpu().numpy()], inside)
    beside = side_by_side(alone, worth=1.0)
    if beside is None:
        return False
    keep, kept = alone.targets != IGNORE, beside.targets != IGNORE
    try:
        with mode(model, False):
            apart = target_seen(model, alone.input_ids, keep).logits.float()
            together = target_seen(model, beside.input_ids, kept, positions=beside.positions).logits.float()
    except Exception:  # a network that takes no positions says so in its own words
        return False
    rows = beside.places[kept] // keep.shape[1]  # one end a row, in the order of the rows
    exact = next(model.parameters()).dtype == torch.float32
    # Of what logits differ by: those of a network from scratch are all but alike.
    return bool((together - apart[rows]).abs().max() < (3e-4 if exact else 0.05) * apart.std())
