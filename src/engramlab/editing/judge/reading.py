"""How likely facts are under edits: many cases in one batch, each read under its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import nn

from engramlab.base.facts import Query
from engramlab.core.deltas import Delta, together
from engramlab.measuring.asking import Evidence, as_read, evidence_on


def read(
    model: nn.Module, tokenizer: Any, groups: Sequence[Sequence[Query]], own: Sequence[Delta] | None = None
) -> list[list[Evidence]]:
    """Evidence on the target of every query of every group, in their order.

    Args:
        own: a delta a group, which its queries are read under; None: all are read under what is on the model.
    """
    asked = [(number, query) for number, group in enumerate(groups) for query in group]
    by = None if own is None else [own[number] for number, _ in asked]
    prompts = as_read(model, tokenizer, [query.prompt for _, query in asked], by)
    queries = [Query(prompt, query.target, id=query.id) for (_, query), prompt in zip(asked, prompts, strict=True)]
    owner = None if own is None else np.array([number for number, _ in asked], dtype=np.int64)
    with contextlib.nullcontext() if own is None else together(model, own):
        found = iter(evidence_on(model, tokenizer, queries, owner, None) if queries else [])
    return [list(islice(found, len(group))) for group in groups]
