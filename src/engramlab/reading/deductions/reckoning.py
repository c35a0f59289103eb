"""Questions as RECKONING's code reads them (arXiv 2305.06349): ``{guid, facts, questions, answers, distractors}``, each
question with its own answer: true, false or unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError
from engramlab.corpora.episodes import Episode
from engramlab.reading import fields

LABELS = ("true", "false", "unknown")


def recognises(record: Mapping[str, Any]) -> bool:
    return {"facts", "questions", "answers"} <= record.keys()


def episodes(record: Mapping[str, Any], where: str, number: int) -> list[Episode]:
    """One a question. Raises UserError."""
    facts, rest, questions, answers = (
        fields.text_list(record, key, where) for key in ("facts", "distractors", "questions", "answers")
    )
    if len(questions) != len(answers) or not questions:
        raise UserError(f"{where}: key 'answers' must give one answer for each of {len(questions)} questions")
    name = str(record.get("guid") or number)
    return [
        Episode(f"{name}/{k}", facts, f"{question.strip()} This is", answer.strip().lower(), LABELS, rest)
        for k, (question, answer) in enumerate(zip(questions, answers, strict=True), 1)
    ]
