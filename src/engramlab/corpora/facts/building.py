"""From rows to a table of facts: which form they have, and what is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from engramlab.base.errors import UserError, at_places, listed, nearest, note, quoted
from engramlab.base.facts import Fact
from engramlab.corpora.facts.formats import as_number
from engramlab.corpora.facts.wordings import Said
from engramlab.corpora.layout import check_attributes
from engramlab.corpora.templates import PRONOUNS
from engramlab.files.tables import ColumnTable, clean
from engramlab.files.text import wrong_with

LONG = ("subject", "relation", "object")
POPULARITY = "popularity"
SUBJECT_ALIASES, OBJECT_ALIASES, _ALIASES = "subject_aliases", "object_aliases", "_aliases"
#: What becomes of a second object of one subject and relation.
Several = Literal["refuse", "first"]


class Builder:
    """A table of facts in the making: takes them one by one and refuses what contradicts itself.

    Args:
        name: what messages call the source.
        relations: those there are, in their order, if that is known beforehand.
        several: what becomes of a second object: "first" leaves it out, counted in a note.
        shared: an alias may be another's object, as where subjects have several objects and all of them are right.
    """

    def __init__(
        self, name: str, relations: Iterable[str] = (), several: Several = "refuse", shared: bool = False
    ) -> None:
        if several not in ("refuse", "first"):
            raise UserError(f"several: {several!r} is unknown; use 'refuse' or 'first'")
        self.name, self.several, self.shared = name, several, shared
        self.said: Said | None = None
        self.popularity: dict[tuple[str, str], float] = {}
        self.wrong: dict[tuple[str, str], tuple[str, ...]] = {}
        self.subjects: dict[str, int] = {}
        self.objects: dict[str, list[str]] = {relation: [] for relation in relations}
        self.aliases: dict[tuple[int, str], tuple[str, ...]] = {}
        self.subject_aliases: dict[int, tuple[str, ...]] = {}
        self.pronouns: list[str] = []
        self.places: list[str] = []
        self._stated: dict[str, list[str]] = {relation: [] for relation in relations}  # where, like `objects`
        self._spellings: dict[tuple[int, str], dict[str, None]] = {}  # aliases of objects, and under "" of subjects
        self._conflicts: list[tuple[str, int, str, str]] = []  # place, subject, relation and its second object
        self._cut: list[str] = []  # places of cells with several objects

    def subject(self, name: str, place: str, aliases: Iterable[str] = ()) -> int:
        """The number of a subject, new or known."""
        number = self.subjects.setdefault(name, len(self.places))
        if number == len(self.places):
            self.places.append(place)
        self._also(number, "", aliases)
        return number

    def add(self, number: int, relation: str, value: str, place: str, aliases: Iterable[str] = ()) -> None:
        """A fact about a subject."""
        objects = self.objects.setdefault(relation, [])
        stated = self._stated.setdefault(relation, [])
        for column in (objects, stated):
            column.extend([""] * (number + 1 - len(column)))
        if objects[number] and objects[number] != value:
            self._conflicts.append((place, number, relation, value))
            return
        objects[number], stated[number] = value, stated[number] or place
        self._also(number, relation, aliases)

    def first(self, values: Sequence[str], place: str) -> str:
        """The object of a cell that may have several."""
        if len(values) > 1:
            self._cut.append(place)
        return values[0] if values else ""

    def _also(self, number: int, relation: str, aliases: Iterable[str]) -> None:
        for alias in aliases:
            self._spellings.setdefault((number, relation), {})[alias] = None

    def finish(self) -> Builder:
        """The whole table. Raises UserError: no fact, two objects, too many relations, an alias that is another's name."""
        if not any(map(any, self.objects.values())):
            raise UserError(f"{self.name}: states no fact; write a subject, a relation and an object")
        self._settle()
        if empty := [relation for relation, objects in self.objects.items() if not any(objects)]:
            note(f"{self.name}: nothing is stated of {listed(map(quoted, empty))}, and it is left out")
        self.objects = {relation: objects for relation, objects in self.objects.items() if relation not in empty}
        check_attributes(list(self.objects))
        for objects in (*self.objects.values(), *self._stated.values()):
            objects.extend([""] * (len(self.places) - len(objects)))
        subjects = list(self.subjects)
        for (number, relation), spellings in self._spellings.items():
            own = self.objects.get(relation, [""] * len(subjects))[number] if relation else subjects[number]
            if others := tuple(alias for alias in spellings if alias and alias != own):
                if relation:
                    self.aliases[number, relation] = others
                else:
                    self.subject_aliases[number] = others
        names = {subject.casefold(): subject for subject in subjects}
        for number, aliases in self.subject_aliases.items():
            for alias in aliases:
                if self.subjects.get(names.get(alias.casefold(), ""), number) != number:
                    raise UserError(
                        f"{self.name}, {self.places[number]}, key {SUBJECT_ALIASES!r}: {quoted(alias)} is also the subject of "
                        f"{self.places[self.subjects[names[alias.casefold()]]]}; leave the alias out"
                    )
        if not self.shared:
            self._check_aliases()
        return self

    def _settle(self) -> None:
        """Says what became of second objects, or refuses them."""
        if self._cut:
            note(
                f"{self.name}: of {len(self._cut)} cells with several objects the first is taken ({at_places(self._cut)})"
            )
        if not self._conflicts:
            return
        places = [place for place, *_ in self._conflicts]
        if self.several == "first":
            note(
                f"{self.name}: {len(places)} second objects are left out, the first of each stands ({at_places(places)})"
            )
            return
        _, number, relation, value = self._conflicts[0]
        others = f" (so it is at {at_places(places[1:])})" if len(places) > 1 else ""
        raise UserError(
            f"{self.name}, {places[0]}: {quoted(relation)} of {quoted(list(self.subjects)[number])} is {quoted(value)}, but "
            f"{quoted(self.objects[relation][number])} at {self._stated[relation][number]}{others}; a subject has one object "
            "a relation, put the other's spellings into aliases, or take the first of each with --several first"
        )

    def _check_aliases(self) -> None:
        """An answer that is right for one subject must not be the object of another: choices and edits would have two."""
        known: dict[str, dict[str, str]] = {}
        for (number, relation), aliases in self.aliases.items():
            objects, stated = self.objects[relation], self._stated[relation]
            if relation not in known:
                known[relation] = {value.casefold(): value for value in objects if value}
            for alias in aliases:
                other = known[relation].get(alias.casefold())
                if other is not None and other.casefold() != objects[number].casefold():
                    raise UserError(
                        f"{self.name}, {stated[number]}, key {OBJECT_ALIASES!r}: {quoted(alias)}, an alias of "
                        f"{quoted(objects[number])}, is also the {relation} of {stated[objects.index(other)]}; leave the "
                        "alias out"
                    )


