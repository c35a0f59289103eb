"""Text to tokens, and character spans to token spans.

Everything that asks where a target begins — label masks, scoring, probing positions, edits — asks here.

The space rule, by which a target is joined to its prompt, is in ``base/joining.py``. The joined *text* is tokenised as a
whole, and the target's tokens are those that hold a character of the target; so they are the tokens the model sees in running
text.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engramlab.base.arrays import brief
from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.joining import continues_letter
from engramlab.base.joining import join as join

#: Mark of a token that holds nothing but the space before a value (many tokenizers cut " 1996" that way). A model must write
#: it, so it is trained and counts for an exact match; but it is no token of the value, and never the value's first.
GAP = 127


@dataclass(frozen=True)
class Sequences:
    """Token rows of different lengths, laid end to end.

    Attributes:
        ids: int32 ``[total]`` token ids.
        offsets: int64 ``[rows + 1]``; row ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.
        marks: int8 ``[total]``: 0 for plain text; what other values mean is the maker's to say (``attribute + 1`` for the
            tokens of an entry, 1 for the target tokens of a query, ``GAP`` for a lone space before either).
    """

    __repr__ = brief

    ids: np.ndarray
    offsets: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 ``[rows]``."""
        return np.diff(self.offsets)

    def row(self, i: int) -> np.ndarray:
        """Token ids of row ``i``."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], marks: Sequence[Sequence[int]] | None = None) -> Sequences:
        """From lists; ``marks`` default to zeros."""
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.fromiter((t for row in rows for t in row), dtype=np.int32, count=int(offsets[-1]))
        if marks is None:
            return cls(ids, offsets, np.zeros(len(ids), dtype=np.int8))
        return cls(ids, offsets, np.fromiter((m for row in marks for m in row), dtype=np.int8, count=len(ids)))

    def take(self, rows: np.ndarray) -> Sequences:
        """Some of the rows, in the order of ``rows``."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.arange(int(offsets[-1])) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Sequences(self.ids[at], offsets, self.marks[at])

    def behind(self, count: int) -> Sequences:
        """Every row without its first ``count`` tokens."""
        kept = np.ones(len(self.ids), dtype=bool)
        kept[(self.offsets[:-1, None] + np.arange(count)).ravel()] = False
        return Sequences(self.ids[kept], self.offsets - count * np.arange(len(self.offsets)), self.marks[kept])

    def wrapped(self, prefix: Sequence[int], suffix: Sequence[int], suffix_mark: int = 0) -> Sequences:
        """Every row with ``prefix`` tokens in front and ``suffix`` tokens behind; the suffix carries ``suffix_mark``."""
        rows, front, back = len(self), len(prefix), len(suffix)
        offsets = self.offsets + np.arange(rows + 1) * (front + back)
        ids = np.empty(int(offsets[-1]), dtype=np.int32)
        marks = np.zeros(int(offsets[-1]), dtype=np.int8)
        body = np.arange(len(self.ids)) + np.repeat(offsets[:-1] + front - self.offsets[:-1], self.lengths)
        ids[body], marks[body] = self.ids, self.marks
        for k, token in enumerate(prefix):
            ids[offsets[:-1] + k] = token
        for k, token in enumerate(suffix):
            ids[offsets[1:] - back + k] = token
            marks[offsets[1:] - back + k] = suffix_mark
        return Sequences(ids, offsets, marks)


def require_offsets(tokenizer: Any) -> None:
    """Raises UserError unless the tokenizer can say which characters each token covers."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r} cannot map tokens to characters; use its fast version "
            "(a tokenizer.json)"
        )


def end_token(tokenizer: Any) -> int:
    """Id of the token that ends a text; raises UserError for a tokenizer without one."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no end token; set one, for example "
            "tokenizer.eos_token = '<|endoftext|>', and save it"
        )
    return int(tokenizer.eos_token_id)


