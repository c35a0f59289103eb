"""Unrelated text as rows of tokens, to be read beside entries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from engramlab.core.text import tokens
from engramlab.core.text.batches import TokenRows
from engramlab.core.text.tokens import Sequences


def windows(tokenizer: Any, texts: Iterable[str], width: int, most: int) -> TokenRows:
    """Texts laid end to end, each with its end token, and cut into rows of ``width`` tokens; at most ``most`` tokens.

    Fewer rows than asked for where the texts end before; none where they hold less than one row.
    """
    ids: list[np.ndarray] = []
    total, end = 0, [tokens.end_token(tokenizer)]
    for text in texts:
        ids.append(np.array(tokens.encode(tokenizer, [text])[0][0] + end, np.int32))
        total += len(ids[-1])
        if total >= most:
            break
    rows = min(total, most) // width
    flat = np.concatenate(ids)[: rows * width] if rows else np.empty(0, np.int32)
    return TokenRows(Sequences(flat, np.arange(rows + 1) * width, np.zeros(len(flat), np.int8)))
