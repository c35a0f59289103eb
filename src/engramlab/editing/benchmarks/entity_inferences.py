"""Entity Inferences (arXiv 2305.01651): new entities by their definition, and what follows from it, among options.

    definition, def_target    the edit: what stands before the definition's gap, and what fills it
    ent_str                   the entity
    probe_sentences           {name: {probe_sentence, labels}}: a sentence with a gap, and all that may fill it
    label                     what does: portability ("probe"); the other labels are ``rival``

The whole definition is the edit's ``statement``. The paper's number, how often the label is the likeliest of its options, is
``choices`` in ``judge/rivals.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.editing.benchmarks import _entities
from engramlab.editing.benchmarks._entities import case

__all__ = ["KEYS", "case", "recognises"]

KEYS = "definition, def_target and probe_sentences with labels"


def recognises(record: Mapping[str, object]) -> bool:
    return _entities.recognises(record, options=True)