def start_tokens(tokenizer: Any) -> list[int]:
    """The tokens this tokenizer itself puts before a text (``[bos]`` or nothing)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for cut in range(len(full) - len(plain) + 1):
        if full[cut : cut + len(plain)] == plain:
            return list(full[:cut])
    return []


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Token span ``[first, last + 1)`` of the tokens that hold a character of ``[start, end)``.

    Args:
        offsets: character offsets of each token, as fast tokenizers give them; empty ranges (special tokens) are skipped.

    Raises:
        ValueError: no token holds any of these characters.
    """
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
    if not inside:
        raise ValueError(f"no token holds a character of [{start}, {end})")
    return inside[0], inside[-1] + 1


def encode(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids and character offsets of each text, without special tokens.

    A mark that the tokenizer has put together with its letter (NFC of a decomposed text) is in that letter's token.
    """
    require_offsets(tokenizer)
    if not texts:
        return [], []
    out = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(texts, out["offset_mapping"], strict=True)
    return out["input_ids"], [
        s if unicodedata.is_normalized("NFC", text) else _with_marks(text, s) for text, s in spans
    ]


def _with_marks(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that also hold the marks behind them which no token holds."""
    held = {i for a, b in spans for i in range(a, b)}

    def stretched(a: int, b: int) -> tuple[int, int]:
        while a < b < len(text) and b not in held and continues_letter(text[b]):
            b += 1
        return a, b

    return [stretched(a, b) for a, b in spans]


def find_last(text: str, part: str) -> tuple[int, int] | None:
    """Characters ``[start, end)`` of the last occurrence of a part, composed or decomposed alike; None without one.

    >>> find_last("in Sa\u0303o Tome\u0301 is", "S\xe3o Tom\xe9")
    (3, 13)
    """
    at = text.rfind(part)
    if at >= 0:
        return at, at + len(part)
    starts = [i for i, c in enumerate(text) if i == 0 or not continues_letter(c)] + [len(text)]
    letters = [unicodedata.normalize("NFC", text[a:b]) for a, b in itertools.pairwise(starts)]
    before = {0: 0}  # characters of the composed text and of this one, up to each letter
    for letter, end in zip(letters, starts[1:], strict=True):
        before[max(before) + len(letter)] = end
    part = unicodedata.normalize("NFC", part)
    at = "".join(letters).rfind(part)
    return (before[at], before[at + len(part)]) if at in before and at + len(part) in before else None


@dataclass(frozen=True)
class Placed:
    """The tokens of a text, and where its target stands among them.

    Attributes:
        ids: token ids, without special tokens.
        spans: the characters of each.
        begin: index of the token at which a model that was given the prompt alone begins to write: ``first``, or the first of
            the tokens before it that hold nothing but space behind the prompt (many tokenizers cut " 1996" that way).
        first: index of the target's first token.
        last: index behind its last one.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    begin: int
    first: int
    last: int


def place(tokenizer: Any, texts: Sequence[tuple[str, int, int, int]]) -> list[Placed | None]:
    """Tokenises texts and finds their targets; None where a target has no token.

    Args:
        texts: prompt and target joined, the characters ``[start, end)`` of the target, and how many the prompt has.
    """
    found: list[Placed | None] = []
    for (text, start, stop, prompt), ids, spans in zip(texts, *encode(tokenizer, [t[0] for t in texts]), strict=True):
        try:
            first, last = token_span(spans, start, stop)
        except ValueError:
            found.append(None)
            continue
        begin = first
        while begin > 0 and spans[begin - 1][0] >= prompt and not text[slice(*spans[begin - 1])].strip():
            begin -= 1
        found.append(Placed(ids, spans, begin, first, last))
    return found


@dataclass(frozen=True)
class EncodedQueries:
    """Queries as token rows, to be asked as often as one likes.

    Attributes:
        queries: one a row.
        numbers: int64 ``[rows]``: their places in the list they came from.
        sequences: start tokens, prompt, target (and end token where asked); marks are 1 on what is to be scored.
        straddling: ids (or places) of the queries, kept or dropped as chosen, whose first target token also holds a character
            of the prompt other than white space; where kept they are scored with that token included.
        prompt_ends: int64 ``[rows]``: index in its row of the last token that a model asked with the prompt alone has read;
            a lone space before the target is written by the model already.
    """

    __repr__ = brief

    queries: tuple[Query, ...]
    numbers: np.ndarray
    sequences: Sequences
    straddling: tuple[str, ...]
    prompt_ends: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """int64 ``[rows + 1]``: the scored tokens of row ``q`` are ``offsets[q]:offsets[q + 1]`` of all scored ones."""
        counts: np.ndarray = np.concatenate([[0], np.cumsum(self.sequences.marks > 0)])[self.sequences.offsets]
        return counts


def encode_queries(
    tokenizer: Any,
    queries: Sequence[Query],
    *,
    end: bool = False,
    straddling: Literal["refuse", "keep", "drop"] = "keep",
    context: int | None = None,
) -> EncodedQueries:
    """Encodes prompt and target of each query by the space rule.

    Args:
        end: also put the end token behind each target and mark it, and mark a lone space before the target with ``GAP``, so
            that a greedy match means "says this and stops".
        straddling: what to do with queries whose target's tokens are no suffix of their text's, see ``EncodedQueries``.
        context: most tokens a query may have; None for no limit.

    Raises:
        UserError: a target without any token (names the query), or a tokenizer that lacks offsets or, if asked for, an end
            token; straddling queries that are refused, or none but those; a query longer than the context.
    """
    joined = [(*join(query.prompt, query.target), len(query.prompt)) for query in queries]
    prefix, suffix = start_tokens(tokenizer), [end_token(tokenizer)] if end else []
    numbers: list[int] = []
    rows: list[list[int]] = []
    marks: list[list[int]] = []
    bad: list[int] = []
    ends: list[int] = []
    for i, (query, text, at) in enumerate(zip(queries, joined, place(tokenizer, joined), strict=True)):
        if at is None:
            raise UserError(
                f"query {query.id or i}: its target {query.target!r} has no token of its own after the prompt {query.prompt!r}"
            )
        if text[0][at.spans[at.first][0] : text[1]].strip():
            bad.append(i)
            if straddling == "drop":
                continue
        numbers.append(i)
        rows.append(at.ids)
        gap = at.begin if end else at.first
        marks.append([0] * gap + [GAP] * (at.first - gap) + [1] * (at.last - at.first) + [0] * (len(at.ids) - at.last))
        ends.append(len(prefix) + at.begin - 1)
    names = tuple(queries[i].id or str(i) for i in bad)
    if bad and straddling == "refuse":
        raise UserError(
            f"query {names[0]}: the tokens of its target {queries[bad[0]].target!r} are no suffix of those of its text, "
            "because the first one also holds a part of the prompt "
            f"{queries[bad[0]].prompt[-30:]!r} ({len(bad)} queries are so, of {len(queries)}); choose --straddling keep or "
            "--straddling drop"
        )
    if bad and not numbers:
        raise UserError("every query was dropped: no target is a suffix of its text's tokens with this tokenizer")
    sequences = Sequences.of(rows, marks).wrapped(prefix, suffix, suffix_mark=1)
    kept = tuple(queries[i] for i in numbers)
    if context is not None and len(rows) and int(sequences.lengths.max()) > context:
        longest = int(sequences.lengths.argmax())
        raise UserError(
            f"query {kept[longest].id}: has {int(sequences.lengths[longest])} tokens, but the window is {context}; use a "
            "window of at least as many or a shorter prompt"
        )
    return EncodedQueries(kept, np.array(numbers, np.int64), sequences, names, np.array(ends, dtype=np.int64))
