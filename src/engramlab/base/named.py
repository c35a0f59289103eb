"""Things chosen by name from a table, with settings: what losses and learning-rate schedules share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from engramlab.base.errors import UserError, listed, nearest, quoted

T = TypeVar("T")


def get(table: Mapping[str, T], kind: str, name: str, /, **settings: Any) -> T:
    """What ``table`` has of that name, with these settings in place of its defaults; what has settings is a dataclass.

    Args:
        kind: what the table holds, for messages.

    Raises:
        UserError: no such name (with the nearest), no such setting (with those there are), or a setting outside its range.
    """
    if name not in table:
        raise UserError(
            f"{kind} {quoted(name)} is unknown; did you mean {nearest(name, table)!r}? There are: {', '.join(table)}"
        )
    found: Any = table[name]
    known = [field.name for field in fields(found)] if is_dataclass(found) else []
    for setting in settings:
        if setting not in known:
            there_is = f"its settings are: {', '.join(known)}" if known else "it has no settings"
            raise UserError(f"{kind} {name!r} has no setting {quoted(setting)}; {there_is}")
    made: T = replace(found, **settings) if settings else found
    return made


def parse(table: Mapping[str, T], kind: str, text: str) -> T:
    """As the command line writes it: its name, then settings: ``overtone``, ``overtone:mixing=0.3:clip=0``, ``ft-m:steps=10``.

    Raises:
        UserError: an unknown name or setting, or a value that is no number (names it).
    """
    name, *parts = text.split(":")
    settings: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(
                f"{kind} {quoted(text)}: {quoted(part)} is no setting; write it as in {listed([name])}:setting=0.3"
            )
        if value.lower() in ("true", "false"):
            settings[key] = value.lower() == "true"
            continue
        try:
            settings[key] = _as(getattr(table.get(name), key, 0.0), float(value))
        except ValueError:
            raise UserError(
                f"{kind} {quoted(text)}: {listed([key])} must be a number, true or false, not {quoted(value)}"
            ) from None
    return get(table, kind, name, **settings)


def _as(default: Any, value: float) -> float:
    """A number as its setting has it: whole ones stay whole where the default is no fraction ("steps=10" is 10, not 10.0)."""
    return int(value) if not isinstance(default, float) and value.is_integer() else value
