"""Hooks on a model's modules, as context managers that always clean up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Inside the block all of ``model`` is in training (or evaluation) mode; afterwards each module is in the one it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


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


def target_logits(
    model: nn.Module,
    input_ids: torch.Tensor,
    keep: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    shared: int = 0,
) -> torch.Tensor:
    """Logits ``[n, V]`` at the ``n`` positions where ``keep[B, T]`` is true, in row-major order.

    ``model`` may be wrapped (for data parallelism or by an adapter); rows padded at the right need no attention mask, since
    a causal model never looks ahead. All rows begin with the same ``shared`` tokens, none of them kept: they are read once and
    their keys and values serve every row (without gradients; a model whose cache cannot be repeated reads them with each row).
    """
    bare = getattr(model, "module", model)
    cache = None
    if shared:
        with select_positions(bare, torch.zeros_like(keep[:1, :shared])):
            cache = model(input_ids=input_ids[:1, :shared], use_cache=True).past_key_values
        if hasattr(cache, "batch_repeat_interleave"):
            cache.batch_repeat_interleave(len(input_ids))
            input_ids, keep = input_ids[:, shared:], keep[:, shared:]
        else:
            cache = None
    with select_positions(bare, keep):
        output = model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=cache is not None
        )
    return output.logits[0]
