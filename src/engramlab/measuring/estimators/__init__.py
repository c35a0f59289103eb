"""Ways of finding out what a model knows: one file an estimator, and the file name is the registration.

An estimator is a module with

- ``Config``: a frozen dataclass of its options;
- ``UNIT``: what it counts in: "share" (0 to 1) or "nats";
- ``estimate(model, tokenizer, queries, config, *, decoding=None) -> float64 [queries]``: how well the model knows each query's
  target after its prompt; higher is better, equal calls give equal numbers, and the model comes back as it was.

``tests/measuring/test_estimators.py`` walks the folder and holds each file to this.
"""

from __future__ import annotations

import sys
from types import ModuleType

from engramlab.base import registry


def names() -> list[str]:
    """The estimators there are."""
    return registry.names(sys.modules[__name__])


def load(name: str) -> ModuleType:
    """The estimator of that name; raises UserError with the nearest one there is."""
    return registry.load(sys.modules[__name__], name, "estimator")
