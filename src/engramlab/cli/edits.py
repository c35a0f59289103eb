"""edits list DIR             the edits that a folder holds

usage: engramlab edits list DIR

The edits that a folder written by engramlab edit holds, oldest first.
"""

from __future__ import annotations

from engramlab.base.errors import UserError
from engramlab.cli._words import show_help, wants_help


def main(given: list[str]) -> None:
    """Prints the list."""
    if not given or wants_help(given):
        show_help(__doc__)
        return
    if given[0] != "list":
        raise UserError(f"there is no command 'edits {given[0]}'; did you mean 'edits list'?")
    if len(given) != 2:
        raise UserError("engramlab edits list needs one folder, for example engramlab edits list edited/")
    from engramlab.cli import _edit_tables as tables
    from engramlab.editing.folders import disk, saving

    tables.show_listing(disk.read(given[1]), saving.listing(given[1]))
