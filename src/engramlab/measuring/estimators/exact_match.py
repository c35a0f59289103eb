"""Would the model, asked with the prompt, write exactly the target and stop?

Decided from one pass over prompt, target and end token; see ``Scores.exact``.

Source: arXiv 2309.14316, section 2.2 (accuracy: the share of answers equal to the gold answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Query
from engramlab.core.forward.decoding import Decoding
from engramlab.core.text.tokens import encode_queries
from engramlab.measuring.scoring import score

UNIT = "share"


@dataclass(frozen=True)
class Config:
    """The target and nothing else."""


def estimate(
    model: nn.Module, tokenizer: Any, queries: Sequence[Query], config: Config, *, decoding: Decoding | None = None
) -> np.ndarray:
    """float64 ``[queries]``: 1.0 where the likeliest token is the right one from the target's first to the end token."""
    rows = encode_queries(tokenizer, queries, end=True).sequences
    return score(model, rows, decoding=decoding).exact().astype(np.float64)
