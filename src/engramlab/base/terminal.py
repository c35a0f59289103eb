"""What reaches a terminal: text that is seen, never text that steers it.

Prompts, answers and names come from files of anybody. A control character in them (an escape sequence that renames the window,
a carriage return that overwrites what was said, a mark that turns the reading direction) is shown as ``\\x1b`` instead.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

import rich.console
from rich.segment import Segment

#: C0 but tab and line feed, DEL, C1, line separators, marks that turn the direction, halves of surrogate pairs.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with every character that would steer a terminal written as ``\\x1b`` or ``\\u202e``."""

    def shown(found: re.Match[str]) -> str:
        number = ord(found[0])
        return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

    return _STEERING.sub(shown, text)


class Console(rich.console.Console):
    """A rich console that styles what it prints and shows control characters of the text itself as `visible` does.

    Attributes:
        whole: of a run of several stages, how long it has left, see ``base/progress.py``.
    """

    whole: Any = None

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)

    @property
    def file(self) -> IO[str]:
        """Where it writes: the stream itself, as what is styled has been made visible before."""
        found: Any = rich.console.Console.file.fget(self)  # type: ignore[attr-defined]
        return found.stream if isinstance(found, _Guarded) else found

    @file.setter
    def file(self, new: IO[str]) -> None:
        self._file = new


class _Guarded:
    """A stream that shows control characters of whatever is printed to it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside the block what is printed to standard output is made visible; `Console` still styles."""
    with contextlib.redirect_stdout(_Guarded(sys.stdout)):
        yield
