"""Questions to a model, answered in rows: what it writes, and how likely a target is.

rows = eg.ask(model, tokenizer, "The capital of France is")
rows = eg.score(model, tokenizer, table.queries())
rows.to_pandas()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.facts import Query
from engramlab.base.random_access import key, permute
from engramlab.base.rows import Row, Rows
from engramlab.core.forward.decoding import Decoding, decoder_name, greedy
from engramlab.core.text.chat import Chat
from engramlab.measuring.answers import is_answer
from engramlab.measuring.asking import (
    MOST_NEW_TOKENS,
    Room,
    TokenTexts,
    as_read,
    evidence_on,
    rooms,
    write,
)
from engramlab.measuring.candidates import choose


def ask(
    model: nn.Module,
    tokenizer: Any,
    queries: str | Query | Sequence[str | Query],
    *,
    new_tokens: int | None = None,
    chat: bool = False,
    decoding: Decoding | None = None,
    passage: str = "",
    irrelevant: str = "",
    options: Sequence[str] = (),
    seed: int = 0,
) -> Rows:
    """What the model writes after each prompt, up to the end of the line (of a right answer of several: beyond).

    Args:
        queries: prompts, or queries, whose targets and aliases are the right answers; one or several.
        new_tokens: most tokens of an answer; by default 24, and more where a right answer is longer.
        chat: put each prompt as a message of a user, in the model's chat template. A right answer may then say the question
            again first.
        decoding: how the next token is chosen; greedy by default.
        passage: a text that stands before every prompt, a blank line between.
        irrelevant: for decoders that compare a passage with another one: a text on something else; by default the passage's
            words in another order.
        options: answers to choose from, beside what is written.
        seed: of decoders that draw.

    Returns:
        A row each: ``prompt``, ``written``; of a query also what names it, its ``target``, and ``right``: what was written
        begins with the target or an alias. With options ``chosen``, the likeliest, and ``probabilities``, which add up to 1.

    Raises:
        UserError: a prompt that does not fit the model; ``chat`` with a model that has no chat template; a decoder that
            compares passages, without one.
    """
    asked = _listed(queries)
    bare = [one if isinstance(one, Query) else Query(one, "") for one in asked]

    def put(text: str) -> list[Query]:
        return _put([replace(one, prompt=behind(text, one.prompt)) for one in bare], tokenizer, chat)

    how = decoding or greedy.Config()
    others = {"bare": "", "irrelevant": irrelevant or shuffled(passage)}
    if how.beside and not passage.strip():
        raise UserError(f"decoder {decoder_name(how)!r} compares a passage with none or another: give one")
    plain = put(passage)
    most = MOST_NEW_TOKENS if new_tokens is None else new_tokens
    needed = rooms(tokenizer, plain, most, grows=new_tokens is None)
    texts = write(
        model,
        tokenizer,
        _read(model, tokenizer, plain),
        [needed.get(one.prompt, Room(most)) for one in plain],
        decoding=how,
        beside=[_read(model, tokenizer, put(others[name])) for name in how.beside],
        seed=seed,
    )
    rows = Rows()
    for one, text in zip(asked, texts, strict=True):
        row: Row = {"prompt": one, "written": text} if isinstance(one, str) else {**_about(one), "written": text}
        if isinstance(one, Query) and one.target.strip():
            row["right"] = is_answer(text, (one.target, *one.aliases), one.prompt if chat else "")
        rows.append(row)
    if options:
        offered = [one.target for one in _put([Query("", option) for option in options], tokenizer, chat)]
        found = choose(
            model,
            tokenizer,
            _read(model, tokenizer, plain),
            [offered] * len(plain),
            decoding=None if how.beside else how,
        )
        shares = found.probabilities().reshape(len(plain), len(options))
        for row, of in zip(rows, shares.tolist(), strict=True):
            row |= {"chosen": options[of.index(max(of))], "probabilities": dict(zip(options, of, strict=True))}
    return rows


def behind(passage: str, prompt: str) -> str:
    """A prompt behind a passage, a blank line between; without one as it is."""
    return f"{passage.strip()}\n\n{prompt}" if passage.strip() else prompt


def shuffled(passage: str) -> str:
    """The passage's words in an order of the text's own: as long, as familiar, and of no help (as MICD's fixed passage)."""
    words = passage.split()
    return " ".join(words[i] for i in permute(key(0, *words), np.arange(len(words)), len(words))) if words else ""


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
    behind = [replace(query, prompt=prompt) for query, prompt in zip(put, _read(model, tokenizer, put), strict=True)]
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


def _read(model: nn.Module, tokenizer: Any, queries: Sequence[Query]) -> list[str]:
    """The prompts as the model reads them: some edits put a text before them."""
    return as_read(model, tokenizer, [query.prompt for query in queries])


def _about(query: Query) -> Row:
    names = {name: getattr(query, name) for name in ("id", "subject", "relation", "role", "group")}
    return {**{name: value for name, value in names.items() if value}, "prompt": query.prompt, "target": query.target}
