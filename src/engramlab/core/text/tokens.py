"""Text to tokens: the one space rule, and character spans to token spans.

Everything that asks where a target begins — label masks, scoring, probing positions, edits — asks here.

**The space rule.** A target is joined to its prompt by one space, unless the prompt is empty or already ends in white
space, or the target begins with white space or with closing punctuation (", who", "'s car", but not ".NET" or
"'s-Hertogenbosch", where the mark begins a word). The joined *text* is tokenised as a whole, and the target's tokens are
those that hold a character of the target; so they are the tokens the model sees in running text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engramlab.base.errors import UserError
from engramlab.base.facts import Query

#: Mark of a token that holds nothing but the space before a value (many tokenizers cut " 1996" that way). A model must write
#: it, so it is trained and counts for an exact match; but it is no token of the value, and never the value's first.
GAP = 127
# Punctuation or a clitic, unless a word begins with it.
_CLOSING = re.compile(r"(?:[,.;:!?)\]}%”»]++|['’](?:s|d|m|t|re|ve|ll)?)(?![\w-])")


@dataclass(frozen=True)
class Sequences:
    """Token rows of different lengths, laid end to end.

    Attributes:
        ids: int32 ``[total]`` token ids.
        offsets: int64 ``[rows + 1]``; row ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.
        marks: int8 ``[total]``: 0 for plain text; what other values mean is the maker's to say (``attribute + 1`` for the
            tokens of an entry, 1 for the target tokens of a query, ``GAP`` for a lone space before either).
    """

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


def join(prompt: str, target: str) -> tuple[str, int, int]:
    """Joins a target to its prompt by the space rule.

    Returns:
        The text and the character span ``[start, end)`` of the target in it, without the joining space.

    Examples:
        >>> join("The capital of France is", "Paris")
        ('The capital of France is Paris', 25, 30)
        >>> join("It is called ", "Paris")
        ('It is called Paris', 13, 18)
        >>> join("He said", ", loudly")
        ('He said, loudly', 7, 15)
        >>> join("The capital is", "'s-Hertogenbosch")
        ("The capital is 's-Hertogenbosch", 15, 31)
    """
    bare = target.lstrip()
    if target != bare:
        gap = target[: len(target) - len(bare)]
    elif not prompt or prompt[-1].isspace() or _CLOSING.match(bare):
        gap = ""
    else:
        gap = " "
    start = len(prompt) + len(gap)
    return prompt + gap + bare, start, start + len(bare)


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
    """Token ids and character offsets of each text, without special tokens."""
    require_offsets(tokenizer)
    if not texts:
        return [], []
    out = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    return out["input_ids"], out["offset_mapping"]


@dataclass(frozen=True)
class EncodedQueries:
    """Queries as token rows, and which of them do not split cleanly.

    Attributes:
        sequences: start tokens, prompt, target (and end token where asked); marks are 1 on what is to be scored.
        straddling: indices of queries whose first target token also holds a character of the prompt other than white space;
            they are scored with that token included.
        prompt_ends: int64 ``[rows]``: index in its row of the last token that a model asked with the prompt alone has read;
            a lone space before the target is written by the model already.
    """

    sequences: Sequences
    straddling: tuple[int, ...]
    prompt_ends: np.ndarray


def encode_queries(tokenizer: Any, queries: Sequence[Query], *, end: bool = False) -> EncodedQueries:
    """Encodes prompt and target of each query by the space rule.

    Args:
        end: also put the end token behind each target and mark it, and mark a lone space before the target with ``GAP``, so
            that a greedy match means "says this and stops".

    Raises:
        UserError: a target without any token (names the query), or a tokenizer that lacks offsets or, if asked for, an end
            token.
    """
    joined = [join(query.prompt, query.target) for query in queries]
    ids, offsets = encode(tokenizer, [text for text, _, _ in joined])
    marks: list[list[int]] = []
    straddling: list[int] = []
    ends: list[int] = []
    for i, ((text, start, stop), row, spans) in enumerate(zip(joined, ids, offsets, strict=True)):
        try:
            first, last = token_span(spans, start, stop)
        except ValueError:
            raise UserError(
                f"query {queries[i].id or i}: its target {queries[i].target!r} has no token of its own after the prompt "
                f"{queries[i].prompt!r}"
            ) from None
        if text[spans[first][0] : start].strip():
            straddling.append(i)
        marks.append([1 if first <= k < last else 0 for k in range(len(row))])
        begin = answer_begins(text, spans, first, len(queries[i].prompt))
        for k in range(begin, first) if end else ():
            marks[-1][k] = GAP
        ends.append(begin - 1)
    suffix = [end_token(tokenizer)] if end else []
    prefix = start_tokens(tokenizer)
    sequences = Sequences.of(ids, marks).wrapped(prefix, suffix, suffix_mark=1)
    return EncodedQueries(sequences, tuple(straddling), np.array(ends, dtype=np.int64) + len(prefix))


def answer_begins(text: str, offsets: Sequence[tuple[int, int]], first: int, prompt: int) -> int:
    """Token index at which a model that was given the prompt alone begins to write.

    That is the target's first token, or the first of the tokens before it that hold nothing but space behind the prompt.

    Args:
        text: prompt and target, joined.
        offsets: character offsets of its tokens.
        first: the target's first token.
        prompt: characters of the prompt.
    """
    begin = first
    while begin > 0 and offsets[begin - 1][0] >= prompt and not text[slice(*offsets[begin - 1])].strip():
        begin -= 1
    return begin
