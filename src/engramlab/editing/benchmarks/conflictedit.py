"""ConflictEdit (arXiv 2310.02129): two edits in a row, of which the second overrules the first.

    edits [two of {relation {id, prompt with {}, query}, subject {label}, object {label}, new_object {label}}]
    triples [...]            the facts before: like edits, without a new object
    prerequisites [number]   the triples that tie the two edits together (composite)
    type                     reverse, composite or coverage

The case is ``ordered``: its edits are made one after another, and the last one is to hold in the end. Its question is
generality. Portability ("implied") is what it says about the first: (reverse) its new object as the subject of the
first relation, (composite) its new object in place of the first's. The facts that tie them are locality ("tied fact").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engramlab.base.errors import quoted
from engramlab.base.facts import Case
from engramlab.editing.benchmarks._fields import Fields, case_id, judging, put_together
from engramlab.editing.benchmarks._triples import triple

KEYS = "edits (two, each with a relation) with triples"
TYPES = ("reverse", "composite", "coverage")


def recognises(record: Mapping[str, object]) -> bool:
    return isinstance(record.get("edits"), list) and "triples" in record


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    kind = fields.name("type")
    if kind not in TYPES:
        raise fields.bad("type", f"must be one of {', '.join(TYPES)}")
    entries = fields.entries("edits")
    if len(entries) != 2:
        raise fields.bad("edits", f"holds {len(entries)}; there must be two")
    first, last = map(triple, entries)
    if (first.prompt, first.new) == (last.prompt, last.new):
        raise fields.bad("edits", "are the same twice; the second must overrule the first")
    if (first.prompt == last.prompt) != (kind == "coverage"):
        raise fields.bad("edits", "must have one prompt where the type is coverage, and only there")
    if kind == "reverse" and last.subject != first.new:
        wrong = f"say nothing of each other: the second is about {quoted(last.subject)}"
        raise fields.bad(
            "edits", f"{wrong}; where the type is reverse, it must be about the first's {quoted(first.new)}"
        )
    judges = [judging("generality", "question", one, (last.new,)) for one in last.questions]
    if kind == "reverse":
        about = first.wording.replace("{}", last.new)
        judges.append(replace(judging("portability", "implied", about, (last.subject,)), subject=last.new))
    elif kind == "composite":
        judges.append(replace(judging("portability", "implied", first.prompt, (last.new,)), subject=first.subject))
    triples = fields.entries("triples")
    given = fields.values.get("prerequisites") or []
    for number in given if isinstance(given, list) else [given]:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(triples):
            raise fields.bad("prerequisites", f"must be numbers of triples, of which there are {len(triples)}")
        tied = triple(triples[number], new=False)
        fact = judging("locality", "tied fact", tied.prompt, (tied.object,))
        judges.append(replace(fact, subject=tied.subject, relation=tied.relation))
    made = put_together(case_id(fields, "case_id", "id"), [first.edit(), last.edit()], judges)
    return replace(made, ordered=True)
