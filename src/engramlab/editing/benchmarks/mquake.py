"""MQuAKE (arXiv 2305.14795): one or several edits a record, judged together by questions that need several hops.

    requested_rewrite [{prompt with {}, subject, target_new {str}, target_true {str}, question, relation_id}, ...]
    questions, new_answer, new_answer_alias    portability ("multi-hop"): the chain asked in three wordings
    single_hops, new_single_hops               the chain before and after: [{question, cloze, answer, answer_alias}]

The edits of a record are one case. An edit's own ``question`` is generality: its prompt, a cloze, in other words. A hop
that no edit touches, of the chain before or after, is locality ("unedited-hop"): a fact beside the edited one that must
stay. A hop that is edited lends the edit its aliases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engramlab.base.facts import Case, Edit, Query
from engramlab.editing.benchmarks._fields import Fields, HopQuery, case_id, edit, judging, put_together

KEYS = "requested_rewrite (a list) or questions with new_answer"


def recognises(record: Mapping[str, object]) -> bool:
    return isinstance(record.get("requested_rewrite"), list) or ("questions" in record and "new_answer" in record)


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    rewrites = fields.entries("requested_rewrite")
    if not rewrites:
        wrong = "is empty" if fields.has("requested_rewrite") else "is missing"
        raise fields.bad("requested_rewrite", f"{wrong}; it must be a list of edits")
    hops, new_hops = fields.entries("single_hops"), fields.entries("new_single_hops")
    edits: list[Edit] = []
    judges: list[Query] = []
    edited: set[str] = set()
    for rewrite in rewrites:
        subject = rewrite.name("subject")
        prompt = rewrite.prompt("prompt", subject)
        asked = rewrite.prompts("question", subject)
        target = _with_aliases(rewrite.inner("target_new").answers("str"), {prompt, *asked}, new_hops)
        old = rewrite.inner("target_true").answers("str", needed=False)
        edits.append(edit(prompt, subject, target, old, rewrite.name("relation_id")))
        judges += [judging("generality", "question", one, target) for one in asked]
        edited |= {prompt, *asked}

    questions = fields.prompts("questions")
    if not questions:
        raise fields.bad("questions", "is missing; it must be a list of questions")
    answers = tuple(dict.fromkeys(fields.answers("new_answer") + fields.answers("new_answer_alias", needed=False)))
    chain = tuple((tuple(sorted(_wordings(hop))), _spellings(hop, needed=False)) for hop in new_hops)
    judges += [
        HopQuery(one, answers[0], answers[1:], role="portability", group="multi-hop", hops=chain) for one in questions
    ]
    judges += _unedited(new_hops + hops, edited)
    return put_together(case_id(fields, "case_id", "id"), edits, judges)


def _wordings(hop: Fields) -> set[str]:
    return {*hop.prompts("question"), *hop.prompts("cloze")}


def _spellings(hop: Fields, *, needed: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hop.answers("answer", needed=needed) + hop.answers("answer_alias", needed=False)))


def _with_aliases(target: tuple[str, ...], wordings: set[str], hops: list[Fields]) -> tuple[str, ...]:
    for hop in hops:
        spellings = _spellings(hop, needed=False)
        if wordings & _wordings(hop) and target[0] in spellings:
            target = tuple(dict.fromkeys(target + spellings))
    return target


def _unedited(hops: list[Fields], edited: set[str]) -> Iterator[Query]:
    seen: set[str] = set()
    for hop in hops:
        wordings = _wordings(hop)
        if not wordings:
            raise hop.bad("question", "is missing, and so is 'cloze'; one of them must be the hop's prompt")
        if not wordings & (edited | seen):
            asked = hop.prompts("question") or hop.prompts("cloze")
            yield judging("locality", "unedited-hop", asked[0], _spellings(hop, needed=False))
        seen |= wordings
