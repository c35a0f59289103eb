"""Edits kept as texts, of which those nearest to a prompt are read before it: what note-reading methods share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from engramlab.base.errors import UserError, note
from engramlab.base.facts import Edit
from engramlab.base.likeness import WordIndex
from engramlab.core.forward.retrieval import VectorIndex, mean_states
from engramlab.core.models import context_limit
from engramlab.editing.requests import encode_edits, name_of, statement_of
from engramlab.measuring.asking import MOST_NEW_TOKENS

By = Literal["words", "states"]


class Texts:
    """Texts with the prompts they answer, and the search among them.

    Args:
        prompts: of the edits, ``[n]``, each once.
        texts: the edits as sentences, ``[n]``.
        keys: what a prompt is compared with, ``[n]``: the prompts or the texts.
        vectors: of the keys, ``[n, d]``, by the model's own states; None where words are compared.
    """

    def __init__(
        self, prompts: Sequence[str], texts: Sequence[str], keys: Sequence[str], vectors: torch.Tensor | None = None
    ) -> None:
        self.prompts, self.texts, self.vectors = tuple(prompts), tuple(texts), vectors
        self._words = WordIndex(keys)
        self._states = None if vectors is None or not len(vectors) else VectorIndex(vectors)

    def __len__(self) -> int:
        return len(self.prompts)

    def nearest(
        self, prompts: Sequence[str], count: int, model: nn.Module | None = None, tokenizer: Any = None
    ) -> list[list[str]]:
        """The ``count`` texts nearest to each prompt, the nearest first; fewer where there are fewer.

        Where states are compared it takes the model; without one words are compared.
        """
        if self._states is None or model is None:
            return [[self.texts[i] for i in self._words.nearest(prompt, count)] for prompt in prompts]
        places, _ = self._states.nearest(mean_states(model, tokenizer, prompts), count)
        return [[self.texts[i] for i in row] for row in places.tolist()]


def nearest_each(
    memories: Sequence[Texts], counts: Sequence[int], prompts: Sequence[str], model: nn.Module, tokenizer: Any
) -> list[list[str]]:
    """Of a memory for each prompt, the texts nearest to it; one search a memory."""
    found: list[list[str]] = [[]] * len(prompts)
    for memory, count in {id(m): (m, n) for m, n in zip(memories, counts, strict=True)}.values():
        some = [i for i, one in enumerate(memories) if one is memory]
        for i, texts in zip(some, memory.nearest([prompts[i] for i in some], count, model, tokenizer), strict=True):
            found[i] = texts
    return found


def gathered(edits: Sequence[Edit], older: Texts | None, tokenizer: Any) -> tuple[list[str], list[str]]:
    """Prompts and texts of an older memory's edits and of these, each prompt once.

    A prompt that is edited again has its newest text; a note names each edit that contradicts an earlier one, of the same
    call or of an earlier call.

    Raises:
        UserError: an edit without a target, or one whose text for reading is blank; names it.
    """
    encode_edits(tokenizer, [edits])  # only to refuse what no method could edit
    held = {} if older is None else dict(zip(older.prompts, older.texts, strict=True))
    new: dict[str, str] = {}
    for edit in edits:
        prompt, text = edit.query.question, statement_of(edit)
        if not text:
            raise UserError(f"{name_of(edit)}: its statement is blank; leave it out, or say the fact in it")
        before, call = (new[prompt], "the same") if prompt in new else (held.get(prompt, text), "an earlier")
        if before != text:
            note(f"{name_of(edit)} contradicts an earlier edit of {call} call, {before!r}; the later one counts")
        new.pop(prompt, None)
        new[prompt] = text
    every = {prompt: text for prompt, text in held.items() if prompt not in new} | new
    return list(every), list(every.values())


def vectors_of(model: nn.Module, tokenizer: Any, keys: Sequence[str], by: By) -> torch.Tensor | None:
    """What ``Texts`` takes as vectors."""
    return mean_states(model, tokenizer, keys).cpu() if by == "states" else None


def check_room(
    model: nn.Module, tokenizer: Any, edits: Sequence[Edit], reads: Sequence[str], share: float = 1.0
) -> None:
    """Raises UserError where what is read for an edit's prompt leaves no room for an answer in the model's context, or takes
    more than that share of it.

    Args:
        reads: the longest text that could be read for each edit's prompt.
    """
    limit = context_limit(model)
    rows = tokenizer(list(reads), add_special_tokens=False)["input_ids"] if limit and reads else []
    for edit, ids in zip(edits, rows, strict=False):
        most = min(int(share * limit), limit - MOST_NEW_TOKENS) if limit else len(ids)
        if len(ids) > most:
            raise UserError(
                f"{name_of(edit)}: with what is read before its prompt it has {len(ids)} tokens, and {most} of the model's "
                f"context of {limit} may be taken; keep fewer or shorter texts"
            )
