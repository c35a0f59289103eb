"""What a run reads: the passages with their queries, and the documents of the stream as token rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.core.text import tokens
from engramlab.core.text.batches import TokenRows
from engramlab.core.text.tokens import Sequences
from engramlab.corpora.fictional import Background, Fictional
from engramlab.corpora.passages import PassageRecord
from engramlab.experiments.knowledge_acquisition.config import Config
from engramlab.files.documents import documents
from engramlab.reading import read_passages

TOKENIZER_TEXTS = 20_000  # documents of the stream that a compact tokenizer learns from
LONGEST = 5  # words of a compositional target that the filter `short` lets pass
_AT_ONCE = 512  # documents tokenised together


@dataclass(frozen=True)
class Material:
    """Passages and stream of a run.

    Attributes:
        records: the passages; the last ``control`` of them are never injected.
        background: texts of the fictional stream; None where the stream is read from ``config.stream``.
    """

    config: Config
    records: list[PassageRecord]
    control: int
    background: Sequence[str] | None

    def documents(self) -> Iterator[str]:
        """The stream's documents in their order, each once."""
        if self.background is not None:
            return iter(self.background)
        return documents(self.config.stream, self.config.column)

    def tokenizer_texts(self) -> Iterator[str]:
        """What a compact tokenizer is trained on: documents of the stream, passages and queries."""
        yield from islice(self.documents(), TOKENIZER_TEXTS)
        for record in self.records:
            yield from record.versions
            for query in record.queries:
                yield tokens.join(query.prompt, query.target)[0]


def material(config: Config) -> Material:
    """The passages and the stream. Raises UserError for options and files that cannot be used."""
    fiction = config.fiction
    made: Fictional | None = None
    injected = fiction.passages + fiction.control
    if "fictional" in (config.inject, config.stream):
        if fiction.passages < 1 or fiction.control < 0 or fiction.background < 1:
            raise UserError("fiction: passages and background must be at least 1, control at least 0")
        most = max(config.times - 1, 0) if config.schedule in ("all", "paraphrase") else 0
        made = Fictional(
            injected + fiction.background,
            config.seed,
            sentences=fiction.sentences,
            paraphrases=9 if config.stream == "fictional" else min(9, most),
            kinds=fiction.kinds,
            limit=fiction.limit,
        )
    facts = config.fact_table()
    if config.inject == "fictional" and facts is None and made is not None:
        records, control = made.records(range(injected)), fiction.control
    else:
        every = read_passages(config.inject) if facts is None else facts.passages(max(9, config.times - 1), config.seed)
        records, control = _chosen(config, every), config.control
    for record in records:
        if not record.queries:
            raise UserError(f"{config.inject}: passage {record.id} has no queries; write some, or leave it out")
    records = [_filtered(record, config) for record in records]
    background = None
    if config.stream == "fictional" and made is not None:
        background = Background(
            made,
            range(injected, injected + fiction.background),
            passages=fiction.texts,
            statements=fiction.statements,
            together=fiction.together,
        )
    return Material(config, records, control, background)


def _filtered(record: PassageRecord, config: Config) -> PassageRecord:
    """A passage without the queries that ``config.filters`` leaves out; a name is a word with a capital or a digit."""
    rules: dict[str, Callable[[Query], bool]] = {
        "entity": lambda query: any(c.isupper() or c.isdigit() for c in query.target.split()[-1]),
        "short": lambda query: query.group != "compositional" or len(query.target.split()) <= LONGEST,
    }
    kept = [all(rules[name](query) for name in config.filters) for query in record.queries]
    if not any(kept):
        raise UserError(f"filters: no query of passage {record.id} is left; leave the passage or a filter out")
    leftovers = tuple(compress(record.leftovers, kept))
    return replace(record, queries=tuple(compress(record.queries, kept)), leftovers=leftovers)


def _chosen(config: Config, records: list[PassageRecord]) -> list[PassageRecord]:
    """Of the passages of a file or of the user's facts those to inject, then the control."""
    injected = len(records) - config.control
    if config.passages is None:
        return records
    if config.passages > injected:
        raise UserError(
            f"passages: {config.passages} cannot be injected, {config.facts or config.inject} has {len(records)} and "
            f"{config.control} of them are the control; choose at most {max(injected, 0)}"
        )
    return records[: config.passages] + records[injected:]


def encoded(tokenizer: Any, texts: Iterable[str], needed: int) -> tuple[TokenRows, int, int]:
    """Documents as token rows until they have ``needed`` tokens, end tokens included.

    Returns:
        The rows, how many tokens they have with an end token each, and how many documents they are.
    """
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    total = 0
    rest = iter(texts)
    while total < needed and (chunk := list(islice(rest, _AT_ONCE))):
        rows, _ = tokens.encode(tokenizer, chunk)
        for row in rows:
            if row:
                ids.append(np.array(row, np.int32))
                lengths.append(len(row))
                total += len(row) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.concatenate(ids) if ids else np.empty(0, np.int32)
    return TokenRows(Sequences(flat, offsets, np.zeros(len(flat), np.int8))), total, len(lengths)


def stream_rows(material: Material, tokenizer: Any, needed: int) -> tuple[TokenRows, int]:
    """The stream's documents, as many as a run of ``needed`` tokens reads, and how many tokens they have.

    Raises:
        UserError: the stream ends before, and may not be repeated.
    """
    config = material.config
    rows, total, count = encoded(tokenizer, material.documents(), needed)
    if not total:
        raise UserError(f"stream {config.stream}: holds no text")
    if total < needed and config.stream != "fictional" and not config.repeat:
        raise UserError(
            f"stream {config.stream}: ends after {total:,} tokens ({count:,} documents), but the run reads {needed:,}; give "
            "more text, fewer steps or a smaller batch, or --repeat to read it again"
        )
    return rows, total
