"""ProofWriter (Tafjord et al., arXiv 2012.13048) as Logic-LLM's copies have it: ``{id, context, question, options, answer}``.

The file does not tell which sentences the answer needs: all are its facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.corpora.episodes import Episode
from engramlab.reading.deductions import _lettered


def recognises(record: Mapping[str, Any]) -> bool:
    return _lettered.recognises(record) and "explanation" not in record


def episodes(record: Mapping[str, Any], where: str, number: int) -> list[Episode]:
    """Raises UserError."""
    facts, question, answer, labels = _lettered.parts(record, where)
    return [Episode(str(record.get("id") or number), tuple(facts), question, answer, labels)]
