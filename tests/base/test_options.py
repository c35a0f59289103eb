from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from engramlab.base.errors import UserError
from engramlab.base.options import at_least, between, check_rules, once


@dataclass
class _Config:
    steps: int = 0
    rate: float = 1.0

    def rules(self):
        return [("rate", self.rate > 0, "above 0"), ("steps", self.steps >= 1, "at least 1")]


def test_the_first_rule_that_does_not_hold_is_named():
    config = _Config()
    with pytest.raises(UserError, match=r"^recipe: steps must be at least 1, not 0$"):
        check_rules(config, config.rules(), "recipe: ")
    config = _Config(rate=-1.0)
    with pytest.raises(UserError, match=r"^rate must be above 0, not -1\.0$"):
        check_rules(config, config.rules())
    config = _Config(steps=2)
    check_rules(config, config.rules())


def test_the_common_rules() -> None:
    config = SimpleNamespace(steps=0, limit=None, share=1.0)
    at_least(config, 0, "steps", "limit")
    with pytest.raises(UserError, match=r"^recipe: steps must be at least 1, not 0$"):
        at_least(config, 1, "limit", "steps", what="recipe: ")
    with pytest.raises(UserError, match=r"^share must be between 0 and 1, not 1\.0$"):
        between(config, "share")
    once("variants", ("a", "b"))
    with pytest.raises(UserError, match=r"^variants: 'b' is there twice$"):
        once("variants", ("a", "b", "b"))
