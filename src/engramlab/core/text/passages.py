"""Passages, a question behind them, and what may stand between: texts to token rows, for training and for asking.

``[1] passage``, a line each, and an empty line; then the virtual tokens; then ``Question: …`` and ``Answer:`` (the form of
SPRING, arXiv 2405.19670). Text is tokenised as a whole, and where its parts begin is read off character spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engramlab.base.errors import UserError, quoted
from engramlab.base.joining import join
from engramlab.base.random_access import draw, key, permute
from engramlab.core.text.batches import ALL, Batch, OneEntryARow, Order, TokenRows
from engramlab.core.text.tokens import GAP, Sequences, encode, end_token, place, start_tokens, token_span


@dataclass(frozen=True)
class Asked:
    """A question with passages.

    Attributes:
        passages: the most important first; none is a question by itself, before which no virtual token stands.
        answers: right ones; one of them is drawn when it is trained.
        subject: whom it is about: what is split into those trained and those asked.
    """

    question: str
    passages: tuple[str, ...]
    answers: tuple[str, ...] = ()
    subject: str = ""


def head(passages: Sequence[str]) -> str:
    """What stands before the virtual tokens; nothing without a passage."""
    return "".join(f"[{number}] {text.strip()}\n" for number, text in enumerate(passages, 1)) + "\n" if passages else ""


def tail(question: str) -> str:
    """What stands behind them."""
    return f"Question: {question.strip()}\nAnswer:"


def prompts(tokenizer: Any, asked: Sequence[Asked], virtual: Sequence[int] = ()) -> list[list[int]]:
    """Token ids of each question behind its passages, ``virtual`` ids between, start tokens in front."""
    begins = [head(one.passages) for one in asked]
    texts = [begin + tail(one.question) for begin, one in zip(begins, asked, strict=True)]
    return [
        start_tokens(tokenizer) + _spliced(ids, spans, len(begin), virtual)[0]
        for begin, ids, spans in zip(begins, *encode(tokenizer, texts), strict=True)
    ]


def answered(tokenizer: Any, asked: Sequence[Asked], virtual: Sequence[int] = ()) -> Sequences:
    """The same with the (first) answer and the end token behind each, which are marked: 1, and ``GAP`` for a lone space.

    Raises:
        UserError: an answer without a token of its own.
    """
    texts = []
    for one in asked:
        prompt = head(one.passages) + tail(one.question)
        texts.append((*join(prompt, one.answers[0]), len(prompt)))
    rows, marks = [], []
    for one, at in zip(asked, place(tokenizer, texts), strict=True):
        if at is None:
            raise UserError(f"question {quoted(one.question)}: its answer {quoted(one.answers[0])} has no token")
        row, more = _spliced(at.ids, at.spans, len(head(one.passages)), virtual)
        rows.append(row)
        before, gap, own = at.begin + more, at.first - at.begin, at.last - at.first
        marks.append([0] * before + [GAP] * gap + [1] * own + [0] * (len(row) - before - gap - own))
    return Sequences.of(rows, marks).wrapped(start_tokens(tokenizer), [end_token(tokenizer)], suffix_mark=1)


def _spliced(
    ids: list[int], spans: Sequence[tuple[int, int]], border: int, virtual: Sequence[int]
) -> tuple[list[int], int]:
    """Ids with the virtual ones before the first that holds a character behind the border, and how many were put in."""
    if not border or not virtual:
        return ids, 0
    at = token_span(spans, border, spans[-1][1])[0]
    return [*ids[:at], *virtual, *ids[at:]], len(virtual)


def fitting(
    tokenizer: Any, asked: Sequence[Asked], virtual: int, new: int, limit: int | None
) -> tuple[list[Asked], int]:
    """The questions with as many of their first passages as fit, whole, and how many passages were left out in all.

    Args:
        virtual: tokens between.
        new: tokens of an answer.
        limit: tokens that the model reads; None for no limit.

    Raises:
        UserError: a question that does not fit with its first passage.
    """
    if limit is None or not asked:
        return list(asked), 0
    found, left = [], 0
    lengths = [len(row) for row in prompts(tokenizer, asked)]
    for one, length in zip(asked, lengths, strict=True):
        kept = one
        # Another order numbers them otherwise: two tokens a passage to spare.
        while length + (virtual if kept.passages else 0) + new + 2 * len(kept.passages) + 1 > limit:
            if len(kept.passages) < 2:
                raise UserError(
                    f"question {quoted(one.question)}: with its first passage, {virtual} virtual tokens and {new} tokens of an "
                    f"answer it has more than the model's {limit}; give shorter passages, or fewer virtual or new tokens"
                )
            kept = replace(kept, passages=kept.passages[:-1])
            length, left = len(prompts(tokenizer, [kept])[0]), left + 1
        found.append(kept)
    return found, left


class PassageRows:
    """Rows to train on: a question in a new order every epoch; a few of its passages, shuffled; one of its answers.

    How many passages (the first ones), their order and the answer are drawn anew each time; how many virtual tokens, from 1
    to all, once a batch.

    Args:
        virtual: ids of the virtual tokens; none for a training without.
        seed: of everything drawn.
    """

    def __init__(
        self,
        tokenizer: Any,
        asked: Sequence[Asked],
        *,
        virtual: Sequence[int] = (),
        seed: int = 0,
        length: int = 1 << 30,
    ) -> None:
        for one in asked:
            if not one.passages or not one.answers:
                lacks = "passages" if not one.passages else "answers"
                raise UserError(f"question {quoted(one.question)}: has no {lacks}, so there is nothing to train on")
        self.tokenizer, self.asked, self.virtual, self.seed = tokenizer, asked, list(virtual), seed
        self.order = Order(len(asked), key(seed, "rows"))
        empty = TokenRows(Sequences.of([]))
        self._pad = OneEntryARow(
            empty, self.order, start=[], end=end_token(tokenizer), length=length, answers_only=True
        )
        self.batch = 0

    def drawn(self, number: int, epoch: int) -> Asked:
        """A question as it is trained in an epoch."""
        one, of = self.asked[number], key(self.seed, "row", epoch, number)
        count = 1 + int(draw(key(of, "passages"), 0, len(one.passages)))
        order = permute(key(of, "order"), np.arange(count), count)
        answer = one.answers[int(draw(key(of, "answer"), 0, len(one.answers)))]
        return replace(one, passages=tuple(one.passages[int(i)] for i in order), answers=(answer,))

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The next ``rows`` questions, ``own`` of them as a batch, whose targets are the answers and their end tokens."""
        k = 1 + int(draw(key(self.seed, "virtual tokens"), self.batch, len(self.virtual))) if self.virtual else 0
        self.batch += 1
        numbers = [(int(self.order.next(1)[0]), self.order.epoch) for _ in range(rows)]
        made = [self.drawn(number, epoch) for number, epoch in numbers[own]]
        return self._pad.batch(answered(self.tokenizer, made, self.virtual[:k]))

    def state(self) -> dict[str, Any]:
        """The place in the order, and the number of the batch."""
        return {"order": self.order.state(), "batch": self.batch}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a saved place."""
        self.order.restore(state["order"])
        self.batch = int(state["batch"])
