"""RoundEdit (arXiv 2310.02129): an answer among several right ones, edited away and back.

    edit {relation {id, prompt with {}, query}, subject {label}, object {label}, new_object {label}}
    true_objects [{label}, ...]    everything that is right, the edit's old answer among it
    type                           "1-3@P276": three answers, and the relation

The case is the way there, from ``object`` to ``new_object``. All true objects are old answers (``query.target`` and its
aliases), so that a way back, and what became of the others, can be had of it. The relation's question is generality.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.base.errors import quoted
from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, case_id, judging, put_together
from engramlab.editing.benchmarks._triples import triple

KEYS = "edit (an object with a relation) with true_objects"


def recognises(record: Mapping[str, object]) -> bool:
    change = record.get("edit")
    return "true_objects" in record or (isinstance(change, dict) and isinstance(change.get("relation"), dict))


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    made = triple(fields.inner("edit"))
    right = tuple(dict.fromkeys(entry.answers("label")[0] for entry in fields.entries("true_objects")))
    if made.object not in right:
        raise fields.bad("true_objects", f"must hold the edit's object, {quoted(made.object)}")
    if len(right) < 2:
        raise fields.bad("true_objects", f"holds {quoted(made.object)} alone; there must be another right answer")
    if made.new in right:
        raise fields.bad("true_objects", f"holds the new object, {quoted(made.new)}; it must be one that is not right")
    others = [one for one in right if one != made.object]
    judges = [judging("generality", "question", one, (made.new,)) for one in made.questions]
    return put_together(case_id(fields, "case_id", "id"), [made.edit(*others)], judges)
