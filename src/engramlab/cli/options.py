"""Reading the words of a command line: what all commands share. Standard library only until something is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engramlab.base.errors import UserError, nearest


def parse(kind: Any, name: str, given: Sequence[str], default: Any = None, **more: Any) -> Any:
    """A dataclass from command line arguments; ``--help`` and mistakes leave the program."""
    import tyro

    options = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        prog=f"engramlab {name}",
        args=list(given),
        config=(tyro.conf.CascadeSubcommandArgs,),
        **options,
        **more,
    )


def take(given: list[str], option: str, default: str | None) -> tuple[list[str], str | None]:
    """The value of ``option`` (``--x V`` or ``--x=V``) and the other arguments."""
    rest: list[str] = []
    value = default
    words = iter(given)
    for word in words:
        if word == option:
            found = next(words, None)
            if found is None:
                raise UserError(f"{option} needs a value")
            value = found
        elif word.startswith(option + "="):
            value = word.split("=", 1)[1]
        else:
            rest.append(word)
    return rest, value


def preset_of(module: Any, name: str, chosen: str | None) -> str:
    """The preset to start from: the one chosen, or the experiment's first. Raises UserError for one it does not have."""
    preset = chosen or next(iter(module.PRESETS))
    if preset not in module.PRESETS:
        raise UserError(
            f"--preset {preset!r} is unknown for {name}; did you mean {nearest(preset, module.PRESETS)!r}? There are: "
            f"{', '.join(module.PRESETS)}"
        )
    return preset


def wants_help(given: Sequence[str]) -> bool:
    """Is help asked for?"""
    return any(word in ("-h", "--help") for word in given)
