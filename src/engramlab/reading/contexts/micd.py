"""The files of MICD: questions as TSV, and beside them passages as JSON lines.

Source: arXiv 2405.02750 and its released code. TSV: `question`, `answers` (a Python list as text), `ans`. JSON lines:
`question`, `ctxs` [{`id`, `text`, `hasanswer`}], `gold_ctx`, `question_irr`: the question whose first passage is the
irrelevant one. Questions shown before are taken out of what is asked, the same for each context (the released code draws them
anew for each, from what it asks); behind a context with passages each stands behind its own relevant one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engramlab.base.errors import UserError, quoted
from engramlab.base.random_access import key, permute
from engramlab.files import tables
from engramlab.reading import fields
from engramlab.reading.contexts import Reading

PROMPT = "Question: {question}\nAnswer:"


def read(
    questions: str | Path,
    passages: str | Path,
    *,
    which: Literal["gold", "retrieved"] = "retrieved",
    shots: int = 0,
    seed: int = 0,
) -> list[Reading]:
    """The questions of a TSV file with the passages of a JSON-lines file, in the order of the former.

    Args:
        which: the relevant passage: `gold_ctx`, or the first of `ctxs`.
        shots: how many questions, with their first answers, stand before each; drawn by the seed, not asked themselves.

    Raises:
        UserError: a question without a passage, a blank one, a ``question_irr`` that is nowhere in the file, answers that are
            no list of texts, no questions beside those shown. Names file, line and key.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for place, record in tables.objects(passages):
        where = f"{passages}, {place}"
        found.setdefault(fields.text(record, "question", where), (where, record))
    made = []
    for number, (place, record) in enumerate(tables.objects(questions)):
        where = f"{questions}, {place}"
        asked = fields.text(record, "question", where)
        if asked not in found:
            raise UserError(f"{where}, key 'question': {quoted(asked)} has no passage in {passages}")
        there, passage = found[asked]
        other = fields.text(passage, "question_irr", there)
        if other not in found:
            raise UserError(f"{there}, key 'question_irr': {quoted(other)} is no question of {passages}")
        relevant = fields.text(passage, "gold_ctx", there) if which == "gold" else _first(passage, there)
        irrelevant = _first(found[other][1], found[other][0])
        bare = PROMPT.format(question=asked)
        both = (f"{relevant.strip()}\n\n{bare}", bare, f"{irrelevant.strip()}\n\n{bare}")
        made.append(Reading(str(number), *both, _answers(record, where)))
    if not made:
        raise UserError(f"{questions}: has no questions")
    if len(made) <= shots:
        raise UserError(
            f"{questions}: has {len(made)} questions, {shots} of which would be shown and not asked: fewer shots"
        )
    chosen = permute(key(seed, "shots"), np.arange(len(made)), len(made))[:shots].tolist()
    before, alone = (
        "".join(f"{text} {one.answers[0]}\n\n" for text, one in shown)
        for shown in ([(made[i].prompt, made[i]) for i in chosen], [(made[i].bare, made[i]) for i in chosen])
    )
    return [
        replace(one, prompt=before + one.prompt, bare=alone + one.bare, irrelevant=before + one.irrelevant)
        for i, one in enumerate(made)
        if i not in chosen
    ]


def _first(record: Mapping[str, Any], where: str) -> str:
    """The text of the first passage."""
    listed = record.get("ctxs")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
        raise UserError(f"{where}: key 'ctxs' must be a list of passages, not {quoted(listed)}")
    return fields.text(listed[0], "text", f"{where}, key 'ctxs', passage 1")


def _answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The right answers: a list written as Python has it, which is read and never run."""
    written = fields.text(record, "answers", where)
    try:
        answers = ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        answers = None
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise UserError(f"{where}, key 'answers': {quoted(written)} is no list of texts such as ['Paris', 'Lutetia']")
    return tuple(answers)
