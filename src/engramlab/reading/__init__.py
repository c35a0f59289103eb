"""Other people's passages and question sets: one file a format in `formats`, and the file name is the registration.

A format is a module with ``recognises(record) -> bool`` and ``passage(record, where, number) -> PassageRecord``, which raises
UserError with ``where`` (file and line or record) in front.
"""

from __future__ import annotations

from pathlib import Path

from engramlab.base import registry
from engramlab.base.errors import UserError, quoted
from engramlab.corpora.passages import PassageRecord
from engramlab.files import tables
from engramlab.files.text import kind_of
from engramlab.reading import formats
from engramlab.reading.formats import passages as own

KINDS = (".json", ".jsonl", ".ndjson")


def names() -> list[str]:
    """Names of the formats."""
    return registry.names(formats)


def read_passages(path: str | Path) -> list[PassageRecord]:
    """Reads passages in any of the formats, from .jsonl, .ndjson or .json, packed or not; each record tells its own.

    Raises:
        UserError: the file is missing, of another kind or without records; a record lacks a key, has one of another type or
            an unknown one; an id is there twice; a query's text does not hold its target. Names file, record and key.
    """
    path = Path(path).expanduser()
    if kind_of(path) not in KINDS:
        raise UserError(f"{path}: cannot read passages from a file that ends in {kind_of(path)!r}; use .jsonl or .json")
    known = [registry.load(formats, name, "format") for name in names()]
    records: list[PassageRecord] = []
    places: dict[str, str] = {}
    for number, (place, record) in enumerate(tables.objects(path)):
        where = f"{path}, {place}"
        made = next((form for form in known if form.recognises(record)), own).passage(record, where, number)
        if made.id in places:
            raise UserError(
                f"{where}, key 'id': {quoted(made.id)} is also the id of {places[made.id]}; give each its own"
            )
        places[made.id] = place
        records.append(made)
    if not records:
        raise UserError(f"{path}: there are no passages; write one record each, with the keys {', '.join(own.KEYS)}")
    return records
