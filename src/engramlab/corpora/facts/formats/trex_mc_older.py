"""T-REx-MC in an older revision: ``Head``, ``Fact``, ``Alternate Facts``, a file a relation, which is named as the file is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engramlab.corpora.facts.building import Builder
from engramlab.corpora.facts.formats import trex_mc
from engramlab.files.tables import ColumnTable

KEYS = ("Head", "Fact", "Alternate Facts")


def read(table: ColumnTable, relations: Sequence[str] | None) -> Builder:
    """The facts, with the wrong objects that each is chosen from."""
    name = Path(str(table.name)).name.partition(".")[0].replace("_", " ")
    return trex_mc.built(table, relations, [name] * len(table.places), KEYS)
