"""From rows to a table of facts: which form they have, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engramlab.base.errors import UserError, nearest
from engramlab.base.facts import Fact
from engramlab.corpora.layout import check_attributes
from engramlab.corpora.templates import PRONOUNS
from engramlab.files.tables import ColumnTable, clean, read_table

LONG = ("subject", "relation", "object")
SUBJECT_ALIASES, OBJECT_ALIASES, _ALIASES = "subject_aliases", "object_aliases", "_aliases"


class Builder:
    """A table of facts in the making: takes them one by one and refuses what contradicts itself.

    Args:
        name: what messages call the source.
        relations: those there are, in their order, if that is known beforehand.
    """

    def __init__(self, name: str, relations: Iterable[str] = ()) -> None:
        self.name = name
        self.subjects: dict[str, int] = {}
        self.objects: dict[str, list[str]] = {relation: [] for relation in relations}
        self.aliases: dict[tuple[int, str], tuple[str, ...]] = {}
        self.subject_aliases: dict[int, tuple[str, ...]] = {}
        self.pronouns: list[str] = []
        self.places: list[str] = []
        self._stated: dict[str, list[str]] = {relation: [] for relation in relations}  # where, like `objects`

    def subject(self, name: str, place: str, aliases: Sequence[str] = ()) -> int:
        """The number of a subject, new or known."""
        number = self.subjects.setdefault(name, len(self.places))
        if number == len(self.places):
            self.places.append(place)
        if aliases:
            self.subject_aliases[number] = _more(self.subject_aliases.get(number, ()), aliases, name)
        return number

    def add(self, number: int, relation: str, value: str, place: str, aliases: Sequence[str] = ()) -> None:
        """A fact about a subject. Raises UserError where another object was stated before."""
        objects = self.objects.setdefault(relation, [])
        stated = self._stated.setdefault(relation, [])
        for column in (objects, stated):
            column.extend([""] * (number + 1 - len(column)))
        if objects[number] and objects[number] != value:
            subject = next(name for name, known in self.subjects.items() if known == number)
            raise UserError(
                f"{self.name}, {place}: {relation!r} of {subject!r} is {value!r}, but {objects[number]!r} at "
                f"{stated[number]}; a subject has one object a relation, put the other's spellings into aliases"
            )
        objects[number], stated[number] = value, stated[number] or place
        if aliases:
            known = self.aliases.get((number, relation), ())
            self.aliases[number, relation] = _more(known, aliases, value)

    def finish(self) -> Builder:
        """The whole table. Raises UserError: no fact, too many relations, an alias that is another's name."""
        check_attributes(list(self.objects))
        for objects in (*self.objects.values(), *self._stated.values()):
            objects.extend([""] * (len(self.places) - len(objects)))
        if not any(map(any, self.objects.values())):
            raise UserError(f"{self.name}: states no fact; write a subject, a relation and an object")
        names = {subject.casefold(): subject for subject in self.subjects}
        for number, aliases in self.subject_aliases.items():
            for alias in aliases:
                if self.subjects.get(names.get(alias.casefold(), ""), number) != number:
                    raise UserError(
                        f"{self.name}, {self.places[number]}, key {SUBJECT_ALIASES!r}: {alias!r} is also the subject of "
                        f"{self.places[self.subjects[names[alias.casefold()]]]}; leave the alias out"
                    )
        self._check_aliases()
        return self

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
                        f"{self.name}, {stated[number]}, key {OBJECT_ALIASES!r}: {alias!r}, an alias of {objects[number]!r}, "
                        f"is also the {relation} of {stated[objects.index(other)]}; leave the alias out"
                    )


def _more(known: Sequence[str], aliases: Sequence[str], own: str) -> tuple[str, ...]:
    return tuple(alias for alias in dict.fromkeys((*known, *aliases)) if alias and alias != own)


def from_facts(facts: Iterable[Fact], relations: Sequence[str] | None, name: str) -> Builder:
    """The builder of facts given one by one."""
    built = Builder(name, relations or ())
    seen: dict[str, None] = {}
    for number, fact in enumerate(facts, 1):
        place = f"fact {number}"
        subject, relation, value = clean(fact.subject), clean(fact.relation), clean(fact.object)
        if not subject or not relation or not value:
            raise UserError(f"{name}, {place}: has an empty subject, relation or object; leave the fact out")
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
                f"{name}: there is no relation {relation!r}; did you mean {nearest(relation, known)!r}? There are: "
                f"{', '.join(known)}"
            )


