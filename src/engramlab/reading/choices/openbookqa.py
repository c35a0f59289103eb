"""OpenBookQA in two forms of copies: ``{id, question_stem, choices: {text: [], label: []}, answerKey}`` (the hub's, and
CommonsenseQA's there, with ``question``), and ``{query, choices: [], gold}``, gold being a number from 0.

Source: Mihaylov et al., arXiv 1809.02789.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.reading import fields
from engramlab.reading.choices import _making


def recognises(record: Mapping[str, Any]) -> bool:
    return "choices" in record and ("query" in record or "answerKey" in record)


def question(record: Mapping[str, Any], where: str, number: int) -> ChoiceQuestion:
    """Raises UserError."""
    name, choices = _making.named(record, number), record["choices"]
    if "query" in record:
        options, gold = _making.texts(choices, f"{where}: key 'choices'"), record.get("gold")
        if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(options):
            raise UserError(f"{where}: key 'gold' must be a number from 0 to {len(options) - 1}, not {quoted(gold)}")
        return ChoiceQuestion(name, fields.text(record, "query", where).strip(), options, gold)
    if not isinstance(choices, Mapping):
        raise UserError(
            f"{where}: key 'choices' must be an object with the lists text and label, not {quoted(choices)}"
        )
    text = fields.text(record, "question_stem" if "question_stem" in record else "question", where)
    return _making.labelled(name, text, choices.get("text"), choices.get("label"), record.get("answerKey"), where)
