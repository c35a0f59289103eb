"""SocialIQA: ``{context, question, answerA, answerB, answerC, label}``, the label "1" to "3" (some with a line end).

Source: Sap et al., arXiv 1904.09728.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.reading import fields
from engramlab.reading.choices import _making


def recognises(record: Mapping[str, Any]) -> bool:
    return "answerA" in record


def question(record: Mapping[str, Any], where: str, number: int) -> ChoiceQuestion:
    """Raises UserError."""
    label = str(record.get("label", "")).strip()
    if label not in ("1", "2", "3"):
        raise UserError(f"{where}: key 'label' must be 1, 2 or 3, not {quoted(record.get('label'))}")
    text = f"{fields.text(record, 'context', where).strip()} {fields.text(record, 'question', where).strip()}"
    options = tuple(fields.text(record, f"answer{letter}", where).strip() for letter in "ABC")
    return ChoiceQuestion(_making.named(record, number), text, options, int(label) - 1)
