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
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engramlab.core import deltas, sampling
from engramlab.core.errors import UserError
from engramlab.core.hooks import mode, select_positions
from engramlab.core.models import module_paths
from engramlab.core.progress import Bar
from engramlab.core.random_access import key as stream_key
from engramlab.core.tokens import join, start_tokens

#: How sampled texts begin, in turn: common first words, so that the texts differ from their first token on.
OPENINGS = (
    *("The", "Therefore", "Because", "I", "You", "In", "A", "It", "He", "She", "When", "This", "We", "They"),
    *("If", "For", "On", "There", "At", "After"),
)
_ROWS = 64  # texts sampled at a time
_WINDOW = 128  # tokens of a sampled text
_NUCLEUS = 0.9  # of sampled text: a small model's unlikely words are noise, and sorting for them would cost more than the model
_TOKENS_A_PASS = 2048
_FLOOR = 1e-7  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class TextSource:
    """Which text the statistics are taken from, and how much of it.

    Raises:
        UserError: a number of tokens below 1.
    """

    text: str = "sampled"
    """``sampled`` (text that the model itself writes), a file (.txt, .jsonl, .parquet) or ``hub:owner/name[:configuration]``"""
    tokens: int | None = None
    """Tokens to read; None for 16 times the width of the layer and at least 20,000."""
    column: str = "text"
    """Where a .jsonl or .parquet file or a hub dataset keeps its text."""
    seed: int = 0
    """Of the sampling."""
    cache: str | None = None
    """Folder of computed statistics; None for $ENGRAMLAB_CACHE or ~/.cache/engramlab."""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"tokens of the statistics: must be at least 1, not {self.tokens}")

    @property
    def folder(self) -> Path:
        """Where results are kept."""
        return Path(self.cache or os.environ.get("ENGRAMLAB_CACHE") or "~/.cache/engramlab").expanduser()

    def identity(self) -> dict[str, Any]:
        """What the text is, as JSON: a file by its content, sampled text by what it depends on."""
        if self.text == "sampled":
            return {"text": "sampled", "seed": self.seed, "window": _WINDOW, "rows": _ROWS, "top_p": _NUCLEUS}
        if self.text.startswith("hub:"):
            return {"text": self.text, "column": self.column}
        try:
            with Path(self.text).expanduser().open("rb") as file:
                return {"text": hashlib.file_digest(file, "sha256").hexdigest(), "column": self.column}
        except OSError as error:
            raise UserError(
                f"text {self.text!r}: cannot be read ({error.strerror or error}); give a file, hub:owner/name or sampled"
            ) from None


@dataclass(frozen=True)
class SecondMoment:
    """``E[k k^T]`` of a layer's keys, float64, by its eigenvectors.

    Attributes:
        values: ``[d]`` eigenvalues, smallest first, none below zero.
        vectors: ``[d, d]``; column ``i`` belongs to ``values[i]``.
        tokens: how many keys it is the mean over.
    """

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
    stand in, with a warning, and are not kept. ROME and MEMIT took 100,000 samples of Wikipedia; 16 tokens for each
    dimension of the key is what two CPU cores give in a minute for a small model, and what sampled text repeats soon after.

    Raises:
        UserError: a text that cannot be read, or has fewer tokens than the layer has inputs.
    """
    source = source or TextSource()
    about = {"model": deltas.fingerprint(model), **source.identity()}
    width = _down(model, layers[0]).shape[1]
    tokens = source.tokens or max(20_000, 16 * width)
    if tokens < width:
        raise UserError(
            f"tokens: {tokens} are too few for the second moment of {width} inputs, which would be singular; take at "
            f"least {width}, better {16 * width}"
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


def _down(model: nn.Module, layer: int) -> torch.Tensor:
    """Weight ``[out, in]`` of a layer's MLP down-projection."""
    paths = module_paths(model)
    return deltas.weight_of(model.get_submodule(f"{paths.layers}.{layer}.{paths.mlp_down}"))


class _Enough(Exception):
    """The last layer asked for has been read; the layers above it are not needed."""


@torch.no_grad()
def _collect(
    model: nn.Module, tokenizer: Any, layers: Sequence[int], source: TextSource, tokens: int, progress: bool
) -> dict[int, torch.Tensor]:
    """Mean of ``k k^T`` over ``tokens`` tokens, float64 ``[d, d]`` for each layer."""
    paths, device = module_paths(model), next(model.parameters()).device
    modules = {layer: model.get_submodule(f"{paths.layers}.{layer}.{paths.mlp_down}") for layer in layers}
    width = _down(model, layers[0]).shape[1]
    totals = {layer: torch.zeros(width, width, dtype=torch.float64, device=device) for layer in layers}
    seen = 0
    with Bar("second moments of the MLP's keys", tokens, enabled=progress) as bar, mode(model, False):
        for ids, mask in _batches(model, tokenizer, source, tokens):
            _add(model, modules, ids.to(device), mask.to(device), totals)
            seen += int(mask.sum())
            bar.update(seen)
    if seen < tokens:
        raise UserError(
            f"text {source.text!r} has only {seen} tokens; {tokens} were asked for: give a longer text, or fewer tokens (at "
            f"least {width}, better {16 * width})"
        )
    return {layer: total / seen for layer, total in totals.items()}


