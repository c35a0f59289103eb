"""What the formats share: a question from its fields, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.errors import UserError, listed, quoted
from engramlab.corpora.choices import ChoiceQuestion
from engramlab.reading import fields


def named(record: Mapping[str, Any], number: int) -> str:
    """The record's id, its number where it has none."""
    return str(record.get("id") or number)


def texts(values: Any, where: str) -> tuple[str, ...]:
    """Options that are texts, two or more. Raises UserError; ``where`` names the key."""
    if not isinstance(values, list) or len(values) < 2:
        raise UserError(f"{where} must be a list of two options or more, not {quoted(values)}")
    return tuple(fields.usable(value, f"{where}, number {n}:").strip() for n, value in enumerate(values, 1))


def labelled(
    name: str, text: str, options: Any, labels: Any, answer: Any, where: str, translations: Sequence[str] = ()
) -> ChoiceQuestion:
    """The question whose right option has the label ``answer``. Raises UserError."""
    made = texts(options, f"{where}: key 'choices'")
    if not isinstance(labels, list) or len(labels) != len(made):
        raise UserError(
            f"{where}: key 'choices': {len(made)} options have the labels {quoted(labels)}; give each its own"
        )
    if answer not in labels:
        raise UserError(f"{where}: key 'answerKey' must be one of {listed(labels)}, not {quoted(answer)}")
    return ChoiceQuestion(name, text.strip(), made, labels.index(answer), tuple(translations))
