"""Where the prompts of a batch end, and what was decided there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Route:
    """Where the prompts of the rows at hand end, and what was decided there.

    Attributes:
        ends: int64 ``[R]``: index of each row's last prompt token in the input of the pass that decides.
    """

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends
        self._decided: dict[Hashable, Any] = {}

    def decide(self, key: Hashable, compute: Callable[[torch.Tensor], T]) -> T:
        """``compute(ends)`` the first time it is asked for ``key``; the same answer ever after (in later decode steps, say)."""
        if key not in self._decided:
            self._decided[key] = compute(self.ends)
        return self._decided[key]

    def decided(self, key: Hashable) -> Any:
        """What was decided for ``key``, or None."""
        return self._decided.get(key)


def free_route(before: Route | None, given: torch.Tensor | None, kwargs: Mapping[str, Any]) -> Route | None:
    """The route of a pass that nobody has said anything about: a prompt ends where the input does; a single token goes on
    with what was.

    Args:
        before: that of the pass before.
        given: the pass's input, ``[R, T]`` or ``[R, T, d]``.
        kwargs: its ``past_key_values`` and ``attention_mask``.
    """
    if given is None:
        return before
    rows, length = given.shape[:2]
    cache = kwargs.get("past_key_values")
    going_on = cache is not None and hasattr(cache, "get_seq_length") and cache.get_seq_length() > 0
    if length == 1 and going_on and before is not None and len(before.ends) == rows:
        return before
    ends = torch.full((rows,), length - 1, device=given.device)
    mask = kwargs.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape[1] == length:
        ends = length - 1 - mask.flip(1).long().argmax(1)
    return Route(ends)
