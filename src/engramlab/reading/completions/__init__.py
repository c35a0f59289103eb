"""Questions of other people's files with answers to choose from: one file a format, with ``recognises`` and ``question``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from engramlab.base.errors import UserError, listed, quoted
from engramlab.files import tables
from engramlab.files.text import wrong_with


class BadRecord(ValueError):
    """A record that is no question of its format; says which key is wrong, and how."""


@dataclass(frozen=True)
class Choice:
    """A question and answers that are true or false.

    Attributes:
        prompt: what stands before an answer.
        true: right answers, the best first.
        false: wrong ones.
    """

    id: str
    prompt: str
    true: tuple[str, ...]
    false: tuple[str, ...]


def read(
    path: str | Path,
    form: ModuleType,
    *,
    bad: Literal["refuse", "skip"] = "refuse",
    question: Callable[[Mapping[str, Any], str], Choice] | None = None,
) -> tuple[list[Choice], list[str]]:
    """The questions of a file, and what was wrong with the records left out.

    Args:
        form: the format's module.
        bad: what becomes of a record that is no question.
        question: another of its ways to make one of a record.

    Raises:
        UserError: the file cannot be read, is of another format, or has no question; a bad record, where those are refused.
            It names the file, the record's place and the key.
    """
    found: list[Choice] = []
    left: list[str] = []
    name = form.__name__.rpartition(".")[2]
    for number, record in enumerate(tables.records(path), 1):
        where = f"{path}, {record.place or f'record {number}'}"
        try:
            value = record.value
            if record.broken:
                raise BadRecord(record.broken)
            if not isinstance(value, dict):
                raise BadRecord(f"{quoted(value)} is no object with named values")
            if not found and not left and not form.recognises(value):
                raise UserError(f"{path}: is no {name} file: the first record has the keys {listed(value)}")
            found.append((question or form.question)(value, str(number - 1)))
        except BadRecord as error:
            if bad == "refuse":
                raise UserError(f"{where}: {error}") from None
            left.append(f"{where}: {error}")
    if not found:
        raise UserError(f"{path}: has no question that can be asked" + (f"; {left[0]}" if left else ""))
    return found, left


def text(record: Mapping[str, Any], key: str) -> str:
    """The text under a key. Raises BadRecord where there is none."""
    value = record.get(key)
    if tables.missing(value):
        raise BadRecord(f"key {key!r} is missing or empty")
    if not isinstance(value, str) or not value.strip():
        raise BadRecord(f"key {key!r} must be a text that is not empty, not {quoted(value)}")
    if wrong := wrong_with(value):
        raise BadRecord(f"key {key!r} {wrong}")
    return value


def once(answers: Sequence[str], key: str) -> Iterator[str]:
    """The answers, each once. Raises BadRecord without any."""
    if not answers:
        raise BadRecord(f"key {key!r} holds no answer")
    yield from dict.fromkeys(answers)
