"""EREN (arXiv 2403.17431): edits as notes, with questions in and out of their scope.

    edit_statement        the note; HotpotQA has two, each a line of the edit's ``statement``
    edit_scope            [[question, answer], ...]: the first is the edit, the others generality
    edit_scope_true_ans   the answers so far, used where there is one a question
    subject_name          (CounterFact-Hard) the subject
    unrelated             {neighbor_subj, same_subj}: locality, with their answers under ``unrelated_true_ans``

The claims of FEVER, whose answer is yes or no, are put as a question in words of ours. FEVER and HotpotQA have no locality of
their own: half of their records are meant to stay unedited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engramlab.base.facts import Case, Query
from engramlab.editing.benchmarks._fields import Fields, case_id, edit, judging, put_together

KEYS = "edit_statement with edit_scope"
CLAIM = "{} Is that true? Answer:"


def recognises(record: Mapping[str, object]) -> bool:
    return "edit_statement" in record or "edit_scope" in record


def case(record: Mapping[str, object], index: int) -> Case:
    """Raises BadRecord."""
    fields = Fields(record, index)
    notes = fields.prompts("edit_statement")
    if not notes:
        raise fields.bad("edit_statement", "is missing; it must be the note, as text")
    scope = _scope(fields)
    subject, so_far = fields.name("subject_name"), _answers(fields, "edit_scope_true_ans", len(scope))
    (prompt, target), *others = scope
    made = replace(edit(prompt, subject, target, so_far[0]), statement="\n".join(notes))
    judges = [judging("generality", "scope", one, answer) for one, answer in others if one != prompt]
    unrelated, right = fields.inner("unrelated"), fields.inner("unrelated_true_ans")
    for kind, given in unrelated.values.items():
        prompts = unrelated.prompts(kind) if given != [] else ()
        judges += _judges(kind, prompts, _answers(right, kind, len(prompts)))
    return put_together(case_id(fields, "id"), [made], judges)


def _scope(fields: Fields) -> list[tuple[str, tuple[str, ...]]]:
    """The questions and their answers."""
    given = fields.values.get("edit_scope")
    if not isinstance(given, list) or not given:
        wrong = "must be a list" if fields.has("edit_scope") else "is missing; it must be a list"
        raise fields.bad("edit_scope", f"{wrong} of [question, answer], and hold one at least")
    found = []
    for number, pair in enumerate(given):
        key = f"edit_scope[{number}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise fields.bad(key, "must be [question, answer]")
        both = Fields({key: pair[0], "answer": pair[1]}, fields.index, fields.path)
        question, answer = both.prompt(key), both.answers("answer", needed=False)
        if not answer:
            raise fields.bad(key, "has no answer")
        claim = answer[0].casefold() in ("yes", "no") and not question.endswith("?")
        found.append((CLAIM.format(question) if claim else question, answer))
    return found


def _answers(fields: Fields, key: str, count: int) -> list[tuple[str, ...]]:
    """One a question; unknown where the file has another number of them, as it is then unclear which is whose."""
    given = fields.values.get(key)
    if not isinstance(given, list) or len(given) != count:
        return [()] * count
    return [Fields({key: one}, fields.index, fields.path).answers(key, needed=False) for one in given]


def _judges(kind: str, prompts: tuple[str, ...], answers: list[tuple[str, ...]]) -> list[Query]:
    """Each question once: the files repeat them."""
    first = dict(reversed(list(zip(prompts, answers, strict=True))))
    return [judging("locality", kind, one, first[one]) for one in dict.fromkeys(prompts)]
