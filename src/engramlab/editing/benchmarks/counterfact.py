"""CounterFact, as ROME publishes it (arXiv 2202.05262) and as EasyEdit flattens it.

Nested::

    requested_rewrite {prompt with {}, subject, target_new {str}, target_true {str}, relation_id}
    paraphrase_prompts     generality
    neighborhood_prompts   locality: other subjects of which the *old* answer is true; texts, or {prompt, target}

``attribute_prompts`` (other subjects of which the *new* answer is already true) are in no table of the paper and would
be counted twice with the neighbourhood, so they are left out. ``generation_prompts``, which the paper uses for fluency
and consistency, are not used for now.

Flat: ``prompt``, ``subject``, ``target_new``, ``ground_truth`` (the old answer), ``rephrase_prompt`` (generality),
``locality_prompt`` with ``locality_ground_truth``. Either may have ``portability`` {"New Question", "New Answer"}.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.base.facts import Case, Query
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, entry_judges, judging, one_hop, put_together

KEYS = "requested_rewrite (an object), or target_new with locality_prompt or rephrase_prompt"


def recognises(record: Mapping[str, object]) -> bool:
    if "requested_rewrite" in record:
        return isinstance(record["requested_rewrite"], dict)
    if "target_new" not in record:
        return False
    if "locality_prompt" in record or "locality_ground_truth" in record:
        return True
    return "rephrase_prompt" in record and "locality" not in record and "portability" not in record


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    return _nested(fields) if "requested_rewrite" in record else _flat(fields)


def _nested(fields: Fields) -> Case:
    rewrite = fields.inner("requested_rewrite")
    subject = rewrite.name("subject")
    target = rewrite.inner("target_new").answers("str")
    old = rewrite.inner("target_true").answers("str", needed=False)
    change = edit(rewrite.prompt("prompt", subject), subject, target, old, rewrite.name("relation_id"))
    judges = [judging("generality", "paraphrase", one, target) for one in fields.prompts("paraphrase_prompts", subject)]
    judges += one_hop(fields)
    judges += _neighborhood(fields, old)
    return put_together(case_id(fields, "case_id", "id"), [change], judges)


def _neighborhood(fields: Fields, old: tuple[str, ...]) -> list[Query]:
    key = "neighborhood_prompts"
    given = fields.values.get(key)
    if isinstance(given, list) and any(isinstance(one, dict) for one in given):  # as MEMIT's readers make them
        answered = [(entry.prompt("prompt"), entry.answers("target", needed=False)) for entry in fields.entries(key)]
    else:
        answered = [(prompt, ()) for prompt in fields.prompts(key)]
    return [judging("locality", "neighborhood", prompt, answers or old) for prompt, answers in answered]


def _flat(fields: Fields) -> Case:
    subject = fields.name("subject")
    target = fields.answers("target_new")
    old = fields.answers("ground_truth", needed=False)
    change = edit(fields.prompt("prompt", subject), subject, target, old, fields.name("relation_id"))
    judges = [judging("generality", "rephrase", one, target) for one in fields.prompts("rephrase_prompt", subject)]
    judges += one_hop(fields)
    if fields.has("locality_prompt") or fields.has("locality_ground_truth"):
        judges += entry_judges(
            fields, "locality", "neighborhood", prompt="locality_prompt", answer="locality_ground_truth"
        )
    return put_together(case_id(fields, "case_id", "id"), [change], judges)
