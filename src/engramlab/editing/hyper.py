"""The settings of every method in one place, for experiments that run several."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any

from engramlab.editing import method

#: Every method's hyperparameters, a field a method: the file of a method is its registration here too.
Hyperparameters: Any = dataclasses.make_dataclass(
    "Hyperparameters",
    [
        (name.replace("-", "_"), made, field(default_factory=made))
        for name in method.names()
        for made in (method.load(name).Config,)
    ],
    frozen=True,
    namespace={"__doc__": "Hyperparameters of each method."},
)


def of(hyper: Any, name: str) -> Any:
    """A method's settings among all."""
    return getattr(hyper, name.replace("-", "_"))
