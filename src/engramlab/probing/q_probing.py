"""Q-probing: what a hidden state of a name alone says about its attributes.

The input is the start token, the full name and the end token. A causal model's state is read at the end token, which has seen
the whole name; or, for a model that was not made for that, at the last token of a prompt with the name in it. A masked model
sees the whole name everywhere, and end tokens are never among what it learns to name: its state is read at the token before the
name, where BERT has its own token for a whole text.

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

At = Literal["end", "last", "first", "mask"]


def check_prompt(prompt: str) -> None:
    """Raises UserError unless a prompt has the name in it exactly once."""
    if prompt.count("{subject}") != 1:
        raise UserError(f"prompt: needs {{subject}} exactly once, such as 'The country {{subject}}': {prompt!r}")


def examples(tokenizer: Any, names: Sequence[str], prompt: str = "{subject}", at: At = "end") -> Examples:
    """One example a subject.

    Args:
        names: of the subjects.
        prompt: what is read, with ``{subject}`` in it.
        at: read at an end token put behind the prompt, at the prompt's last token, at the token before the prompt (the start
            token, or where the tokenizer has none the end token, as between packed texts), or at a mask token behind it.

    Raises:
        UserError: no ``{subject}``, a tokenizer without an end or mask token, or a name that it cannot write.
    """
    check_prompt(prompt)
    ids, _ = tokens.encode(tokenizer, [prompt.replace("{subject}", name) for name in names])
    for name, row in zip(names, ids, strict=True):
        if not row or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in row):
            raise UserError(
                f"name {name!r}: the model's tokenizer has no tokens for it; was the model trained with another tokenizer?"
            )
    if at == "mask" and tokenizer.mask_token_id is None:
        raise UserError("at: `mask` is for masked models, and this one has no mask token; read at `end` or `last`")
    prefix, end = tokens.start_tokens(tokenizer), [] if at == "last" else [tokens.end_token(tokenizer)]
    suffix = [tokenizer.mask_token_id, *end] if at == "mask" else end
    texts = Sequences.of(ids).wrapped(prefix or (end if at == "first" else []), suffix)
    place = np.zeros(len(names)) if at == "first" else texts.lengths - (2 if at == "mask" else 1)
    return Examples(texts, place[:, None].astype(np.int64), np.arange(len(names), dtype=np.int64))
