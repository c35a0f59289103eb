"""KnowEdit (arXiv 2401.01286, ``zjunlp/KnowEdit``): wiki_recent, wiki_counterfact, ZsRE and WikiBio.

    prompt | text         the edit's prompt (WikiBio: the passage so far; a list of Sanitation alone: ``question``)
    target_new | labels   the new answer (WikiBio: the passage's next sentence)
    subject | concept     the subject
    ground_truth          the old answer, if the file has it (CKnowEdit: target_old)
    rephrase_prompt | rephrase                        generality (ZsRE)
    portability {kind: [{prompt, ground_truth}, ...]}  kinds: Reasoning, Logical_Generalization, Subject_Aliasing
    locality    {kind: [{prompt, ground_truth}, ...]}  kinds: Relation_Specificity, Forgetfulness

``ground_truth`` comes as a text, a list, or a list of lists [[answer, alias, ...], [another answer, ...]]: the first is
the target and all others count as right. An inner list that holds the edit's new answer names its aliases, so the edit
has them too. Kinds become groups whatever they are called. CKnowEdit has no kinds, but lists of {prompt, answer} at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from engramlab.base.facts import Case, Query
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, entry_judges, judging, put_together
from engramlab.files.text import wrong_with

KEYS = "target_new with portability or locality, or text, labels and concept"


def recognises(record: Mapping[str, object]) -> bool:
    if "requested_rewrite" in record or "locality_prompt" in record or "locality_ground_truth" in record:
        return False
    if "target_new" in record:
        return "rephrase_prompt" not in record or "portability" in record or "locality" in record
    return "labels" in record and ("text" in record or "concept" in record)


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    subject = fields.name("subject" if fields.has("subject") else "concept")
    named = next((key for key in ("prompt", "text", "question") if key in record), "prompt")
    prompt = fields.prompt(named, subject)
    target = fields.answers("labels" if "labels" in record and "target_new" not in record else "target_new")
    rephrase = "rephrase" if "rephrase" in record and "rephrase_prompt" not in record else "rephrase_prompt"

    target = tuple(dict.fromkeys((*target, *_aliases(fields, target[0]))))
    judges = [judging("generality", "rephrase", one, target) for one in fields.prompts(rephrase, subject)]
    judges += _by_kind(fields, "portability", subject)
    judges += _by_kind(fields, "locality", subject)
    old = fields.answers("ground_truth", needed=False) or fields.answers("target_old", needed=False)
    change = edit(prompt, subject, target, old)
    return put_together(case_id(fields, "case_id", "id"), [change], judges)


def _by_kind(fields: Fields, role: str, subject: str) -> list[Query]:
    if isinstance(fields.values.get(role), list):  # without kinds
        return [query for entry in fields.entries(role) for query in _entry(entry, role, role, subject)]
    kinds = fields.inner(role)
    for kind in kinds.values:
        if wrong := wrong_with(kind, 100):
            raise kinds.bad(kind, wrong)
    return [
        query for kind in kinds.values for entry in kinds.entries(kind) for query in _entry(entry, role, kind, subject)
    ]


def _entry(entry: Fields, role: str, kind: str, subject: str) -> list[Query]:
    answer = "answer" if entry.has("answer") and not entry.has("ground_truth") else "ground_truth"
    return entry_judges(entry, role, kind, subject, answer=answer)


def _aliases(fields: Fields, target: str) -> list[str]:
    """What the file writes beside the new answer in one inner list of Subject_Aliasing, which asks for that answer."""
    found: list[str] = []
    if isinstance(fields.values.get("portability"), list):
        return found
    for entry in fields.inner("portability").entries("Subject_Aliasing"):
        given = entry.values.get("ground_truth")
        for spellings in given if isinstance(given, list) else []:
            if isinstance(spellings, list) and target in spellings:
                found += Fields({"ground_truth": spellings}, entry.index, entry.path).answers("ground_truth")
    return found
