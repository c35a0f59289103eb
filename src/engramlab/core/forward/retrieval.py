"""Texts by vectors: a model's own states or vectors that a user brings, and exact search among them.

By words instead: ``base/likeness.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
        scores, places = self._search(self._ready(queries.to(self.vectors.device)), min(count, len(self)))
        return places, scores

    def _search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores, places = (queries @ self.vectors.T).topk(count, dim=1)
        return scores, places


class FaissIndex(VectorIndex):
    """The same exact search by FAISS, which needs no more memory than the vectors.

    Raises:
        UserError: as ``VectorIndex``, or the package faiss is not installed.
    """

    def __init__(self, vectors: torch.Tensor, *, cosine: bool = True) -> None:
        try:
            import faiss
        except ImportError:
            raise UserError(
                "retrieval by FAISS needs the package faiss-cpu: pip install 'engramlab[retrieval]'"
            ) from None
        super().__init__(vectors, cosine=cosine)
        self.index = faiss.IndexFlatIP(self.vectors.shape[1])
        self.index.add(self.vectors.cpu().numpy())

    def _search(self, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores, places = self.index.search(queries.cpu().numpy(), count)
        return torch.from_numpy(scores), torch.from_numpy(places)


def read_vectors(path: Path | str, *, count: int, width: int | None = None) -> torch.Tensor:
    """A user's vectors, one a text, from a .npy file or the one tensor of a .safetensors file: float32 ``[count, d]``.

    Raises:
        UserError: no such file, one that is neither, another number of vectors than of texts, or another width.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: there are no vectors; give a .npy or .safetensors file")
    try:
        if path.suffix == ".npy":
            found = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(str(path))
            if len(tensors) != 1:
                raise UserError(f"{path}: holds {len(tensors)} tensors; vectors are one alone")
            found = next(iter(tensors.values())).float()
        else:
            raise UserError(f"{path}: vectors are read from .npy and .safetensors files only")
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path}: cannot be read as vectors ({error}); write a float array [texts, d]") from None
    if found.dim() != 2 or len(found) != count:
        raise UserError(
            f"{path}: holds vectors of shape {list(found.shape)}, but there are {count} texts; give one for each"
        )
    if width is not None and found.shape[1] != width:
        raise UserError(f"{path}: its vectors have width {found.shape[1]}, those they are compared with {width}")
    return found


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
