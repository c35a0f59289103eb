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
from engramlab.measuring.asking import Evidence, contexts, evidence_on, in_context


def read(
    model: nn.Module, tokenizer: Any, groups: Sequence[Sequence[Query]], own: Sequence[Delta] | None = None
) -> list[list[Evidence]]:
    """Evidence on the target of every query of every group, in their order.

    Args:
        own: a delta a group, which its queries are read under; None: all are read under what is on the model.
    """
    common, queries, owners = contexts(model), [], []
    for number, group in enumerate(groups):
        active = common if own is None else (own[number], *common)
        queries += [Query(in_context(active, query.prompt), query.target, id=query.id) for query in group]
        owners += [number] * len(group)
    owner = None if own is None else np.array(owners, dtype=np.int64)
    with contextlib.nullcontext() if own is None else together(model, own):
        found = iter(evidence_on(model, tokenizer, queries, owner, None) if queries else [])
    return [list(islice(found, len(group))) for group in groups]
