"""Running text for statistics, from a file, a hub dataset or the model itself; and the cache that keeps what came of it."""

from __future__ import annotations

import copy
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

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.random_access import key as stream_key
from engramlab.core.forward.decoding import sampling
from engramlab.core.forward.generation import answer
from engramlab.core.models import context_limit
from engramlab.core.text.tokens import join

#: How sampled texts begin, in turn: common first words, so that the texts differ from their first token on.
OPENINGS = (
    *("The", "Therefore", "Because", "I", "You", "In", "A", "It", "He", "She", "When", "This", "We", "They"),
    *("If", "For", "On", "There", "At", "After"),
)
_ROWS = 64  # texts sampled at a time
_WINDOW = 128  # tokens of a sampled text
_NUCLEUS = 0.9  # of sampled text: a small model's unlikely words are noise, and sorting for them would cost more than the model


@dataclass(frozen=True)
class TextSource:
    """Which text the statistics are taken from, and how much of it.

    Raises:
        UserError: a number of tokens below 1.
    """

    text: str = "sampled"
    """``sampled`` (text that the model itself writes), a file (.txt, .jsonl, .parquet) or ``hub:owner/name[:configuration]``"""
    tokens: int | None = None
    """Tokens to read; None for 8 times the width of the MLP and at least 10,000."""
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


def texts(model: nn.Module, tokenizer: Any, source: TextSource) -> Iterator[str]:
    """The texts of a source, one after another; sampled ones without end. Raises UserError for what cannot be read."""
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
    plain = copy.copy(tokenizer)
    plain.chat_template = None
    written = answer(model, plain, openings, seeds, sampling.Config(top_p=_NUCLEUS), max_new_tokens=length)
    return [join(opening, more)[0] if more else opening for opening, more in zip(openings, written, strict=True)]


def _sampled(model: nn.Module, tokenizer: Any, seed: int) -> Iterator[str]:
    """Texts that the model writes from its start token and a common first word, without end."""
    context = context_limit(model) or 512
    room = max(len(ids) for ids in tokenizer(list(OPENINGS))["input_ids"])
    length = min(_WINDOW, context - room)
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
