"""Texts by vectors: a model's own states or vectors that a user brings, and exact search among them.

By words instead: ``base/likeness.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from engramlab.base.errors import UserError
from engramlab.core.forward.hooks import mode, reading
from engramlab.core.models import context_limit
from engramlab.core.models.geometry import layer_at, layer_path


class VectorIndex:
    """Vectors to be searched, all of them, by one product.

    Args:
        vectors: ``[n, d]``; kept on their device in float32.
        cosine: lengths play no part; by inner product otherwise.

    Raises:
        UserError: no vectors, or numbers that are not finite.
    """

    def __init__(self, vectors: torch.Tensor, *, cosine: bool = True) -> None:
        if vectors.dim() != 2 or not len(vectors):
            raise UserError(f"vectors to be searched must be [n, d] with n at least 1, not {list(vectors.shape)}")
        bad = (~torch.isfinite(vectors).all(dim=1)).nonzero()
        if len(bad):
            raise UserError(f"vector {int(bad[0, 0])} (counted from 0) holds numbers that are not finite")
        self.cosine = cosine
        self.vectors = self._ready(vectors)

    def _ready(self, vectors: torch.Tensor) -> torch.Tensor:
        vectors = vectors.detach().float()
        return torch.nn.functional.normalize(vectors, dim=1) if self.cosine else vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``count`` nearest to each query, the nearest first; fewer where there are fewer.

        Args:
            queries: ``[q, d]``.

        Returns:
            Their places, int64 ``[q, k]``, and cosines or inner products, float32 ``[q, k]``.

        Raises:
            UserError: vectors of another width.
        """
        if queries.dim() != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"queries of shape {list(queries.shape)} cannot be compared with vectors of width {self.vectors.shape[1]}"
            )
        likeness = self._ready(queries.to(self.vectors.device)) @ self.vectors.T
        scores, places = likeness.topk(min(count, len(self)), dim=1)
        return places, scores


@torch.no_grad()
def mean_states(
    model: nn.Module, tokenizer: Any, texts: Sequence[str], *, layer: int | None = None, budget: int = 16_384
) -> torch.Tensor:
    """Each text's mean hidden state over its tokens, as it leaves a layer (ours; a sentence encoder mostly does better).

    Args:
        layer: the middle one by default; layers above it are not computed.
        budget: most padded tokens a pass. A text beyond the model's context is read up to there.

    Returns:
        float32 ``[texts, D]``.

    Raises:
        UserError: a text without a token, or no such layer.
    """
    most = context_limit(model) or budget
    rows = [ids[:most] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []
    for text, ids in zip(texts, rows, strict=True):
        if not ids:
            raise UserError(f"a text to be searched for has no token: {text!r}")
    path = layer_path(model, layer_at(model, layer, 0.5))
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    with mode(model, training=False):
        while order:
            count = max(1, budget // len(rows[order[0]]))
            taken, order = order[:count], order[count:]
            ids = torch.zeros(len(taken), len(rows[taken[0]]), dtype=torch.long)
            real = torch.zeros_like(ids)
            for line, i in enumerate(taken):
                ids[line, : len(rows[i])] = torch.tensor(rows[i])
                real[line, : len(rows[i])] = 1
            real = real.to(device)
            with reading(model, [path], until=path) as seen:
                model(input_ids=ids.to(device), attention_mask=real)
            states = seen[path].said.float() * real.unsqueeze(-1)
            for i, mean in zip(taken, states.sum(1) / real.sum(1, keepdim=True), strict=True):
                found[i] = mean
    return torch.stack(found) if found else torch.zeros(0, 0)
