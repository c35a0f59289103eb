"""The one exception a user may see without a traceback, and the words that messages are made of."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice

_QUOTED = 60  # characters of something of the user's in a message
_NAMED = 20  # names of a list
_PLACES = 5  # places of one kind
_LETTERS = 100  # of a word that is compared with others: comparing takes the product of two lengths


class UserError(Exception):
    """Something the user can put right: an option, a file, a record.

    The message is one sentence or two: where the problem is (file, record, key or option), what was wrong and
    what would be right. The command line prints it as one line and leaves with exit code 2.
    """


def note(text: str) -> None:
    """Tells the user something that stops nothing: a warning in Python, a line of the command line."""
    warnings.warn(text, UserWarning, stacklevel=3)


def quoted(value: object, most: int = _QUOTED) -> str:
    """Something of the user's as messages quote it: its ``repr`` at a readable length.

    >>> quoted("a" * 100, 10)
    "'aaaaaaaa…"
    """
    # A long text is cut first: the repr of a gigabyte is more than a gigabyte.
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else text[: most - 1] + "…"


def listed(names: Iterable[object], most: int = _NAMED) -> str:
    """Names with commas between them, each at a readable length, and how many more there are."""
    every = list(names)
    seen = (name if name.isprintable() else repr(name)[1:-1] for name in map(str, every[:most]))
    short = [name if len(name) <= _QUOTED else name[: _QUOTED - 1] + "…" for name in seen]
    return ", ".join(short) + (f" and {len(every) - most} more" if len(every) > most else "")


def at_places(places: Sequence[str]) -> str:
    """All places of one kind: the first few by name, and how many more there are."""
    more = len(places) - _PLACES
    return ", ".join(places[:_PLACES]) + (f" and {more} more" if more > 0 else "")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice spelled most like `word`, whatever its capitals; empty when there are no choices at all."""
    known = {choice[:_LETTERS].casefold(): choice for choice in islice(choices, 1000)}
    close = difflib.get_close_matches(word[:_LETTERS].casefold(), known, n=1, cutoff=0.0)
    return known[close[0]] if close else ""
