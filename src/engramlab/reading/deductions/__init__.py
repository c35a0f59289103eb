"""Other people's questions about given facts: one file a format here, and the file name is the registration.

A format is a module with ``recognises(record) -> bool`` and ``episodes(record, where, number) -> list[Episode]``, which raises
UserError with ``where`` (file and line or record) in front.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engramlab.base import registry
from engramlab.base.errors import UserError, listed, quoted
from engramlab.corpora.episodes import Episode, checked
from engramlab.files import tables


def read_episodes(path: str | Path) -> list[Episode]:
    """Episodes in any of the formats, from whatever ``files.tables`` reads; each record tells its own.

    Raises:
        UserError: the file is missing or without records; a record is of no known format, lacks a key or has a wrong value
            there, has another's id, no facts, or an answer that is no label or stands in its question. Names file, record
            and key.
    """
    package = sys.modules[__name__]
    known = {name: registry.load(package, name, "format") for name in registry.names(package)}
    found: dict[str, Episode] = {}
    for number, (place, record) in enumerate(tables.objects(path), 1):
        where = f"{path}, {place}"
        form = next((form for form in known.values() if form.recognises(record)), None)
        if form is None:
            raise UserError(f"{where}: is of no known format ({', '.join(known)}); its keys are {listed(record)}")
        for made in form.episodes(record, where, number):
            if made.id in found:
                raise UserError(f"{where}, key 'id': {quoted(made.id)} is another record's id too; give each its own")
            found[made.id] = checked(made, where)
    if not found:
        raise UserError(f"{path}: there are no questions; write a record each")
    return list(found.values())
