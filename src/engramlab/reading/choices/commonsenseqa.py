"""CommonsenseQA (and OpenBookQA) as the authors write it: ``{id, answerKey, question: {stem, choices: [{label, text}]}}``.

A ``question.mask``, statements with a gap, is what the released code of arXiv 2201.00136 adds. Source: Talmor et al., arXiv
1811.00937.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.reading import fields
from engramlab.reading.choices import _making


def recognises(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("question"), Mapping)


def question(record: Mapping[str, Any], where: str, number: int) -> ChoiceQuestion:
    """Raises UserError."""
    asked = record["question"]
    at = f"{where}, key 'question'"
    choices = asked.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, Mapping) for one in choices):
        raise UserError(f"{at}: key 'choices' must be a list of objects with label and text, not {quoted(choices)}")
    options, labels = [one.get("text") for one in choices], [one.get("label") for one in choices]
    mask = fields.text_list(asked, "mask", at)
    text = fields.text(asked, "stem", at)
    return _making.labelled(_making.named(record, number), text, options, labels, record.get("answerKey"), where, mask)
