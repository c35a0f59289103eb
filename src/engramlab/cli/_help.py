"""What ``--help`` says: a text, then the options of a dataclass, each with the docstring beneath its field.

The options that most users want are named by the dataclass itself, ``BASIC``: titles, and names of fields (with dots for those
of a field's own dataclass). ``--help`` shows these, ``--help-all`` every option there is.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

WIDEST = 100  # columns
_AT = 26  # where the texts of options begin


@dataclass(frozen=True)
class Option:
    """One option: how it is written, what it is for, the group it is shown in, and its field."""

    name: str
    value: str
    text: str
    group: str = ""
    field: str = ""

    def lines(self, width: int, at: int = _AT) -> Iterator[str]:
        """As help shows it, its text beginning at column ``at``."""
        head = f"  {self.name} {self.value}".rstrip()
        text = textwrap.wrap(self.text, width - at, break_on_hyphens=False, break_long_words=False)
        if len(head) + 2 <= at:
            head = head.ljust(at) + (text.pop(0) if text else "")
        yield head.rstrip()
        yield from (" " * at + line for line in text)


def columns() -> int:
    """How wide help is: as the terminal, within reason."""
    return max(40, min(shutil.get_terminal_size().columns, WIDEST))


def page(
    usage: str, text: str, kind: Any, default: Any, also: Sequence[Option], *, everything: bool, by_place: bool
) -> str:
    """The whole help.

    Args:
        usage: behind "usage: engramlab".
        text: paragraphs; indented lines are commands and stay lines.
        default: an instance whose values are shown as defaults, or None for the dataclass's own.
        also: options that are no field of ``kind``, shown first.
        by_place: fields without a default are given by their place.
    """
    width = columns()
    options = list(_options(kind, default, by_place))
    basic = getattr(kind, "BASIC", ())
    shown: list[tuple[str, list[Option]]] = [("the command", [*also])] if also else []
    named = {option.field: option for option in options}
    for title, names in basic:
        shown.append((title, [named.pop(name) for name in names]))
    if everything or not basic:
        for title in dict.fromkeys(option.group for option in named.values()):
            shown.append((title, [option for option in named.values() if option.group == title]))
    lines = [*textwrap.wrap(f"usage: engramlab {usage}", width, subsequent_indent=" " * 8), ""]
    text = inspect.cleandoc(text or kind.__doc__ or "")
    lines += paragraphs(text.partition("\n\n")[2] if text.startswith("usage:") else text, width)
    for title, group in shown:
        lines += ["", *textwrap.wrap(title or "options", width)]
        lines += [line for option in group for line in option.lines(width)]
    if basic and not everything:
        more = f"{len(named)} more options: engramlab {usage.split(' --')[0].split(' [')[0]} --help-all"
        lines += ["", *textwrap.wrap(more, width)]
    return "\n".join(lines)


def paragraphs(text: str, width: int) -> Iterator[str]:
    """The lines of a text that is as wide as the terminal; commands that are too long go on behind a backslash."""
    for k, block in enumerate(inspect.cleandoc(text).replace("``", "`").split("\n\n")):
        if k:
            yield ""
        if not block.startswith((" ", "usage:")):
            yield from textwrap.wrap(" ".join(block.split()), width, break_on_hyphens=False, break_long_words=False)
            continue
        for line in block.splitlines():
            indent = " " * (len(line) - len(line.lstrip()) + 4)
            whole = re.sub(r"(--[\w.-]+) (?!-)", "\\1\0", line)  # an option stays with its value
            parts = textwrap.wrap(
                whole, width - 2, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
            )
            yield from (part.replace("\0", " ") + " \\" * (part is not parts[-1]) for part in parts)


def _options(kind: Any, default: Any, by_place: bool, prefix: str = "", group: str = "") -> Iterator[Option]:
    """Every option of a dataclass, those of its fields' own dataclasses behind its own."""
    hints, texts = get_type_hints(kind, include_extras=True), documented(kind)
    within = []
    for field in fields(kind):
        value = _default(field) if default is None else getattr(default, field.name)
        name, text, hint = (prefix + field.name).replace("_", "-"), texts.get(field.name, ""), hints[field.name]
        hint, repeated = (get_args(hint)[0], True) if get_origin(hint) is Annotated else (hint, False)
        whole = prefix + field.name
        if is_dataclass(hint):
            about = text or " ".join((hint.__doc__ or "").split("\n\n")[0].split())
            within.append((hint, None if value is MISSING else value, f"{whole}.", f"{name}: {about}"))
        elif value is MISSING and by_place:
            yield Option(name.upper(), "..." * (get_origin(hint) is tuple), text, group, whole)
        elif hint is bool:
            front, _, last = name.rpartition(".")
            flag = "--" + f"{front}." * bool(front) + "no-" * (value is True) + last
            yield Option(flag, "", "Not: " * (value is True) + text, group, whole)
        else:
            metavar = _value(get_args(hint)[0] if repeated else hint)
            yield Option(f"--{name}", metavar, f"{text}{_shown(value)}", group, whole)
    for one, its_default, its_prefix, its_group in within:
        yield from _options(one, its_default, False, its_prefix, its_group)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _shown(value: Any) -> str:
    if value is MISSING:
        return " (needed)"
    if value is None or value in ("", ()):
        return ""
    said = (
        " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else value
    )
    return f" [{said}]"


def _value(hint: Any) -> str:
    """What stands behind an option of that type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(str(arg) for arg in args if arg is not None)
    if origin in (Union, UnionType):
        return "|".join(_value(arg) for arg in args if arg is not NoneType)
    if origin in (tuple, list):
        inner = [_value(arg) for arg in args if arg is not Ellipsis]
        return " ".join(inner) + (" ..." if Ellipsis in args or origin is list else "")
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(hint, "VALUE")


@functools.cache
def documented(kind: type) -> dict[str, str]:
    """By field, the docstring beneath it, its own class's before those of its bases."""
    found: dict[str, str] = {}
    for base in kind.__mro__:
        if not is_dataclass(base):
            continue
        try:
            (made,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, ValueError, SyntaxError):  # made by a call
            continue
        body = getattr(made, "body", [])
        for field, said in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, ast.Expr):
                text = ast.literal_eval(said.value) if isinstance(said.value, ast.Constant) else ""
                found.setdefault(field.target.id, " ".join(str(text).replace("``", "`").split()))
    return found
