"""ECBD, Entity Cloze by Date (arXiv 2305.01651): new entities by their definition, and sentences about them with a gap.

    definition, def_target    the edit: what stands before the definition's gap, and what fills it
    ent_str                   the entity
    probe_sentences           {name: {probe_sentence, label}}: portability ("probe")

The whole definition is the edit's ``statement``. The paper's number, the perplexity of what fills a probe's gap, is that of the
log-probabilities in a row of ``evaluation.judge``.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.editing.benchmarks import _entities
from engramlab.editing.benchmarks._entities import case

__all__ = ["KEYS", "case", "recognises"]

KEYS = "definition, def_target and probe_sentences with one label"


def recognises(record: Mapping[str, object]) -> bool:
    return _entities.recognises(record, options=False)
