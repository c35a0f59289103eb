"""Facts about made-up people (`corpora/people.py`), to be learnt: thousands of edits without a file.

Every tenth one gives an earlier fact another object, so that the latest must win.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engramlab.base.facts import Case
from engramlab.base.random_access import draw, key
from engramlab.corpora.facts import FactTable
from engramlab.corpora.people import People

LIMIT = 1000  # of a run that does not say
_PEOPLE = 5000  # with six facts each
_AGAIN = 10  # every so many edits an earlier one is made again, with another object


def cases(seed: int = 0, limit: int | None = None) -> list[Case]:
    """Insertions, and edits of what was inserted, in an order drawn by ``seed``; at most 30,000, and ``LIMIT`` without a limit.

    Judges are other wordings of the prompt: what must stay is nothing that a model knows of made-up people.
    """
    table = FactTable.of_population(People(_PEOPLE, seed))
    first = table.edits("own", limit=LIMIT if limit is None else limit, locality=0, seed=seed)
    objects = table.choices()
    return list(_with_changes(first, objects, seed))[:limit]


def _with_changes(first: list[Case], objects: dict[str, tuple[str, ...]], seed: int) -> Iterator[Case]:
    given: list[Case] = []  # what has been inserted so far
    for case in first:
        if (len(given) + 1) % (_AGAIN - 1) == 0:
            yield from (case, _changed(given, len(given), objects, seed))
        else:
            yield case
        given.append(case)


def _changed(given: list[Case], number: int, objects: dict[str, tuple[str, ...]], seed: int) -> Case:
    """One of the inserted facts with another object."""
    old = given[int(draw(key(seed, "changed"), number, len(given)))]
    edit = old.edits[0]
    others = [one for one in objects[edit.query.relation] if one != edit.target]
    new = others[int(draw(key(seed, "changed to"), number, len(others)))]
    judges = tuple(replace(judge, target=new, id=f"{judge.id}, again {number}") for judge in edit.judges)
    query = replace(edit.query, target=edit.target, id=f"{edit.query.id}, again {number}")
    return Case(f"{old.id}, again {number}", (replace(edit, query=query, target=new, judges=judges),))
