"""Questions to a model, answered in rows: what it writes, and how likely a target is.

rows = eg.ask(model, tokenizer, "The capital of France is")
rows = eg.score(model, tokenizer, table.queries())
rows.to_pandas()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.rows import Row, Rows
from engramlab.core.text.chat import Chat
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import (
    MOST_NEW_TOKENS,
    Room,
    TokenTexts,
    contexts,
    evidence_on,
    in_context,
    rooms,
    write,
)


def ask(
    model: nn.Module,
    tokenizer: Any,
    queries: str | Query | Sequence[str | Query],
    *,
    new_tokens: int | None = None,
    chat: bool = False,
) -> Rows:
    """What the model writes after each prompt, greedily, up to the end of the line (of a right answer of several: beyond).

    Args:
        queries: prompts, or queries, whose targets and aliases are the right answers; one or several.
        new_tokens: most tokens of an answer; by default 24, and more where a right answer is longer.
        chat: put each prompt as a message of a user, in the model's chat template. A right answer may then say the question
            again first.

    Returns:
        A row each: ``prompt``, ``written``; of a query also what names it, its ``target``, and ``right``: what was written
        begins with the target or an alias.

    Raises:
        UserError: a prompt that does not fit the model; ``chat`` with a model that has no chat template.
    """
    asked = _listed(queries)
    plain = _put([one if isinstance(one, Query) else Query(one, "") for one in asked], tokenizer, chat)
    most = MOST_NEW_TOKENS if new_tokens is None else new_tokens
    needed = rooms(tokenizer, plain, most, grows=new_tokens is None)
    texts = write(model, tokenizer, _read(model, plain), [needed.get(one.prompt, Room(most)) for one in plain])
    rows = Rows()
    for one, text in zip(asked, texts, strict=True):
        row: Row = {"prompt": one, "written": text} if isinstance(one, str) else {**_about(one), "written": text}
        if isinstance(one, Query) and one.target.strip():
            row["right"] = is_answer(text, (one.target, *one.aliases), one.prompt if chat else "")
        rows.append(row)
    return rows


def score(model: nn.Module, tokenizer: Any, queries: Query | Sequence[Query], *, chat: bool = False) -> Rows:
    """How likely the model finds each query's target behind its prompt, token by token.

    Args:
        chat: behind the prompt as a message of a user, in the model's chat template.

    Returns:
        A row each: what names the query, ``prompt``, ``target``, ``logprob`` (natural, of the whole target, given the true
        tokens before each), ``greedy`` (every token is the likeliest), and by token ``tokens``, ``logprobs``, ``ranks`` (0 is
        the likeliest) and ``predicted`` (the likeliest).

    Raises:
        UserError: a query without a target, or one that does not fit the model; ``chat`` as in ``ask``.
    """
    asked = _listed(queries)
    for query in asked:
        if not isinstance(query, Query) or not query.target.strip():
            raise UserError(
                f"query {getattr(query, 'prompt', query)!r} has no target to be scored: give a Query with one"
            )
    put = _put(asked, tokenizer, chat)
    behind = [replace(query, prompt=prompt) for query, prompt in zip(put, _read(model, put), strict=True)]
    words = TokenTexts(tokenizer)
    return Rows(
        {
            **_about(query),
            "logprob": float(sum(found.logprobs)),
            "greedy": all(found.greedy),
            "tokens": words(found.tokens),
            "logprobs": list(found.logprobs),
            "ranks": list(found.ranks),
            "predicted": words(found.predicted),
        }
        for query, found in zip(asked, evidence_on(model, tokenizer, behind, None, None), strict=True)
    )


def _put(queries: list[Query], tokenizer: Any, chat: bool) -> list[Query]:
    """The queries as they are put to the model."""
    return list(map(Chat(tokenizer).query, queries)) if chat else queries


def _listed(queries: Any) -> list[Any]:
    return [queries] if isinstance(queries, str | Query) else list(queries)


def _read(model: nn.Module, queries: Sequence[Query]) -> list[str]:
    """The prompts as the model reads them: some edits put a text before them."""
    there = contexts(model)
    return [in_context(there, query.prompt) for query in queries]


def _about(query: Query) -> Row:
    names = {name: getattr(query, name) for name in ("id", "subject", "relation", "role", "group")}
    return {**{name: value for name, value in names.items() if value}, "prompt": query.prompt, "target": query.target}
