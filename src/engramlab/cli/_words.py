"""Reading the words of a command line: what all commands share. Standard library only until something is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engramlab.base.errors import UserError


def parse(
    kind: Any, name: str, given: Sequence[str], default: Any = None, *, positional: bool = False, **more: Any
) -> Any:
    """A dataclass from command line arguments; ``--help`` and mistakes leave the program.

    Args:
        kind: the dataclass.
        name: the command, as the usage line has it.
        default: an instance whose values are the defaults.
        positional: fields without a default are given by their place, not by ``--name``.
        more: of ``tyro.cli``, such as ``description``.
    """
    import tyro

    marker = tyro.conf.PositionalRequiredArgs if positional else tyro.conf.CascadeSubcommandArgs
    options = more if default is None else {"default": default, **more}
    return tyro.cli(kind, prog=f"engramlab {name}", args=list(given), config=(marker,), **options)


def help_of(doc: str | None) -> str:
    """What a command's docstring says behind its first paragraph: the text of its ``--help``."""
    return (doc or "").partition("\n\n")[2].strip()


def take(given: list[str], option: str, default: str | None = None) -> tuple[list[str], str | None]:
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


def wants_help(given: Sequence[str]) -> bool:
    """Is help asked for?"""
    return any(word in ("-h", "--help") for word in given)


def no_name_yet(given: Sequence[str]) -> bool:
    """Nothing given, or help before the name of an experiment or a kind?"""
    return not given or wants_help(given[:1])
