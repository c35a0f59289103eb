"""What the formats share: a record's fields, read strictly; ``where`` (file and record) opens every message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engramlab.base.errors import UserError, nearest, quoted
from engramlab.base.facts import Query
from engramlab.corpora.passages import ROLE
from engramlab.files.text import LINE, wrong_with


def query(name: str, depth: str, k: int, prompt: str, target: str, aliases: tuple[str, ...] = ()) -> Query:
    """The k-th query of a depth of the passage called ``name``."""
    return Query(prompt, target, aliases, id=f"{name}/{depth}/{k}", subject=name, role=ROLE, group=depth)


def check_keys(record: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raises UserError for a key that is not known, with the nearest that is."""
    for key in record:
        if key not in known:
            raise UserError(
                f"{where}: there is no key {quoted(key)}; did you mean {nearest(str(key), known)!r}? The keys are "
                f"{', '.join(known)}"
            )


def text(record: Mapping[str, Any], key: str, where: str) -> str:
    """The text under a key, which must be there."""
    if key not in record:
        raise UserError(f"{where}: key {key!r} is missing")
    return usable(record[key], f"{where}: key {key!r}")


def text_list(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """The texts of the list under a key; none where it is absent."""
    values = record.get(key, [])
    if not isinstance(values, list):
        raise UserError(f"{where}: key {key!r} must be a list of texts, not {quoted(values)}")
    return tuple(usable(value, f"{where}: key {key!r}, number {number}:") for number, value in enumerate(values, 1))


def usable(value: Any, where: str) -> str:
    """The value, which must be a text that can be used; ``where`` opens the message. Raises UserError."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} must be a text that is not empty, not {quoted(value)}")
    if wrong := wrong_with(value, LINE):
        raise UserError(f"{where} {wrong}")
    return value
