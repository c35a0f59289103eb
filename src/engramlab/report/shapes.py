"""What a page takes from a run's summary, said as a shape and checked before anything is drawn.

A page declares ``NEEDS``: which keys of the summary it reads without asking, and of what kind they are. A shape is ``float`` (a
finite number), ``str``, ``list``, ``dict``, ``object`` (anything), ``[shape]`` (a list of such), ``{key: shape}`` (an object
with these keys among others; ``prefix*`` speaks of all keys that begin so), ``OneOf`` or ``Maybe``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engramlab.base.errors import UserError
from engramlab.report.rows import number

_KINDS = {float: "a finite number", str: "text", list: "a list", dict: "an object", bool: "true or false"}
_SHOWN = 60


@dataclass(frozen=True)
class Maybe:
    """A key that may be absent or null."""

    of: Any


@dataclass(frozen=True)
class OneOf:
    """One of these words."""

    names: tuple[str, ...]


def check(document: Mapping[str, Any], needs: Mapping[str, Any], path: Path) -> None:
    """Raises UserError, naming the file and the key, where a summary is not what its page needs."""
    for key, wanted, value in _wrong(document, needs, ""):
        said = repr(value)
        said = said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…"
        raise UserError(f"{path}: {key} must be {wanted}, not {said}; run the experiment again to rewrite the file")


def _wrong(value: Any, shape: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(shape, Maybe):
        if value is not None:
            yield from _wrong(value, shape.of, where)
    elif isinstance(shape, OneOf):
        if not isinstance(value, str) or value not in shape.names:
            yield where, "one of " + ", ".join(shape.names), value
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield where, "a list", value
        else:
            for place, each in enumerate(value):
                yield from _wrong(each, shape[0], f"{where}[{place}]")
    elif isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            yield where, "an object", value
            return
        for key, of in shape.items():
            begins = key.removesuffix("*")
            for name in [k for k in value if k.startswith(begins)] if begins != key else [key]:
                yield from _wrong(value.get(name), of, f"{where}.{name}" if where else name)
    elif shape is not object and (number(value) is None if shape is float else not isinstance(value, shape)):
        yield where, _KINDS[shape], value
