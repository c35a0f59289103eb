"""Masked language modelling of whole words: a transformation of any stream of batches.

Source: BERT's recipe (Devlin et al., arXiv 1810.04805, section 3.1, with whole words) as arXiv 2309.14316 uses it: 15 % of
the words are chosen; of these 80 % are hidden behind mask tokens, 10 % stay as they are and 10 % become random tokens. The
model has to name the original tokens of all chosen words. A question has its whole answer hidden instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engramlab.base import random_access
from engramlab.core.text.batches import ALL, IGNORE, Batch, Stream
from engramlab.core.text.tokenizers import WordStarts

MASKED, KEPT = 0.8, 0.1  # of the chosen words; the rest become random
_WHOLE = 1 << 32


class Masked:
    """A stream's rows with words hidden; targets stand where the hidden tokens stand.

    What is hidden in a row is a keyed hash of the row's number, so only that number is state. End, padding and other special
    tokens are never chosen, and no random token is one of them.

    Args:
        stream: batches for next-token prediction.
        words: which tokens begin words.
        mask: id of the mask token.
        share: of the words, chosen each by itself.
        answers: hide exactly the target tokens of ``stream`` (one that counts answers only) instead, and all of them.
        seed: of what is chosen.
    """

    def __init__(
        self,
        stream: Stream,
        words: WordStarts,
        *,
        mask: int,
        share: float = 0.15,
        answers: bool = False,
        seed: int,
    ) -> None:
        self.stream, self.words, self.mask, self.share, self.answers = stream, words, mask, share, answers
        self._keys = {name: random_access.key(seed, "masking", name, 0) for name in ("chosen", "fate", "token")}
        self.row = 0

    def take(self, rows: int, own: slice = ALL) -> Batch:
        """The next ``rows`` rows, of them ``own``; ``inside`` tells which of their tokens are not padding."""
        batch = self.stream.take(rows, own)
        ids = batch.input_ids.numpy()
        inside = np.ones(ids.shape, dtype=bool) if batch.inside is None else batch.inside.numpy()
        numbers = (self.row + np.arange(rows, dtype=np.uint64)[own])[:, None] << np.uint64(20)
        self.row += rows
        plain = inside & ~self.words.special[ids]
        if self.answers:
            # A batch for next-token prediction has a token's target one place earlier.
            chosen = np.zeros(ids.shape, dtype=bool)
            chosen[:, 1:] = batch.targets.numpy()[:, :-1] != IGNORE
            chosen &= plain
            hidden = np.where(chosen, self.mask, ids)
        else:
            word = numbers + np.cumsum(self.words.begins(ids), axis=1).astype(np.uint64)
            chosen = plain & (self._uniform("chosen", word) < self.share)
            fate = self._uniform("fate", word)
            place = numbers + np.arange(ids.shape[1], dtype=np.uint64)
            regular = self.words.regular
            other = regular[random_access.draw(self._keys["token"], place, len(regular))]
            changed = np.where(fate < MASKED, self.mask, np.where(fate < MASKED + KEPT, ids, other))
            hidden = np.where(chosen, changed, ids)
        targets = np.where(chosen, ids, IGNORE)
        return Batch(
            torch.from_numpy(hidden), torch.from_numpy(targets), batch.tokens, batch.source, torch.from_numpy(inside)
        )

    def _uniform(self, name: str, index: np.ndarray) -> np.ndarray:
        return random_access.draw(self._keys[name], index, _WHOLE) / _WHOLE

    def state(self) -> dict[str, Any]:
        """Row number and the state of the stream."""
        return {"row": self.row, "stream": self.stream.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores row number and stream."""
        self.row = int(state["row"])
        self.stream.restore(state["stream"])