def from_facts(
    facts: Iterable[Fact],
    relations: Sequence[str] | None,
    name: str,
    several: Several = "refuse",
    shared: bool = False,
) -> Builder:
    """The builder of facts given one by one."""
    built = Builder(name, relations or (), several, shared)
    seen: dict[str, None] = {}
    for number, fact in enumerate(facts, 1):
        place = f"fact {number}"
        subject, relation, value = clean(fact.subject), clean(fact.relation), clean(fact.object)
        if not subject or not relation or not value:
            raise UserError(f"{name}, {place}: has an empty subject, relation or object; leave the fact out")
        for text in (subject, relation, value, *fact.aliases, *fact.subject_aliases):
            if wrong := wrong_with(text):
                raise UserError(f"{name}, {place}: {quoted(text)} {wrong}")
        seen[relation] = None
        if relations is None or relation in relations:
            subject_number = built.subject(subject, place, [*map(clean, fact.subject_aliases)])
            built.add(subject_number, relation, value, place, [*map(clean, fact.aliases)])
    check_relations(relations, list(seen), name)
    return built.finish()


def check_relations(relations: Sequence[str] | None, known: Sequence[str], name: str) -> None:
    """Raises UserError for a relation that is not known."""
    for relation in relations or ():
        if relation not in known:
            raise UserError(
                f"{name}: there is no relation {quoted(relation)}; did you mean {quoted(nearest(relation, known))}? There are: "
                f"{listed(known)}"
            )


def from_table(
    table: ColumnTable,
    key: str | None,
    relations: Sequence[str] | None,
    pronoun_column: str | None,
    separator: str | None = None,
    several: Several = "refuse",
) -> Builder:
    """The builder of a table in the wide or the long form."""
    if separator is not None and not separator.strip():
        raise UserError(f"separator: {separator!r} is what words have between them; name another character")
    if key is None and all(name in table.columns for name in LONG):
        return _from_long(table, relations, pronoun_column, separator, several)
    key = key if key is not None else next(iter(table.columns), "")
    return _from_wide(table, key, relations, pronoun_column, separator, several)


def _objects(table: ColumnTable, column: str, separator: str | None, several: Several) -> list[tuple[str, ...]]:
    """The objects of each cell of a column: none where it is empty."""
    cells: Sequence[Any] = table.cells(column) if several == "first" else table.column(column)
    split = [(cell.split(separator) if separator else [cell]) if isinstance(cell, str) else cell for cell in cells]
    return [tuple(dict.fromkeys(filter(None, map(clean, texts)))) for texts in split]


