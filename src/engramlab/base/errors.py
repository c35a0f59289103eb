"""The one exception a user may see without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: an option, a file, a record.

    The message is one sentence or two: where the problem is (file, record, key or option), what was wrong and
    what would be right. The command line prints it as one line and leaves with exit code 2.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice spelled most like `word`, whatever its capitals; empty when there are no choices at all."""
    known = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(word.casefold(), known, n=1, cutoff=0.0)
    return known[close[0]] if close else ""
