"""T-REx-MC (arXiv 2404.12957): facts of 50 relations, each with a list of wrong objects to choose from.

A row is ``Relation Name``, ``Subject``, ``Object`` and ``Multiple Choices``, a Python list written as text; other columns are
not looked at. The lists leave out every right object; of several right ones of a subject the first stands. Files of an older
revision (``trex_mc_older.py``) are read alike.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from engramlab.base.errors import UserError, quoted
from engramlab.corpora.facts.building import Builder, check_relations
from engramlab.corpora.facts.formats import filled
from engramlab.files.tables import ColumnTable, clean

KEYS = ("Relation Name", "Subject", "Object", "Multiple Choices")


def read(table: ColumnTable, relations: Sequence[str] | None) -> Builder:
    """The facts, with the wrong objects that each is chosen from."""
    return built(table, relations, filled(table, KEYS[0]), KEYS[1:])


def built(table: ColumnTable, relations: Sequence[str] | None, of: Sequence[str], columns: tuple[str, ...]) -> Builder:
    """The facts, by what each row's relation is and the columns of subject, object and list."""
    subjects, objects = (filled(table, name) for name in columns[:2])
    cells = table.cells(columns[2])
    check_relations(relations, list(dict.fromkeys(of)), table.name)
    found = Builder(table.name, relations or (), "first")
    for row, (relation, subject, right) in enumerate(zip(of, subjects, objects, strict=True)):
        if relations is None or relation in relations:
            found.add(found.subject(subject, table.places[row]), relation, right, table.places[row])
            wrong = tuple(one for one in _choices(cells[row], table.where(row, columns[2])) if one != right)
            found.wrong.setdefault((subject, relation), wrong)
    return found.finish()


def _choices(cell: object, where: str) -> Sequence[str]:
    """A row's wrong objects, each once. Raises UserError for what is no list of texts."""
    try:
        listed = ast.literal_eval(cell) if isinstance(cell, str) else cell
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed) or not listed:
            raise ValueError
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise UserError(f"{where}: {quoted(cell)} is no list of texts, such as ['Paris', 'Rome']") from None
    return tuple(dict.fromkeys(filter(None, map(clean, listed))))
