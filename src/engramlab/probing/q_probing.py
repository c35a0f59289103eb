"""Q-probing: what the hidden state at the end of a name alone says about its attributes.

The input is the start token, the full name and the end token, and the state at the end token is read; or, for a model that was
not made for that, the last token of a prompt with the name in it.

Source: arXiv 2309.14316, section 5 (Q-probing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from engramlab.base.errors import UserError
from engramlab.core.text import tokens
from engramlab.core.text.tokens import Sequences
from engramlab.probing.examples import Examples

At = Literal["end", "last"]


def check_prompt(prompt: str) -> None:
    """Raises UserError unless a prompt has the name in it exactly once."""
    if prompt.count("{subject}") != 1:
        raise UserError(f"prompt: needs {{subject}} exactly once, such as 'The country {{subject}}': {prompt!r}")


def examples(tokenizer: Any, names: Sequence[str], prompt: str = "{subject}", at: At = "end") -> Examples:
    """One example a subject.

    Args:
        names: of the subjects.
        prompt: what is read, with ``{subject}`` in it.
        at: read at an end token put behind the prompt, or at the prompt's last token.

    Raises:
        UserError: no ``{subject}``, a tokenizer without an end token, or a name that it cannot write.
    """
    check_prompt(prompt)
    ids, _ = tokens.encode(tokenizer, [prompt.replace("{subject}", name) for name in names])
    for name, row in zip(names, ids, strict=True):
        if not row or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in row):
            raise UserError(
                f"name {name!r}: the model's tokenizer has no tokens for it; was the model trained with another tokenizer?"
            )
    suffix = [tokens.end_token(tokenizer)] if at == "end" else []
    texts = Sequences.of(ids).wrapped(tokens.start_tokens(tokenizer), suffix)
    return Examples(texts, (texts.lengths - 1)[:, None].astype(np.int64), np.arange(len(names), dtype=np.int64))
