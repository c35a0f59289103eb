"""Second moments of what a layer's MLP down-projection reads, over running text; computed once and kept in a cache folder.

ROME, MEMIT and AlphaEdit read a down-projection ``W`` as a memory of keys ``k`` (its inputs) and values ``W k``, and protect
what is already there through ``C = E[k k^T]`` over ordinary text (arXiv 2202.05262, section 3.1; arXiv 2210.07229, section
4.2). ``C`` here is the *mean* over tokens. It is kept as its eigenvectors and eigenvalues, since that is the form in which
inverting it and projecting onto its null space cost next to nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.progress import ProgressBar
from engramlab.core import deltas
from engramlab.core.forward.hooks import mode, reading
from engramlab.core.models import context_limit
from engramlab.core.models.geometry import down_projection, matrix_shape
from engramlab.core.text.tokens import start_tokens
from engramlab.editing.keys.running_text import TextSource, keep, source_texts

_TOKENS_A_PASS = 2048
_FLOOR = 1e-7  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class SecondMoment:
    """``E[k k^T]`` of a layer's keys, float64, by its eigenvectors.

    Attributes:
        values: ``[d]`` eigenvalues, smallest first, none below zero.
        vectors: ``[d, d]``; column ``i`` belongs to ``values[i]``.
        tokens: how many keys it is the mean over.
    """

    __repr__ = brief

    values: torch.Tensor
    vectors: torch.Tensor
    tokens: int

    @classmethod
    def of(cls, moment: torch.Tensor, tokens: int) -> SecondMoment:
        """From the matrix ``[d, d]``."""
        values, vectors = torch.linalg.eigh(moment.double())
        return cls(values.clamp_min(0), vectors, tokens)

    def matrix(self) -> torch.Tensor:
        """``[d, d]``."""
        return (self.vectors * self.values) @ self.vectors.T

    def solve(self, keys: torch.Tensor) -> torch.Tensor:
        """``C^-1 keys`` for ``keys[d, n]``.

        Eigenvalues count as at least 1e-7 of the largest: where neurons never fire ``C`` has no inverse, and what is smaller
        is rounding of the float32 sums.
        """
        scaled = self.vectors.T @ keys.double() / self.values.clamp_min(_FLOOR * float(self.values[-1]))[:, None]
        return self.vectors @ scaled

    def null_space(self, threshold: float) -> torch.Tensor:
        """Orthonormal columns ``[d, m]`` that span the eigenvectors with eigenvalues below ``threshold``."""
        return self.vectors[:, : int((self.values < threshold).sum())]


def second_moments(
    model: nn.Module, tokenizer: Any, layers: Sequence[int], source: TextSource | None = None, *, progress: bool = True
) -> dict[int, SecondMoment]:
    """Second moments of the inputs of several layers' down-projections, from the cache or from one pass over the text.

    They belong to the unedited model: where deltas are on ``model`` and the cache does not have them, those of the edited model
    stand in, with a warning, and are not kept. ROME and MEMIT took 100,000 samples of Wikipedia; 8 tokens for each
    dimension of the key are what two CPU cores sample from a small model in two minutes, and its edits are as good with 4.

    Raises:
        UserError: a text that cannot be read, or has fewer tokens than the layer has inputs.
    """
    source = source or TextSource()
    about = {"model": deltas.fingerprint(model), **source.identity()}
    width = matrix_shape(model, down_projection(model, layers[0]))[1]
    tokens = source.tokens or max(10_000, 8 * width)
    if tokens < width:
        raise UserError(
            f"tokens: {tokens} are too few for the second moment of {width} inputs, which would be singular; take at "
            f"least {width}, better {8 * width}"
        )
    names = {layer: _name({**about, "layer": layer, "tokens": tokens}) for layer in layers}
    found = {layer: _read(source.folder / name, width) for layer, name in names.items()}
    missing = [layer for layer, moment in found.items() if moment is None]
    if missing:
        edited = bool(deltas.installed(model))
        if edited:
            warnings.warn(
                "no statistics of the unedited model are in the cache: those of the edited model serve, and are not kept",
                stacklevel=2,
            )
        for layer, total in _collect(model, tokenizer, missing, source, tokens, progress).items():
            moment = SecondMoment.of(total, tokens)
            moment = found[layer] = SecondMoment(moment.values.cpu(), moment.vectors.cpu(), tokens)
            if not edited:
                _write(source.folder / names[layer], moment, {**about, "layer": layer, "tokens": tokens})
    return {layer: moment for layer, moment in found.items() if moment is not None}


@torch.no_grad()
def _collect(
    model: nn.Module, tokenizer: Any, layers: Sequence[int], source: TextSource, tokens: int, progress: bool
) -> dict[int, torch.Tensor]:
    """Mean of ``k k^T`` over ``tokens`` tokens, float64 ``[d, d]`` for each layer."""
    paths, device = {layer: down_projection(model, layer) for layer in layers}, next(model.parameters()).device
    width = matrix_shape(model, paths[layers[0]])[1]
    totals = {layer: torch.zeros(width, width, dtype=torch.float64, device=device) for layer in layers}
    seen = 0
    about = (
        f"Statistics of this model's layers are made once and kept in {source.folder}; the bar says how long it takes."
    )
    with ProgressBar("second moments of keys", tokens, enabled=progress, about=about) as bar, mode(model, False):
        for ids, mask in _batches(model, tokenizer, source, tokens):
            ids, mask = ids.to(device), mask.to(device)
            with reading(model, list(paths.values()), mask, until=paths[max(layers)]) as said:
                model(input_ids=ids, use_cache=False)
            for layer, path in paths.items():
                keys = said[path].read.float()
                totals[layer] += keys.T @ keys  # float32 within a batch, float64 over batches
            seen += int(mask.sum())
            bar.update(seen)
    if seen < tokens:
        raise UserError(
            f"text {source.text!r} has only {seen} tokens; {tokens} were asked for: give a longer text, or fewer tokens (at "
            f"least {width}, better {8 * width})"
        )
    return {layer: total / seen for layer, total in totals.items()}


def _batches(
    model: nn.Module, tokenizer: Any, source: TextSource, tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token rows ``[R, T]`` padded at the right and their masks, together exactly ``tokens`` tokens where the text has them."""
    window = min(512, context_limit(model) or 512)
    first = start_tokens(tokenizer)
    found = source_texts(model, tokenizer, source)
    rows: list[list[int]] = []
    held, left = 0, tokens
    while left > 0 and (some := list(itertools.islice(found, 16))):
        for ids in tokenizer(some, add_special_tokens=False)["input_ids"]:
            ids = first + ids
            for start in range(0, len(ids), window):
                if left and (row := ids[start : start + window][:left]):
                    rows.append(row)
                    held, left = held + len(row), left - len(row)
                if held >= _TOKENS_A_PASS:
                    yield _padded(rows)
                    rows, held = [], 0
    if rows:
        yield _padded(rows)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) < lengths[:, None]


def _name(about: dict[str, Any]) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=10).hexdigest()
    return f"second-moment-{about['layer']:02d}-{digest}.safetensors"


def _read(path: Path, width: int) -> SecondMoment | None:
    """A cached moment; None if there is none, or (with a warning) if the file is damaged."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            values, vectors = file.get_tensor("values"), file.get_tensor("vectors")
            tokens = int(json.loads(file.metadata()["about"])["tokens"])
        if values.shape != (width,) or vectors.shape != (width, width) or values.dtype != torch.float64:
            raise ValueError("other shapes")
        if not (values.isfinite().all() and vectors.isfinite().all() and bool((values.diff() >= 0).all())):
            raise ValueError("other numbers")
    except Exception as error:  # a damaged file may raise anything
        warnings.warn(f"{path} is damaged ({error}) and computed again", stacklevel=3)
        return None
    return SecondMoment(values, vectors, tokens)


def _write(path: Path, moment: SecondMoment, about: dict[str, Any]) -> None:
    from safetensors.torch import save

    tensors = {"values": moment.values, "vectors": moment.vectors.contiguous()}
    keep(path, save(tensors, metadata={"about": json.dumps(about)}))
