"""Experiments: one file each, with a frozen ``Config``, ``PRESETS`` and ``run(config, out)``. The file name is the name."""

from __future__ import annotations

import sys
from types import ModuleType

from engramlab.base import registry


def names() -> list[str]:
    """Names of the experiments, as typed on the command line."""
    return registry.names(sys.modules[__name__])


def load(name: str) -> ModuleType:
    """The module of an experiment; raises UserError with the nearest name for an unknown one."""
    return registry.load(sys.modules[__name__], name, "experiment")
