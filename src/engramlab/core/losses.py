"""Losses by name: one loss a target token, chosen by the caller and unknown to whoever runs it.

A loss takes ``logits[..., V]`` and ``targets[...]`` (token ids) and returns ``loss[...]`` in float32: no reduction, no
ignore index. Which positions count, and how they are averaged, is decided by the training loop alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from engramlab.core.errors import UserError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-probability of each target token, in nats.

    Args:
        logits: ``[..., V]``, any floating dtype; computed in float32.
        targets: ``[...]`` token ids.

    Returns:
        ``[...]`` float32.
    """
    flat = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy}


def get(name: str) -> Loss:
    """The loss of that name; raises UserError with the names there are."""
    try:
        return LOSSES[name]
    except KeyError:
        raise UserError(f"loss {name!r} is unknown; choose one of: {', '.join(LOSSES)}") from None
