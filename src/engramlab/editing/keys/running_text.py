"""Running text for statistics, from a file, a hub dataset or the model itself; and the cache that keeps what came of it."""

from __future__ import annotations

import copy
import itertools
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
from engramlab.files import documents, writing

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
    """``sampled`` (text that the model itself writes), files of any kind, or ``hub:owner/name[:config]``"""
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
        return Path(self.cache).expanduser() if self.cache else writing.cache_folder()

    def identity(self) -> dict[str, Any]:
        """What the text is, as JSON: a file by its content, sampled text by what it depends on."""
        if self.text == "sampled":
            return {"text": "sampled", "seed": self.seed, "window": _WINDOW, "rows": _ROWS, "top_p": _NUCLEUS}
        if self.text.startswith("hub:"):
            return {"text": self.text, "column": self.column}
        return {"text": documents.file_digest(self.text), "column": self.column}


def source_texts(model: nn.Module, tokenizer: Any, source: TextSource, length: int = _WINDOW) -> Iterator[str]:
    """The texts of a source, one after another; sampled ones without end. Raises UserError for what cannot be read.

    Args:
        length: most tokens of a sampled text, behind its first word.
    """
    if source.text == "sampled":
        return _sampled(model, tokenizer, source.seed, length)
    return documents.documents(source.text, source.column, by_line=True)


def continuations(
    model: nn.Module, tokenizer: Any, openings: Sequence[str], seeds: Sequence[int], length: int
) -> list[str]:
    """Each opening and up to ``length`` tokens with which the model goes on: running text, no chat template."""
    plain = copy.copy(tokenizer)
    plain.chat_template = None
    written = answer(model, plain, openings, seeds, sampling.Config(top_p=_NUCLEUS), max_new_tokens=length)
    return [join(opening, more)[0] if more else opening for opening, more in zip(openings, written, strict=True)]


def _sampled(model: nn.Module, tokenizer: Any, seed: int, length: int) -> Iterator[str]:
    """Texts that the model writes from its start token and a common first word, without end."""
    context = context_limit(model) or 512
    room = max(len(ids) for ids in tokenizer(list(OPENINGS))["input_ids"])
    length = min(length, context - room)
    for number in itertools.count(0, _ROWS):
        some = range(number, number + _ROWS)
        seeds = [stream_key(seed, "statistics", i) for i in some]
        yield from continuations(model, tokenizer, [OPENINGS[i % len(OPENINGS)] for i in some], seeds, length)


def keep(path: Path, content: bytes) -> None:
    """Puts a file into the cache, whole or not at all; a cache that cannot be written is a warning, not an end."""
    try:
        writing.write_bytes(path, content)
    except UserError as error:
        warnings.warn(f"{path} could not be kept ({error}): computed again next time", stacklevel=3)
