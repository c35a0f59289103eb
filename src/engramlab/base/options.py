"""The rules that the options of a config must keep, checked where the config is made."""

from __future__ import annotations

from collections.abc import Sequence
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
