"""undo DIR                   take the last edit off again, bit for bit

Takes edits off again, the newest first; the weights are then what they were before, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engramlab.base.errors import UserError
from engramlab.cli._words import help_of, parse


@dataclass(frozen=True)
class Options:
    """Options of ``engramlab undo``."""

    folder: Path
    """A folder that engramlab edit wrote."""
    last: int | None = None
    """How many edits to take off; 1 by default."""
    to: int | None = None
    """How many edits to leave; 0 gives the unedited model."""
    edit: int | None = None
    """Which edit to take off alone (engramlab edits list has their numbers); later ones stay as they were made."""


def main(given: list[str]) -> None:
    """Takes edits off and prints which."""
    if not given:
        raise UserError("engramlab undo needs the folder, for example engramlab undo edited/")
    options = parse(Options, "undo", given, positional=True, description=help_of(__doc__))
    from engramlab.cli import _edit_tables as tables
    from engramlab.editing.folders import saving

    gone = saving.undo(options.folder, last=options.last, to=options.to, edit=options.edit)
    tables.show_undone(options.folder, gone, len(saving.listing(options.folder)))
