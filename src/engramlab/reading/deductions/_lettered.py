"""What the two formats of Logic-LLM's copies share: a context, a statement behind a question, options with letters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engramlab.base.errors import UserError, listed, quoted
from engramlab.reading import fields

_OPTION = re.compile(r"([A-Z])\) (\S.*)")


def recognises(record: Mapping[str, Any]) -> bool:
    return {"context", "question", "options", "answer"} <= record.keys()


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its full stop.

    >>> sentences("Bob is red. Dan is kind.")
    ['Bob is red.', 'Dan is kind.']
    """
    return re.split(r"(?<=\.)\s+", text.strip())


def parts(record: Mapping[str, Any], where: str) -> tuple[list[str], str, str, tuple[str, ...]]:
    """Sentences, question (as we ask it), answer and labels of a record. Raises UserError."""
    asked = fields.text(record, "question", where)
    statement = asked.partition("?")[2].strip()
    if not statement:
        raise UserError(f"{where}: key 'question' must hold a statement behind its question mark, not {quoted(asked)}")
    options = dict(_split(one, f"{where}: key 'options'") for one in fields.text_list(record, "options", where))
    letter = fields.text(record, "answer", where)
    if letter not in options:
        raise UserError(f"{where}: key 'answer' must be one of {listed(options)}, not {quoted(letter)}")
    facts = sentences(record["context"]) if isinstance(record["context"], str) and record["context"].strip() else []
    return facts, f"{statement} This is", options[letter], tuple(options.values())


def _split(option: str, where: str) -> tuple[str, str]:
    found = _OPTION.fullmatch(option)
    if found is None:
        raise UserError(f"{where}: an option must read as in 'A) True', not {quoted(option)}")
    return found[1], found[2].lower()