def _from_long(
    table: ColumnTable,
    relations: Sequence[str] | None,
    pronoun_column: str | None,
    separator: str | None,
    several: Several,
) -> Builder:
    known = (*LONG, SUBJECT_ALIASES, OBJECT_ALIASES, POPULARITY)
    for column in table.columns:  # others are not looked at, but a misspelt one would be missed
        if column not in known and (close := difflib.get_close_matches(column[:40], known, 1, 0.8)):
            raise UserError(
                f"{table.name}: a table with a fact a row has no column {quoted(column)}; did you mean {close[0]!r}? "
                f"The columns are {', '.join(known)}"
            )
    if pronoun_column is not None:
        raise UserError(f"{table.name}: pronouns are for tables with a row a subject; leave the pronoun column out")
    subjects, of = table.column("subject"), table.column("relation")
    objects = _objects(table, "object", separator, several)
    check_relations(relations, list(dict.fromkeys(filter(None, of))), table.name)
    for name, cells in (("subject", subjects), ("relation", of)):
        _check_filled(table, name, cells)
    built = Builder(table.name, relations or (), several)
    told = table.column(POPULARITY) if POPULARITY in table.columns else [""] * len(table)
    aliases = zip(table.lists(SUBJECT_ALIASES), table.lists(OBJECT_ALIASES), strict=True)
    for row, (other_names, spellings) in enumerate(aliases):
        if objects[row] and (relations is None or of[row] in relations):
            place = table.places[row]
            number = built.subject(subjects[row], place, other_names)
            built.add(number, of[row], built.first(objects[row], place), place, spellings)
            if told[row]:
                built.popularity.setdefault(
                    (subjects[row], of[row]), as_number(told[row], table.where(row, POPULARITY))
                )
    return built.finish()


def _check_filled(table: ColumnTable, column: str, cells: Sequence[str]) -> None:
    """Raises UserError where a row does not say whom or what it is about."""
    empty = [row for row, cell in enumerate(cells) if not cell]
    if empty:
        others = f" (so it is at {at_places([table.places[row] for row in empty[1:]])})" if len(empty) > 1 else ""
        raise UserError(f"{table.where(empty[0], column)}: the cell is empty{others}; fill it or leave the row out")


def _from_wide(
    table: ColumnTable,
    key: str,
    relations: Sequence[str] | None,
    pronoun_column: str | None,
    separator: str | None,
    several: Several,
) -> Builder:
    names = table.column(key)
    beside = _beside(table, key, relations, pronoun_column)
    stated = tuple(relations or (name for name in table.columns if name not in beside))
    if not stated:
        raise UserError(f"{table.name}: needs at least one column besides {quoted(key)}")
    check_attributes(stated)
    for name in stated:
        if stated.count(name) > 1 or name == key:
            raise UserError(f"attributes: {quoted(name)} is there twice, or is the key")

    def aliases_of(name: str) -> list[tuple[str, ...]]:
        return table.lists(name) if name in beside else [()] * len(table)

    columns = {name: (_objects(table, name, separator, several), aliases_of(name + _ALIASES)) for name in stated}
    other_names = aliases_of(SUBJECT_ALIASES)
    _check_filled(table, key, names)
    said = _pronouns(table, pronoun_column) if pronoun_column is not None else None
    built = Builder(table.name, stated, several)
    again, blank = [], []
    for row, name in enumerate(names):
        place = table.places[row]
        if name in built.subjects:
            again.append(row)
        elif not any(cells[row] for cells, _ in columns.values()):
            blank.append(place)
            continue
        elif said is not None:
            built.pronouns.append(said[row])
        number = built.subject(name, place, other_names[row])
        for relation, (cells, aliases) in columns.items():
            if value := built.first(cells[row], place):
                built.add(number, relation, value, place, aliases[row])
    if again and several == "refuse":
        first = built.places[built.subjects[names[again[0]]]]
        others = f" (so are {at_places([table.places[row] for row in again[1:]])})" if len(again) > 1 else ""
        raise UserError(
            f"{table.where(again[0], key)}: {quoted(names[again[0]])} is already on {first}{others}; every entity needs one "
            "row: put them together, or take the first of each with --several first"
        )
    if blank:
        note(f"{table.name}: rows that state nothing are left out: {len(blank)} ({at_places(blank)})")
    return built.finish()


def _beside(
    table: ColumnTable, key: str, relations: Sequence[str] | None, pronoun_column: str | None
) -> Mapping[str, None]:
    """The columns of a wide table that are no relations. Raises UserError for aliases of a column that is not there."""
    found = dict.fromkeys(name for name in (key, pronoun_column) if name is not None)
    known = dict.fromkeys(other for other in table.columns if not other.endswith(_ALIASES))
    for name in table.columns:
        about = name.removesuffix(_ALIASES)
        if about == name or name in (relations or ()):
            continue
        if name != SUBJECT_ALIASES and about not in known:
            if relations is not None:  # nobody asks for it
                continue
            raise UserError(
                f"{table.name}: column {quoted(name)} has aliases of no column {quoted(about)}; did you mean "
                f"{quoted(nearest(about, known) + _ALIASES)}? For other names of the subject write {SUBJECT_ALIASES!r}, or "
                "name the columns to state with --attributes"
            )
        found[name] = None
    return found


def _pronouns(table: ColumnTable, column: str) -> list[str]:
    said = [cell.lower() for cell in table.column(column)]
    for row, word in enumerate(said):
        if word not in PRONOUNS:
            raise UserError(
                f"{table.where(row, column)}: {quoted(word)} is no pronoun; write one of {', '.join(PRONOUNS)}"
            )
    return said