def from_table(source: object, key: str | None, relations: Sequence[str] | None, pronoun_column: str | None) -> Builder:
    """The builder of a table in the wide or the long form."""
    table = read_table(source)
    if key is None and all(name in table.columns for name in LONG):
        return _from_long(table, relations, pronoun_column)
    return _from_wide(table, key if key is not None else next(iter(table.columns)), relations, pronoun_column)


def _from_long(table: ColumnTable, relations: Sequence[str] | None, pronoun_column: str | None) -> Builder:
    known = (*LONG, SUBJECT_ALIASES, OBJECT_ALIASES)
    for column in table.columns:
        if column not in known:
            raise UserError(
                f"{table.name}: a table with a fact a row has no column {column!r}; did you mean {nearest(column, known)!r}? "
                f"The columns are {', '.join(known)}"
            )
    if pronoun_column is not None:
        raise UserError(f"{table.name}: pronouns are for tables with a row a subject; leave the pronoun column out")
    subjects, of, objects = (table.column(name) for name in LONG)
    check_relations(relations, list(dict.fromkeys(filter(None, of))), table.name)
    built = Builder(table.name, relations or ())
    aliases = zip(table.lists(SUBJECT_ALIASES), table.lists(OBJECT_ALIASES), strict=True)
    for row, (other_names, spellings) in enumerate(aliases):
        for name, cells in (("subject", subjects), ("relation", of)):
            if not cells[row]:
                raise UserError(f"{table.where(row, name)}: the cell is empty; fill it or leave the row out")
        if objects[row] and (relations is None or of[row] in relations):
            place = table.places[row]
            built.add(built.subject(subjects[row], place, other_names), of[row], objects[row], place, spellings)
    return built.finish()


def _from_wide(table: ColumnTable, key: str, relations: Sequence[str] | None, pronoun_column: str | None) -> Builder:
    names = table.column(key)
    beside = _beside(table, key, relations, pronoun_column)
    stated = tuple(relations or (name for name in table.columns if name not in beside))
    if not stated:
        raise UserError(f"{table.name}: needs at least one column besides {key!r}")
    for name in stated:
        if stated.count(name) > 1 or name == key:
            raise UserError(f"attributes: {name!r} is there twice, or is the key")
    columns = {name: (table.column(name), table.lists(name + _ALIASES)) for name in stated}
    other_names = table.lists(SUBJECT_ALIASES)
    built = Builder(table.name, stated)
    for row, name in enumerate(names):
        place = table.places[row]
        if not name:
            raise UserError(f"{table.where(row, key)}: the cell is empty; fill it or leave the row out")
        if name in built.subjects:
            first = built.places[built.subjects[name]]
            raise UserError(f"{table.where(row, key)}: {name!r} is already on {first}; every entity needs one row")
        if not any(cells[row] for cells, _ in columns.values()):
            where = table.where(row, stated[0])
            raise UserError(f"{where}: the cell is empty, and so are all of this row; fill one or leave the row out")
        number = built.subject(name, place, other_names[row] if SUBJECT_ALIASES in beside else ())
        for relation, (cells, aliases) in columns.items():
            if cells[row]:
                built.add(number, relation, cells[row], place, aliases[row] if relation + _ALIASES in beside else ())
    if pronoun_column is not None:
        built.pronouns = _pronouns(table, pronoun_column)
    return built.finish()


def _beside(
    table: ColumnTable, key: str, relations: Sequence[str] | None, pronoun_column: str | None
) -> Mapping[str, None]:
    """The columns of a wide table that are no relations. Raises UserError for aliases of a column that is not there."""
    found = dict.fromkeys(name for name in (key, pronoun_column) if name is not None)
    for name in table.columns:
        about = name.removesuffix(_ALIASES)
        if about == name or name in (relations or ()):
            continue
        known = [other for other in table.columns if not other.endswith(_ALIASES)]
        if name != SUBJECT_ALIASES and about not in known:
            raise UserError(
                f"{table.name}: column {name!r} has aliases of no column {about!r}; did you mean "
                f"{nearest(about, known) + _ALIASES!r}? For other names of the subject write {SUBJECT_ALIASES!r}"
            )
        found[name] = None
    return found


def _pronouns(table: ColumnTable, column: str) -> list[str]:
    said = [cell.lower() for cell in table.column(column)]
    for row, word in enumerate(said):
        if word not in PRONOUNS:
            raise UserError(f"{table.where(row, column)}: {word!r} is no pronoun; write one of {', '.join(PRONOUNS)}")
    return said
