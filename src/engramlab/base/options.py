"""The rules that the options of a config must keep, checked where the config is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from engramlab.base.errors import UserError


def check_rules(config: Any, rules: Sequence[tuple[str, bool, str]], what: str = "") -> None:
    """Raises UserError for the first rule that does not hold, so that a wrong option ends a command before long work.

    Args:
        config: whose options they are; the message quotes the value it has.
        rules: (option, does its rule hold, what it must be: "at least 1").
        what: what the options belong to, put before the message: "recipe: ".

    Raises:
        UserError: "NAME must be RULE, not VALUE".
    """
    for name, fine, rule in rules:
        if not fine:
            raise UserError(f"{what}{name} must be {rule}, not {getattr(config, name)}")


def meant(config: Any) -> None:
    """``check_rules`` for all numbers of a config, also those in tuples: finite, at least 0, and no fraction so large that it
    can only be a slip (1e9; a learning rate above 1,000)."""
    for one in fields(config):
        values: list[Any] = [getattr(config, one.name)]
        while values:
            value = values.pop()
            if isinstance(value, tuple | list):
                values += value
            elif isinstance(value, int | float):
                most = 1e3 if one.name == "learning_rate" else 1e9 if isinstance(value, float) else math.inf
                rules = (
                    (one.name, math.isfinite(value), "a finite number"),
                    (one.name, value >= 0, "at least 0"),
                    (one.name, value <= most, f"at most {most:,.0f}"),
                )
                check_rules(config, rules)


def at_least(config: Any, least: float, *names: str, what: str = "") -> None:
    """``check_rules`` for options that are numbers from `least` on, or None."""
    values = {name: getattr(config, name) for name in names}
    check_rules(config, [(n, v is None or v >= least, f"at least {least}") for n, v in values.items()], what)


def between(config: Any, name: str, what: str = "") -> None:
    """``check_rules`` for a share that is neither 0 nor 1."""
    check_rules(config, [(name, 0 < getattr(config, name) < 1, "between 0 and 1")], what)


def once(name: str, values: Sequence[Any]) -> None:
    """Raises UserError where one of an option's values is there twice."""
    if len(set(values)) < len(values):
        raise UserError(f"{name}: {max(values, key=values.count)!r} is there twice")


def comma_separated(words: tuple[str, ...]) -> tuple[str, ...]:
    """Words separated by commas or given one by one."""
    return tuple(part.strip() for word in words for part in word.split(",") if part.strip())
