"""FICTIONAL KNOWLEDGE: passages about things that do not exist, with queries at three depths.

Source: How Do Large Language Models Acquire Factual Knowledge During Pretraining? (arXiv 2406.11813) and its dataset
(`kaist-ai/fictional-knowledge`; Apache-2.0 in the repository, CC-BY-4.0 on the hub card).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError
from engramlab.corpora.passages import PassageRecord
from engramlab.reading import fields

#: The dataset's names for the depths: `mem_input` and `mem_target` are lists of the same length.
_DEPTHS = {"memorization": "mem", "semantic": "gen", "compositional": "hard_gen"}


def recognises(record: Mapping[str, Any]) -> bool:
    return "train_context" in record


def passage(record: Mapping[str, Any], where: str, number: int) -> PassageRecord:
    """Raises UserError."""
    queries = []
    for depth, short in _DEPTHS.items():
        prompts, targets = (fields.text_list(record, f"{short}_{part}", where) for part in ("input", "target"))
        if len(prompts) != len(targets):
            raise UserError(
                f"{where}: {len(prompts)} of '{short}_input' do not go with {len(targets)} of '{short}_target'; give "
                "equally many"
            )
        for k, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            queries.append(fields.query(str(number), depth, k, prompt, target))
    text, paraphrases = fields.text(record, "train_context", where), fields.text_list(record, "paraphrases", where)
    return PassageRecord(str(number), text, paraphrases, tuple(queries), ("",) * len(queries))
