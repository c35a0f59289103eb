"""Experiments: one file each, with a frozen ``Config``, ``PRESETS`` and ``run(config, out)``. The file name is the name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from engramlab.base.errors import UserError, nearest


def names() -> list[str]:
    """Names of the experiments, as typed on the command line."""
    return sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of an experiment; raises UserError with the nearest name for an unknown one."""
    if name not in names():
        raise UserError(
            f"experiment {name!r} is unknown; did you mean {nearest(name, names())!r}? There are: {', '.join(names())}"
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
