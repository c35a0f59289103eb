"""Questions answered from passages: plainly, or with virtual tokens between passages and question.

tokens = eg.VirtualTokens.load("runs/tokens/tokens/vectors", model)
eg.answer_from(model, tokenizer, "Who founded it?", ["a passage", "another"], virtual_tokens=tokens)
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from engramlab.base.errors import UserError
from engramlab.base.progress import Progress
from engramlab.base.rows import Rows
from engramlab.core.deltas.virtual_tokens import VirtualTokens, placed
from engramlab.core.forward.generation import generate
from engramlab.core.models import context_limit
from engramlab.core.text.passages import Asked, fitting, prompts
from engramlab.measuring.asking import MOST_NEW_TOKENS


def written(
    model: nn.Module,
    tokenizer: Any,
    asked: Sequence[Asked],
    virtual: Sequence[int] = (),
    *,
    new_tokens: int = MOST_NEW_TOKENS,
    progress: Progress | None = None,
) -> list[str]:
    """The line that a model, with virtual tokens ``placed`` on it where there are ids, writes behind each question."""
    rows = prompts(tokenizer, asked, virtual)
    return generate(model, tokenizer, rows, max_new_tokens=new_tokens, stop_at_line_end=True, progress=progress)


def answer_from(
    model: nn.Module,
    tokenizer: Any,
    questions: str | Sequence[str],
    passages: Sequence[str] | Sequence[Sequence[str]],
    *,
    virtual_tokens: VirtualTokens | None = None,
    k: int | None = None,
    new_tokens: int = MOST_NEW_TOKENS,
) -> Rows:
    """What a model answers from passages, greedily, up to the end of the line.

    Args:
        questions: one or several.
        passages: those of all questions, or a list for each; the most important first. Without one no virtual token stands
            before a question, and the model is itself.
        virtual_tokens: trained for this model, see ``VirtualTokens.load``.
        k: how many of them, the first ones; all by default.

    Returns:
        A row each: ``question``, ``passages`` (how many were read) and ``written``.

    Raises:
        UserError: as many lists of passages as questions are not there, a blank passage or question, a ``k`` that is none, or
            a question that does not fit with its passages: none is left out.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    each: list[Any] = list(passages) if passages and not isinstance(passages[0], str) else [passages] * len(asked)
    if len(each) != len(asked):
        raise UserError(f"passages: {len(asked)} questions have {len(each)} lists of passages; give one for each")
    texts = [*asked, *(text for of in each for text in of)]
    if any(not isinstance(text, str) or not text.strip() for text in texts):
        raise UserError("questions and passages must be texts that are not empty")
    found = [Asked(question, tuple(of)) for question, of in zip(asked, each, strict=True)]
    if k is not None and virtual_tokens is None:
        raise UserError("k says how many virtual tokens are read, but there are none; give virtual_tokens too")
    ids = virtual_tokens.ids(k) if virtual_tokens is not None else []
    _, left = fitting(tokenizer, found, len(ids), new_tokens, context_limit(model))
    if left:
        raise UserError(
            f"{left} passages do not fit the model's {context_limit(model)} tokens beside their questions; give fewer or "
            "shorter ones"
        )
    with placed(model, virtual_tokens) if virtual_tokens is not None else contextlib.nullcontext():
        texts = written(model, tokenizer, found, ids, new_tokens=new_tokens)
    return Rows(
        {"question": one.question, "passages": len(one.passages), "written": text}
        for one, text in zip(found, texts, strict=True)
    )