def _add(
    model: nn.Module,
    modules: dict[int, nn.Module],
    ids: torch.Tensor,
    mask: torch.Tensor,
    totals: dict[int, torch.Tensor],
) -> None:
    """Adds ``k k^T`` of a batch's tokens to each layer's total; layers above the last one asked for are not computed."""

    def add(layer: int) -> Any:
        def before(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            keys = args[0][mask].float()
            totals[layer] += keys.T @ keys  # float32 within a batch, float64 over batches
            if layer == max(modules):
                raise _Enough

        return before

    handles = [module.register_forward_pre_hook(add(layer)) for layer, module in modules.items()]
    try:
        with select_positions(model, torch.zeros_like(mask)):
            model(input_ids=ids, use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _batches(
    model: nn.Module, tokenizer: Any, source: TextSource, tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token rows ``[R, T]`` padded at the right and their masks, together exactly ``tokens`` tokens where the text has them."""
    context = getattr(model.config, "max_position_embeddings", None) or 512
    window = min(512, int(context))
    first = start_tokens(tokenizer)
    texts = _texts(model, tokenizer, source)
    rows: list[list[int]] = []
    held, left = 0, tokens
    while left > 0 and (some := list(itertools.islice(texts, 16))):
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


def _texts(model: nn.Module, tokenizer: Any, source: TextSource) -> Iterator[str]:
    if source.text == "sampled":
        return _sampled(model, tokenizer, source.seed)
    if source.text.startswith("hub:"):
        return _from_hub(source)
    path = Path(source.text).expanduser()
    if path.suffix == ".parquet":
        return _from_parquet(path, source.column)
    return _from_lines(path, source.column if path.suffix in (".jsonl", ".ndjson") else None)


def continuations(
    model: nn.Module, tokenizer: Any, openings: Sequence[str], seeds: Sequence[int], length: int
) -> list[str]:
    """Each opening and up to ``length`` tokens with which the model goes on: running text, no chat template."""
    import copy

    plain = copy.copy(tokenizer)
    plain.chat_template = None
    written = sampling.sample(model, plain, openings, seeds, max_new_tokens=length, top_p=_NUCLEUS)
    return [join(opening, more)[0] if more else opening for opening, more in zip(openings, written, strict=True)]


def _sampled(model: nn.Module, tokenizer: Any, seed: int) -> Iterator[str]:
    """Texts that the model writes from its start token and a common first word, without end."""
    context = getattr(model.config, "max_position_embeddings", None) or 512
    room = max(len(ids) for ids in tokenizer(list(OPENINGS))["input_ids"])
    length = min(_WINDOW, int(context) - room)
    for number in itertools.count(0, _ROWS):
        some = range(number, number + _ROWS)
        seeds = [stream_key(seed, "statistics", i) for i in some]
        yield from continuations(model, tokenizer, [OPENINGS[i % len(OPENINGS)] for i in some], seeds, length)


def _from_lines(path: Path, column: str | None) -> Iterator[str]:
    """The lines of a text, or one column of a file of JSON lines."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if column is None:
                yield line.rstrip("\n")
                continue
            try:
                text = json.loads(line)[column]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise UserError(f"{path}, line {number}: no JSON object with a string under {column!r}")
            yield text


def _from_parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise UserError(f"{path}: no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(256, columns=[column]):
                yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str) and text)
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None


def _from_hub(source: TextSource) -> Iterator[str]:
    try:
        import datasets
    except ImportError:
        raise UserError(f"text {source.text!r}: reading it needs `pip install datasets`") from None
    name, _, configuration = source.text.removeprefix("hub:").partition(":")
    try:
        for record in datasets.load_dataset(name, configuration or None, split="train", streaming=True):
            if source.column not in record:
                raise UserError(f"text {source.text!r}: no column {source.column!r}; it has {', '.join(record)}")
            yield str(record[source.column])
    except UserError:
        raise
    except Exception as error:  # whatever the hub's client raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"text {source.text!r}: could not be fetched ({first}); give a file, or sampled") from error


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


def keep(path: Path, content: bytes) -> None:
    """Puts a file into the cache, whole or not at all; a cache that cannot be written is a warning, not an end."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".partial", delete=False) as file:
            partial = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        warnings.warn(f"{path} could not be kept ({error.strerror or error}): computed again next time", stacklevel=3)
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
