"""How likely is the target after the prompt?

Source: arXiv 2406.11813, section 3 (the log-probability of a target span, a mean over its tokens).
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

UNIT = "nats"


@dataclass(frozen=True)
class Config:
    """The target's natural log-probability."""

    whole: bool = False
    """Of the whole target; otherwise the mean over its tokens, so that long targets compare with short ones."""


def estimate(
    model: nn.Module, tokenizer: Any, queries: Sequence[Query], config: Config, *, decoding: Decoding | None = None
) -> np.ndarray:
    """float64 ``[queries]``: log-probabilities in nats."""
    scores = score(model, encode_queries(tokenizer, queries).sequences, decoding=decoding)
    return scores.mean_logprob() * (np.diff(scores.offsets) if config.whole else 1)
