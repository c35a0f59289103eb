"""Experiments: one file each, with a frozen ``Config``, ``PRESETS`` and ``run(config, out)``. The file name is the name."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from engramlab.base import registry
from engramlab.base.errors import UserError, nearest


def names() -> list[str]:
    """Names of the experiments, as typed on the command line."""
    return registry.names(sys.modules[__name__])


def load(name: str) -> ModuleType:
    """The module of an experiment; raises UserError with the nearest name for an unknown one."""
    return registry.load(sys.modules[__name__], name, "experiment")


def preset_of(module: ModuleType, name: str, chosen: str | None) -> str:
    """The preset to start from: the one chosen, or the experiment's first. Raises UserError for one it does not have."""
    preset = chosen or next(iter(module.PRESETS))
    if preset not in module.PRESETS:
        raise UserError(
            f"--preset {preset!r} is unknown for {name}; did you mean {nearest(preset, module.PRESETS)!r}? There are: "
            f"{', '.join(module.PRESETS)}"
        )
    return preset


def about(name: str) -> str:
    """In a line what an experiment does."""
    first = (registry.about(sys.modules[__name__], name) or name).splitlines()[0]
    return first.partition(": ")[2] or first


def run(name: str, out: str | Path, config: Any = None, *, preset: str | None = None, **options: Any) -> dict[str, Any]:
    """Runs an experiment into a folder, or goes on with the run there; returns its summary, whose ``rows`` are the result.

    Args:
        name: one of ``names()``.
        config: the experiment's ``Config``; that of the preset by default.
        preset: one of the experiment's ``PRESETS``; its first by default.
        options: changes of the config, by the names of its fields.

    Raises:
        UserError: an unknown experiment, preset or option, or what the experiment refuses.
    """
    module = load(name)
    preset = preset_of(module, name, preset)
    config = config or module.PRESETS[preset]
    known = [field.name for field in fields(config)]
    for option in options:
        if option not in known:
            raise UserError(f"{name} has no option {option!r}; did you mean {nearest(option, known)!r}?")
    return dict(module.run(replace(config, **options), Path(out), preset=preset))
