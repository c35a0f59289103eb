"""Forward passes that compute no more than is asked: logits only at targets, and what rows share read once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from engramlab.core import deltas
from engramlab.core.forward.decoding import Seen
from engramlab.core.models import module_paths


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

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def shared_cache(model: nn.Module, input_ids: torch.Tensor, rows: int, owner: torch.Tensor | None = None) -> Any:
    """Keys and values of the tokens ``input_ids[1, S]`` for each of ``rows`` rows, read once; None if they cannot be repeated.

    Args:
        owner: int64 ``[1]``: the delta (of ``deltas.together``) the tokens are read under.
    """
    bare = getattr(model, "module", model)
    ends = torch.full((1,), input_ids.shape[1] - 1, device=input_ids.device)
    nothing = torch.zeros_like(input_ids, dtype=torch.bool)
    with select_positions(bare, nothing), deltas.routing(bare, ends, owner):
        cache = model(input_ids=input_ids, use_cache=True).past_key_values
    if not hasattr(cache, "batch_repeat_interleave"):
        return None
    cache.batch_repeat_interleave(rows)
    return cache


def early_logits(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Logits ``[n, V]`` if the model's layers had ended with the hidden states ``[n, D]``: final norm, output embedding."""
    bare: Any = getattr(model, "module", model)
    normed = bare.get_submodule(module_paths(bare).final_norm)(hidden)
    logits: torch.Tensor = bare.get_output_embeddings()(normed)
    return logits


def target_logits(
    model: nn.Module,
    input_ids: torch.Tensor,
    keep: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    shared: int = 0,
    *,
    ends: torch.Tensor | None = None,
    owner: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits ``[n, V]`` at the ``n`` positions where ``keep[B, T]`` is true, in row-major order; see ``target_seen``."""
    return target_seen(model, input_ids, keep, attention_mask, shared, ends=ends, owner=owner).logits


def target_seen(
    model: nn.Module,
    input_ids: torch.Tensor,
    keep: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    shared: int = 0,
    *,
    layers: Sequence[int] = (),
    ends: torch.Tensor | None = None,
    owner: torch.Tensor | None = None,
) -> Seen:
    """What the model says at the ``n`` positions where ``keep[B, T]`` is true, in row-major order.

    ``model`` may be wrapped (for data parallelism or by an adapter); rows padded at the right need no attention mask, since
    a causal model never looks ahead. All rows begin with the same ``shared`` tokens, none of them kept: they are read once and
    their keys and values serve every row (without gradients; a model whose cache cannot be repeated reads them with each row).

    Args:
        layers: hidden states whose logits are wanted too, see ``Seen.early``.
        ends: int64 ``[B]``: each row's last prompt token, for deltas on the model whose doing depends on it; they must not be
            there where a beginning is shared.
        owner: int64 ``[B]``: the delta (of ``deltas.together``) each row is under; one for all where a beginning is shared.
    """
    bare = getattr(model, "module", model)
    cache = None
    if shared:
        cache = shared_cache(model, input_ids[:1, :shared], len(input_ids), None if owner is None else owner[:1])
    if cache is not None:
        input_ids, keep, ends = input_ids[:, shared:], keep[:, shared:], None if ends is None else ends - shared
    route = contextlib.nullcontext() if ends is None else deltas.routing(bare, ends, owner)
    more = {"output_hidden_states": True} if layers else {}
    with select_positions(bare, keep), route:
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
            **more,
        )
    early = {layer: early_logits(bare, output.hidden_states[layer][keep]) for layer in layers}
    return Seen(output.logits[0], early)
