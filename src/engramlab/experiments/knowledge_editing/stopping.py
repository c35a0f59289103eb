"""Does a model come to an end by itself, with the answer and nothing more?

The texts that are judged have hardly more room than the answer, so that a right one shows its beginning alone: one that goes on
is right too, and many fill their room, before any edit as well. Here some of the edits' own prompts get room enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from engramlab.base.facts import Case, Query
from engramlab.base.rows import Row
from engramlab.core.forward.generation import continuations
from engramlab.core.models import context_limit
from engramlab.editing.judge.evaluation import queries_of
from engramlab.measuring.answers import same_answer
from engramlab.measuring.asking import MOST_NEW_TOKENS, as_read, lengths_of

_Thing = TypeVar("_Thing")
ROOM = 16  # tokens more than the longest answer takes
MOST = 100  # prompts asked after a count, of those that are judged


@dataclass(frozen=True)
class Stopping:
    """What the unedited model writes where there is room.

    Attributes:
        room: tokens a text may have.
        before: by prompt, the first line of its text, and whether it ended there by itself.
    """

    room: int
    before: Mapping[str, tuple[str, bool]]

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, cases: Sequence[Sequence[Case]]) -> Stopping:
        """Of the unedited model: the edited cases that are judged after each count."""
        queries = [query for some in cases for query in _asked(tokenizer, some)]
        prompts = list(dict.fromkeys(query.prompt for query in queries))
        room = max(lengths_of(tokenizer, queries).values(), default=0) + ROOM
        if limit := context_limit(model):
            longest = max((len(ids) for ids in tokenizer(prompts)["input_ids"]), default=0) if prompts else 0
            room = max(1, min(room, limit - longest))
        return cls(room, dict(zip(prompts, _written(model, tokenizer, prompts, room), strict=True)))

    def after(self, model: nn.Module, tokenizer: Any, cases: Sequence[Case]) -> Row:
        """After some edits, of these cases: ``stops``, the share of texts that end by themselves, by the end token or the end
        of the line; ``whole``, that of texts that are then the answer and nothing more; both with ``_before``; and how many
        were ``stops_asked``. None without any."""
        queries = _asked(tokenizer, cases)
        now = _written(model, tokenizer, [query.prompt for query in queries], self.room)
        found: Row = {"stops_asked": len(queries)}
        for name, texts in (("_before", [self.before[query.prompt] for query in queries]), ("", now)):
            whole = [
                ended and any(same_answer(text, answer) for answer in (query.target, *query.aliases))
                for query, (text, ended) in zip(queries, texts, strict=True)
            ]
            found[f"stops{name}"] = sum(ended for _, ended in texts) / len(texts) if texts else None
            found[f"whole{name}"] = sum(whole) / len(whole) if whole else None
        return found


def _asked(tokenizer: Any, cases: Sequence[Case]) -> Sequence[Query]:
    """The first prompt of at most ``MOST`` cases, evenly over them; not of those with an answer longer than is ever written."""
    queries = [queries_of(case)[0] for case in cases]
    lengths = lengths_of(tokenizer, queries)
    fits = [q for q in queries if max(lengths[text] for text in (q.target, *q.aliases)) <= MOST_NEW_TOKENS]
    return some_of(fits)


def some_of(things: Sequence[_Thing]) -> Sequence[_Thing]:
    """At most ``MOST`` of them, evenly over all."""
    return things[:: -(-len(things) // MOST) or 1]


def _written(model: nn.Module, tokenizer: Any, prompts: Sequence[str], room: int) -> list[tuple[str, bool]]:
    texts = as_read(model, tokenizer, prompts)
    return continuations(model, tokenizer, texts, max_new_tokens=room, batch=256, stop_at_line_end=True)
