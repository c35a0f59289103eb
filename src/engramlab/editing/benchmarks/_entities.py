"""What ECBD and Entity Inferences share: an entity's definition as the edit, and sentences about it with a gap.

Gaps read ``<extra_id_0>``, and what fills one ``<extra_id_0> ... <extra_id_1>``, as T5 has them. A model that reads
from left to right is shown what stands before a gap, and fills it; what stands behind is only in the edit's
``statement``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from engramlab.base.facts import Case, Edit, Query
from engramlab.base.joining import cut
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, judging, put_together
from engramlab.files.text import wrong_with

GAP = "<extra_id_0>"
_FILLED = re.compile(r"^\s*<extra_id_0>(.*?)(?:<extra_id_1>)?\s*$", re.DOTALL)


def recognises(record: Mapping[str, object], options: bool) -> bool:
    """Is it a record of these, and has it options to choose among?"""
    probes = record.get("probe_sentences")
    if "definition" not in record or not isinstance(probes, dict):
        return False
    return any(isinstance(one, dict) and "labels" in one for one in probes.values()) == options


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    entity = fields.name("ent_str")
    if not entity:
        raise fields.bad("ent_str", "is missing; it must be the entity's name")
    probes = fields.inner("probe_sentences")
    judges = [query for key in probes.values for query in _probe(fields, probes.inner(key), entity)]
    if not judges:
        raise fields.bad("probe_sentences", "is missing; it must hold a sentence with a gap")
    return put_together(case_id(fields, "ex_id"), [_definition(fields, entity)], judges)


def _definition(fields: Fields, entity: str) -> Edit:
    target = _span(fields, "def_target", fields.prompt("def_target"))
    prompt, said = _filled(fields, "definition", target)
    text = fields.prompt("definition").replace(GAP, target)
    return replace(edit(prompt, entity, (said,)), statement=" ".join(text.split()))


def _probe(fields: Fields, probe: Fields, entity: str) -> list[Query]:
    sentence = probe.prompt("probe_sentence")
    if entity.casefold() not in sentence.casefold():
        raise probe.bad("probe_sentence", f"does not name the entity, {entity[:60]!r}")
    options = [_span(probe, "labels", one) for one in probe.prompts("labels")]
    holder = probe if probe.has("label") else fields
    label = _span(holder, "label", holder.prompt("label"))
    if options and label not in options:
        raise holder.bad("label", f"{label[:60]!r} is none of the {len(options)} labels")
    prompt, said = _filled(probe, "probe_sentence", label)
    made = [replace(judging("portability", "probe", prompt, (said,)), subject=entity)]
    for option in dict.fromkeys(options):
        if option != label:
            made.append(judging("rival", "option", prompt, (_filled(probe, "probe_sentence", option)[1],)))
    return made


def _span(fields: Fields, key: str, text: str) -> str:
    """What fills a gap, with or without the marks around it."""
    found = _FILLED.match(text)
    inner = (found[1] if found else text).strip()
    if not inner or "<extra_id_" in inner:
        raise fields.bad(key, f"must be one span of text, written {GAP} ... <extra_id_1>")
    return inner


def _filled(fields: Fields, key: str, span: str) -> tuple[str, str]:
    """What stands before the gap, and the span as it joins to that."""
    text = fields.prompt(key)
    if text.count("<extra_id_") != 1 or GAP not in text:
        raise fields.bad(key, f"must have one gap, {GAP}, and has {text.count('<extra_id_')} marks")
    before = text.partition(GAP)[0]
    if not before.strip():
        raise fields.bad(key, "has its gap at the very start; something must stand before it")
    if wrong := wrong_with(before + span):
        raise fields.bad(key, wrong)
    return cut(before + span, len(before), len(before) + len(span))
