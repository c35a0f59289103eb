"""ProntoQA (Saparov and He, arXiv 2210.01240) as Logic-LLM's copies have it: ``{..., explanation: [sentences]}``.

The sentences of the context that the explanation quotes are what the answer needs; all others are distractors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.corpora.episodes import Episode
from engramlab.reading import fields
from engramlab.reading.deductions import _lettered


def recognises(record: Mapping[str, Any]) -> bool:
    return _lettered.recognises(record) and "explanation" in record


def episodes(record: Mapping[str, Any], where: str, number: int) -> list[Episode]:
    """Raises UserError."""
    given, question, answer, labels = _lettered.parts(record, where)
    said = fields.text_list(record, "explanation", where)
    needed = tuple(sentence for sentence in said if sentence in given)
    rest = tuple(sentence for sentence in given if sentence not in needed)
    return [Episode(str(record.get("id") or number), needed, question, answer, labels, rest, len(needed))]
