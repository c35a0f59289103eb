"""Reading the words of a command line: what all commands share. Standard library only until something is parsed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engramlab.base.errors import UserError
from engramlab.cli._help import Option, columns, page, paragraphs


def parse(
    kind: Any,
    name: str,
    given: Sequence[str],
    default: Any = None,
    *,
    positional: bool = False,
    description: str = "",
    also: Sequence[Option] = (),
    others: bool = False,
) -> Any:
    """A dataclass from command line arguments; ``--help``, ``--help-all`` and mistakes leave the program.

    Args:
        kind: the dataclass; see ``cli/_help.py`` for how its options are explained.
        name: the command, as the usage line has it.
        default: an instance whose values are the defaults.
        positional: fields without a default are given by their place, not by ``--name``.
        description: what its help says before the options.
        also: options that were taken before, for the help.
        others: words that are no options of it are given back beside it, not refused.
    """
    if wants_help(given):
        needed = (field.name.upper() for field in fields(kind) if positional and " " not in name and _needed(field))
        usage = " ".join((name, *needed, "[options]"))
        print(page(usage, description, kind, default, also, everything="--help-all" in given, by_place=positional))
        sys.exit(0)
    import tyro

    marker = tyro.conf.PositionalRequiredArgs if positional else tyro.conf.CascadeSubcommandArgs
    options: dict[str, Any] = {} if default is None else {"default": default}
    if others:
        options["return_unknown_args"] = True
    return tyro.cli(kind, prog=f"engramlab {name}", args=_one_by_one(kind, given), config=(marker,), **options)


def _one_by_one(kind: Any, given: Sequence[str]) -> list[str]:
    """The words with each list of numbers or of choices, ``1,10,100``, taken apart; what is text keeps its commas."""
    hints = get_type_hints(kind)
    found: list[str] = []
    listed = False
    for word in given:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            listed = _is_list(hints.get(option[2:].replace("-", "_")))
            found += [option, *_parts(value)] if listed and equals else [word]
        else:
            found += _parts(word) if listed else [word]
    return found


def _parts(word: str) -> list[str]:
    return [part.strip() for part in word.split(",") if part.strip()]


def _is_list(hint: Any) -> bool:
    """Of numbers or of choices, or None?"""
    if get_origin(hint) is tuple:
        return any(part in (int, float) or get_origin(part) is Literal for part in get_args(hint))
    return any(_is_list(part) for part in get_args(hint))


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


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


def show_help(doc: str | None, options: Sequence[Option] = ()) -> None:
    """Prints what a command's docstring says behind its first paragraph, and options or names with what they mean."""
    width = columns()
    print("\n".join([*paragraphs(help_of(doc), width), *(line for one in options for line in one.lines(width))]))


def starting() -> None:
    """Loads the libraries that models need, and says so where it takes more than a second."""
    from engramlab.base.progress import ProgressBar

    with ProgressBar("starting", None, after=1.0):
        import torch  # noqa: F401
        import transformers  # noqa: F401


def wants_help(given: Sequence[str]) -> bool:
    """Is help asked for?"""
    return any(word in ("-h", "--help", "--help-all") for word in given)


def no_name_yet(given: Sequence[str]) -> bool:
    """Nothing given, or help before the name of an experiment or a kind?"""
    return not given or wants_help(given[:1])
