"""The files of SPRING: questions with passages, in JSON lines.

Source: arXiv 2405.19670 and its released code. `question`; `target`, a text or a list of right answers; `ret_passages`, a list
of texts, the most important first. Other keys are let be.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.core.text.passages import Asked
from engramlab.files import tables
from engramlab.reading import fields


def read(path: str | Path) -> list[Asked]:
    """The questions of a file, in its order; those about one thing are those with the same words.

    Raises:
        UserError: a record without a key or with one of another type, without a target or without a passage, or no record.
            Names file, record and key.
    """
    found = []
    for place, record in tables.objects(path):
        where = f"{path}, {place}"
        question = fields.text(record, "question", where).strip()
        target = record.get("target")
        answers = (target,) if isinstance(target, str) else fields.text_list(record, "target", where)
        if not answers or not all(answer.strip() for answer in answers):
            raise UserError(f"{where}: key 'target' must be a text or a list of texts, one at least")
        passages = fields.text_list(record, "ret_passages", where)
        if not passages:
            raise UserError(f"{where}: key 'ret_passages' must be a list of passages, one at least")
        found.append(Asked(question, passages, answers, question.casefold()))
    if not found:
        raise UserError(f"{path}: has no questions; write one record each, with question, target and ret_passages")
    return found
